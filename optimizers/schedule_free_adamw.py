"""Schedule-Free AdamW: constant learning rate, evaluated at an average of the iterates.

Boundary: settings and optax's transformation, with a warm-up of its own.

Source: Defazio et al., "The Road Less Scheduled", 2024, https://arxiv.org/abs/2405.15682; defaults:
https://github.com/facebookresearch/schedule_free, warm-up: AlgoPerf's submission.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.nested import at_owned, find_states
from timetrial.framework.ranges import check
from timetrial.framework.spaces import OneOf, Range, Space
from timetrial.framework.types import PyTree
from timetrial.optimizers.precision import in_float32
from timetrial.optimizers.schedules import warmup_constant
from timetrial.optimizers.settings import REGULARISATION


@dataclasses.dataclass(frozen=True)
class ScheduleFreeSettings:
    """Settings of Schedule-Free AdamW.

    Attributes:
        learning_rate: learning rate after the warm-up, >= 0.
        warmup_fraction: share of 75 % of the workload's step hint spent warming up, in [0, 1).
        weight_decay: decoupled, multiplied by the learning rate, on all parameters, >= 0.
        b1: weight of the average in the point of the gradients, in (0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the root of the second moment, > 0.
        weight_power: power of the learning rate as weight of an iterate in the average, >= 0.
    """

    learning_rate: float = 2.5e-3
    warmup_fraction: float = 0.02
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_power: float = 2.0

    def __post_init__(self) -> None:
        check(self, learning_rate=">= 0", warmup_fraction="[0, 1)", weight_decay=">= 0")
        check(self, b1="(0, 1)", b2="[0, 1)", eps="> 0", weight_power=">= 0")

    def learning_rates(self, horizon: Horizon) -> optax.Schedule:
        """Learning rate by number of updates made."""
        return warmup_constant(self.learning_rate, horizon, warmup_fraction=self.warmup_fraction)


def make_schedule_free_adamw(
    settings: ScheduleFreeSettings, horizon: Horizon
) -> optax.GradientTransformation:
    """Schedule-Free AdamW. The parameters are the point ``y`` of the gradients.

    ``z`` takes AdamW's steps without momentum, ``x`` is the average of ``z`` weighted by the
    learning rate to the power ``weight_power``, and ``y = b1 x + (1 - b1) z``.
    """
    rates = settings.learning_rates(horizon)
    base = optax.adamw(rates, 0.0, settings.b2, settings.eps, weight_decay=settings.weight_decay)
    return in_float32(
        optax.contrib.schedule_free(
            base,
            lambda update: rates(jnp.asarray(update) - 1),  # optax counts updates from 1 here
            settings.b1,
            settings.weight_power,
        )
    )


def averages(opt_state: PyTree, params: PyTree) -> PyTree:
    """The average ``x = (y - (1 - b1) z) / b1`` of each tensor, in its dtype.

    Args:
        opt_state: state with a ``ScheduleFreeState`` anywhere inside.
        params: the point ``y`` of the gradients.
    """

    def average(b1: jax.Array, z: jax.Array, y: jax.Array) -> jax.Array:
        return ((y.astype(z.dtype) - (1 - b1) * z) / b1).astype(y.dtype)

    for state in find_states(opt_state, optax.contrib.ScheduleFreeState):
        params = at_owned(functools.partial(average, state.b1), state.z, params)
    return params


# Learning rates and b1: the advice of the repository (1 to 10 times AdamW's; 0.9, 0.95 or 0.98).
_SPACE: Space = {
    "learning_rate": Range(5e-4, 5e-2),
    "one_minus_b1": Range(0.02, 0.1),
    "b2": OneOf((0.99, 0.999)),
    "warmup_fraction": OneOf((0.02, 0.05)),
    "weight_decay": Range(0.005, 1.0),
    **REGULARISATION,
}

SCHEDULE_FREE_ADAMW = OptimizerEntry(
    "Schedule-Free AdamW, lr 2.5e-3, evaluated at the average",
    ScheduleFreeSettings,
    make_schedule_free_adamw,
    space=_SPACE,
    learning_rates=ScheduleFreeSettings.learning_rates,
    takes=(),
    eval_params=averages,
    norm_refresh=10,
    sets_targets=False,
)
