"""Prodigy: AdamW that estimates its own learning rate.

Boundary: settings and optax's transformation, with a guard for gradients that are zero.

Source: Mishchenko and Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", 2023,
https://arxiv.org/abs/2306.06101; its defaults.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.ranges import check
from timetrial.framework.spaces import OneOf, Range, Space
from timetrial.optimizers.precision import in_float32
from timetrial.optimizers.settings import ADAMW_SPACE, MomentSettings


@dataclasses.dataclass(frozen=True)
class ProdigySettings(MomentSettings):
    """Settings of Prodigy; see MomentSettings for the others.

    Attributes:
        learning_rate: factor of the estimated learning rate, >= 0; 1 is meant.
        initial: first, too small estimate of the learning rate, > 0.
        growth: factor of all later estimates, > 0.
        warmup_fraction: share of the schedule spent warming up, in [0, 1). Above 0, the estimate
            does not depend on the schedule ("safeguard_warmup").
    """

    learning_rate: float = 1.0
    warmup_fraction: float = 0.0
    initial: float = 1e-6
    growth: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, initial="> 0", growth="> 0")


def make_prodigy(settings: ProdigySettings, horizon: Horizon) -> optax.GradientTransformation:
    """Prodigy with Adam's moments, Algorithm 4 of the paper, and decoupled weight decay."""
    tx = optax.contrib.prodigy(
        settings.learning_rates(horizon),
        (settings.b1, settings.b2),
        eps=settings.eps,
        estim_lr0=settings.initial,
        estim_lr_coef=settings.growth,
        weight_decay=settings.weight_decay,
        safeguard_warmup=settings.warmup_fraction > 0,
    )
    return in_float32(_guarded(tx))


def _guarded(tx: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """Skips updates until a gradient is not zero; the estimate would be 0 / 0."""

    def update(
        grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        updates, new = tx.update(grads, state, params)
        started = optax.tree.sum(jax.tree.map(jnp.abs, new.grad_sum)) != 0  # true for NaN
        updates = jax.tree.map(lambda u: jnp.where(started, u, 0.0), updates)
        estimate = jnp.where(started, new.estim_lr, state.estim_lr)
        return updates, new._replace(estim_lr=estimate)

    return optax.with_extra_args_support(optax.GradientTransformation(tx.init, update))


# Growth: the paper's advice to tune it between 0.5 and 2; the others as AlgoPerf's of AdamW.
_SPACE: Space = {
    **{key: values for key, values in ADAMW_SPACE.items() if key != "learning_rate"},
    "growth": Range(0.5, 2.0),
    "warmup_fraction": OneOf((0.0, 0.05)),
}

PRODIGY = OptimizerEntry(
    "Prodigy, cosine, learning rate estimated",
    ProdigySettings,
    make_prodigy,
    space=_SPACE,
    takes=(),
    sets_targets=False,
)
