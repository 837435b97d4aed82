"""Settings of optimizers with a warm-up + cosine schedule, and parts of their search spaces.

Boundary: what several optimizers share; no optimizer of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import optax

from timetrial.framework.entries import Horizon
from timetrial.framework.ranges import check
from timetrial.framework.roles import Role
from timetrial.framework.spaces import OneOf, Range, Space
from timetrial.framework.types import PyTree
from timetrial.optimizers.schedules import warmup_cosine

VECTORS = (Role.NORM, Role.BIAS, Role.SCALAR)
"""Roles of tensors without matrix structure."""


@dataclasses.dataclass(frozen=True)
class CosineSettings:
    """Learning rate, its schedule and weight decay; see ``warmup_cosine``.

    Attributes:
        learning_rate: peak of the warm-up + cosine schedule, >= 0.
        warmup_fraction: share of the schedule spent warming up, in [0, 1).
        end_factor: final learning rate as a factor of the peak, in [0, 1].
        weight_decay: decoupled, multiplied by the learning rate, on all parameters, >= 0.
    """

    learning_rate: float = 1e-3
    warmup_fraction: float = 0.05
    end_factor: float = 1e-4
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check(self, learning_rate=">= 0", warmup_fraction="[0, 1)", end_factor="[0, 1]")
        check(self, weight_decay=">= 0")

    def learning_rates(self, horizon: Horizon) -> optax.Schedule:
        """Learning rate by number of updates made."""
        return warmup_cosine(
            self.learning_rate,
            horizon,
            warmup_fraction=self.warmup_fraction,
            end_factor=self.end_factor,
        )


@dataclasses.dataclass(frozen=True)
class MomentSettings(CosineSettings):
    """Settings of optimizers with two moments; see CosineSettings for the others.

    Attributes:
        b1, b2: decay of the first and second moment, in [0, 1).
        eps: added to the root of the second moment, > 0.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, b1="[0, 1)", b2="[0, 1)", eps="> 0")


@dataclasses.dataclass(frozen=True)
class DecayedSettings(CosineSettings):
    """Settings of optimizers whose weight decay ``decayed`` applies; see CosineSettings.

    Attributes:
        weight_decay: decoupled, multiplied by the learning rate, >= 0.
        decay_vectors: true decays norms, biases and scalars, too, as AlgoPerf's baselines do; false
            leaves them out, by the workload's roles.
    """

    decay_vectors: bool = True


@dataclasses.dataclass(frozen=True)
class DecayedMomentSettings(MomentSettings, DecayedSettings):
    """Settings of such optimizers with two moments; see MomentSettings and DecayedSettings."""


def decayed(
    direction: optax.GradientTransformation, settings: DecayedSettings, horizon: Horizon
) -> optax.GradientTransformation:
    """``p -= lr * (direction + weight_decay * p)`` with the schedule of the settings."""

    def mask(params: PyTree) -> PyTree:
        return jax.tree.map(lambda role: role not in VECTORS, horizon.roles(params))

    decay = optax.add_decayed_weights(
        settings.weight_decay, mask=None if settings.decay_vectors else mask
    )
    return optax.chain(
        direction, decay, optax.scale_by_learning_rate(settings.learning_rates(horizon))
    )


def by_role(
    rules: Mapping[str, optax.GradientTransformation],
    rule_of: Callable[[Role], str],
    horizon: Horizon,
) -> optax.GradientTransformation:
    """Updates every tensor by the rule of its role.

    Args:
        rules: transformations by name.
        rule_of: maps a role to the name of its rule.
        horizon: knows the roles.
    """
    return optax.partition(rules, lambda params: jax.tree.map(rule_of, horizon.roles(params)))


REGULARISATION: Space = {
    "workload.label_smoothing": OneOf((0.1, 0.2)),
    "workload.dropout_rate": OneOf((0.0, 0.1)),
}
"""Regularisation as in AlgoPerf's search spaces."""

ADAMW_SPACE: Space = {
    "learning_rate": Range(1e-4, 1e-2),
    "one_minus_b1": Range(0.02, 0.5),
    "b2": OneOf((0.999,)),
    "warmup_fraction": OneOf((0.05,)),
    "weight_decay": Range(0.005, 1.0),
    **REGULARISATION,
}
"""AlgoPerf's search space of AdamW.

Source: Dahl et al., "Benchmarking Neural Network Training Algorithms", 2023,
https://arxiv.org/abs/2306.07179; ``adamw/tuning_search_space.json`` in
https://github.com/mlcommons/algorithmic-efficiency.
"""

NADAMW_SPACE: Space = {**ADAMW_SPACE, "one_minus_b1": Range(0.004, 0.1)}
"""AlgoPerf's search space of NAdamW; source as of ``ADAMW_SPACE``."""
