"""MoMo-Adam: Adam with a step size from the loss and a lower bound of it.

Boundary: settings and optax's transformation.

Source: Schaipp et al., "MoMo: Momentum Models for Adaptive Learning Rates", 2023,
https://arxiv.org/abs/2305.07583; its defaults.
"""

from __future__ import annotations

import dataclasses

import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.ranges import check
from timetrial.framework.spaces import OneOf, Range, Space
from timetrial.optimizers.precision import in_float32
from timetrial.optimizers.settings import ADAMW_SPACE, MomentSettings


@dataclasses.dataclass(frozen=True)
class MomoSettings(MomentSettings):
    """Settings of MoMo-Adam; see MomentSettings for the others.

    Attributes:
        learning_rate: largest learning rate, >= 0. The loss tells by how much it is reduced.
        warmup_fraction: share of the schedule spent warming up, in [0, 1).
        end_factor: final largest learning rate as a factor of the first, in [0, 1]; 1 keeps it
            constant.
        lower_bound: lower bound of the loss.
        adapt_lower_bound: true estimates the bound from the losses; ``lower_bound`` is the least.
    """

    learning_rate: float = 1e-2
    warmup_fraction: float = 0.0
    end_factor: float = 1.0
    lower_bound: float = 0.0
    adapt_lower_bound: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, lower_bound="(-inf, inf)")


def make_momo_adam(settings: MomoSettings, horizon: Horizon) -> optax.GradientTransformation:
    """MoMo-Adam, Algorithm 2 of the paper; it needs the loss as ``value``."""
    return in_float32(
        optax.contrib.momo_adam(
            settings.learning_rates(horizon),
            settings.b1,
            settings.b2,
            settings.eps,
            settings.lower_bound,
            settings.weight_decay,
            settings.adapt_lower_bound,
        )
    )


# Learning rates: figure 2 of the paper (1e-4 to 1); the others as AlgoPerf's space of AdamW.
_SPACE: Space = {
    **ADAMW_SPACE,
    "learning_rate": Range(1e-4, 1.0),
    "warmup_fraction": OneOf((0.0, 0.05)),
}

MOMO_ADAM = OptimizerEntry(
    "MoMo-Adam, constant bound 1e-2 of the learning rate",
    MomoSettings,
    make_momo_adam,
    space=_SPACE,
    takes=("value",),
    sets_targets=False,
)
