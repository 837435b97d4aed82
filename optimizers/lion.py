"""Lion: the sign of an interpolation between gradient and momentum.

Boundary: settings and optax's transformation.

Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023,
https://arxiv.org/abs/2302.06675; defaults: its repository,
https://github.com/google/automl/tree/master/lion.
"""

from __future__ import annotations

import dataclasses

import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.ranges import check
from timetrial.framework.spaces import OneOf, Range, Space
from timetrial.optimizers.precision import in_float32
from timetrial.optimizers.settings import REGULARISATION, DecayedSettings, decayed


@dataclasses.dataclass(frozen=True)
class LionSettings(DecayedSettings):
    """Settings of Lion; see DecayedSettings for the others.

    Attributes:
        b1: weight of the momentum in the sign, in [0, 1).
        b2: decay of the momentum, in [0, 1).
    """

    learning_rate: float = 1e-4
    b1: float = 0.9
    b2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, b1="[0, 1)", b2="[0, 1)")


def make_lion(settings: LionSettings, horizon: Horizon) -> optax.GradientTransformation:
    """Lion: ``p -= lr * (sign(b1 m + (1 - b1) g) + weight_decay * p)``."""
    return in_float32(decayed(optax.scale_by_lion(settings.b1, settings.b2), settings, horizon))


# Section 5 of the paper: a learning rate 3 to 10 times smaller than AdamW's, a weight decay 3 to 10
# times larger. The ranges are AlgoPerf's of AdamW, divided and multiplied by 10.
_SPACE: Space = {
    "learning_rate": Range(1e-5, 1e-3),
    "one_minus_b1": Range(0.02, 0.5),
    "b2": OneOf((0.98, 0.99)),
    "warmup_fraction": OneOf((0.05,)),
    "weight_decay": Range(0.05, 10.0),
    **REGULARISATION,
}

LION = OptimizerEntry(
    "Lion, warm-up + cosine, lr 1e-4",
    LionSettings,
    make_lion,
    space=_SPACE,
    learning_rates=LionSettings.learning_rates,
    takes=(),
    sets_targets=False,
)
