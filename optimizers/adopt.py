"""ADOPT: Adam that normalises a gradient by the second moment before it.

Boundary: settings and optax's transformation.

Source: Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate",
2024, https://arxiv.org/abs/2411.02853; its defaults.
"""

from __future__ import annotations

import dataclasses

import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.spaces import OneOf, Space
from timetrial.optimizers.precision import in_float32
from timetrial.optimizers.settings import ADAMW_SPACE, DecayedMomentSettings, decayed


@dataclasses.dataclass(frozen=True)
class AdoptSettings(DecayedMomentSettings):
    """Settings of ADOPT; see DecayedMomentSettings for the others.

    Attributes:
        eps: smallest root of the second moment, > 0.
        clip: true limits the elements of the normalised gradient t to ``t^(1/4)``.
    """

    b2: float = 0.9999
    eps: float = 1e-6
    clip: bool = True


def make_adopt(settings: AdoptSettings, horizon: Horizon) -> optax.GradientTransformation:
    """ADOPT with decoupled weight decay. The first update sets the second moment only."""
    direction = optax.contrib.scale_by_adopt(
        settings.b1, settings.b2, settings.eps, use_clipping=settings.clip
    )
    return in_float32(decayed(direction, settings, horizon))


# AlgoPerf's space of AdamW, but for b2: the three values that the paper compares.
_SPACE: Space = {**ADAMW_SPACE, "b2": OneOf((0.99, 0.999, 0.9999))}

ADOPT = OptimizerEntry(
    "ADOPT, warm-up + cosine, lr 1e-3",
    AdoptSettings,
    make_adopt,
    space=_SPACE,
    learning_rates=AdoptSettings.learning_rates,
    takes=(),
    sets_targets=False,
)
