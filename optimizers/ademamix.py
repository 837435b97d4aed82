"""AdEMAMix: AdamW with a second, slow momentum.

Boundary: settings and optax's transformation, with schedules that end with the training.

Source: Pagliardini et al., "The AdEMAMix Optimizer: Better, Faster, Older", 2024,
https://arxiv.org/abs/2409.03137; its defaults.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.ranges import check
from timetrial.framework.spaces import OneOf, Range, Space
from timetrial.optimizers.precision import in_float32
from timetrial.optimizers.settings import ADAMW_SPACE, DecayedMomentSettings, decayed


@dataclasses.dataclass(frozen=True)
class AdemamixSettings(DecayedMomentSettings):
    """Settings of AdEMAMix; see DecayedMomentSettings for the others.

    Attributes:
        b3: final decay of the slow momentum, in [0, 1). It rises from ``b1``.
        alpha: final weight of the slow momentum, >= 0. It rises from 0.
        rise_fraction: share of the workload's step hint in which both rise, in [0, 1]. The paper
            takes all updates.
    """

    b3: float = 0.9999
    alpha: float = 5.0
    rise_fraction: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, b3="[0, 1)", alpha=">= 0", rise_fraction="[0, 1]")

    def slow_weights(self, horizon: Horizon) -> optax.Schedule:
        """Weight of the slow momentum by number of updates made: linear, then ``alpha``."""
        return lambda made: self.alpha * self._risen(made, horizon)

    def slow_decays(self, horizon: Horizon) -> optax.Schedule:
        """Decay of the slow momentum by number of updates made.

        Its half-life rises about linearly; equation (4) of the paper.
        """
        start, end = (math.log(max(b, 1e-6)) for b in (self.b1, self.b3))

        def decay(made: jax.Array) -> jax.Array:
            risen = self._risen(made, horizon)
            log = start * end / ((1 - risen) * end + risen * start)
            return jnp.where(risen < 1, jnp.exp(log), self.b3)

        return decay

    def _risen(self, made: jax.Array, horizon: Horizon) -> jax.Array:
        steps = max(self.rise_fraction * horizon.step_hint, 1.0)
        return jnp.minimum((jnp.asarray(made, jnp.float32) + 1) / steps, 1.0)


def make_ademamix(settings: AdemamixSettings, horizon: Horizon) -> optax.GradientTransformation:
    """AdEMAMix: ``(m1hat + alpha m2) / (sqrt(vhat) + eps)``, with decoupled weight decay."""
    direction = optax.contrib.scale_by_ademamix(
        settings.b1,
        settings.b2,
        settings.slow_decays(horizon),
        settings.slow_weights(horizon),
        settings.eps,
    )
    return in_float32(decayed(direction, settings, horizon))


# AlgoPerf's space of AdamW; b3 and alpha: values that the paper compares.
_SPACE: Space = {
    **ADAMW_SPACE,
    "one_minus_b3": Range(1e-4, 1e-2),
    "alpha": OneOf((2, 5, 8)),
}

ADEMAMIX = OptimizerEntry(
    "AdEMAMix, warm-up + cosine, lr 1e-3",
    AdemamixSettings,
    make_ademamix,
    space=_SPACE,
    learning_rates=AdemamixSettings.learning_rates,
    takes=(),
    sets_targets=False,
)
