"""AdamW: Adam with decoupled weight decay.

Boundary: settings and optax's transformation.

Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019,
https://arxiv.org/abs/1711.05101; defaults: Adam's of Kingma and Ba, 2015,
https://arxiv.org/abs/1412.6980, and the weight decay of ``torch.optim.AdamW``.
"""

from __future__ import annotations

import dataclasses

import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.optimizers.precision import in_float32
from timetrial.optimizers.settings import ADAMW_SPACE, DecayedMomentSettings, decayed


@dataclasses.dataclass(frozen=True)
class AdamwSettings(DecayedMomentSettings):
    """Settings of AdamW; see DecayedMomentSettings."""

    weight_decay: float = 0.01


def make_adamw(settings: AdamwSettings, horizon: Horizon) -> optax.GradientTransformation:
    """AdamW: ``p -= lr * (mhat / (sqrt(vhat) + eps) + weight_decay * p)``, on all parameters."""
    adam = optax.scale_by_adam(settings.b1, settings.b2, settings.eps)
    return in_float32(decayed(adam, settings, horizon))


ADAMW = OptimizerEntry(
    "AdamW, warm-up + cosine, lr 1e-3, weight decay 0.01",
    AdamwSettings,
    make_adamw,
    space=ADAMW_SPACE,
    learning_rates=AdamwSettings.learning_rates,
    takes=(),
    sets_targets=False,
)
