"""The paper's five hand-made baselines: Adam, NAdam, NAdamW, heavy ball and Nesterov momentum.

Boundary: settings and optax transformations; optax's own if its formula matches.

Defaults: Rezk et al., "Is Scaling Learned Optimizers Worth It? Evaluating the Value of VeLO's
4000 TPU Months", 2023, Table 8, https://arxiv.org/abs/2310.18191: one set for all workloads.

Search spaces of NAdamW, AdamW (``adam`` with weight decay), heavy ball and Nesterov momentum are
those of AlgoPerf's baselines: Dahl et al., "Benchmarking Neural Network Training Algorithms", 2023,
https://arxiv.org/abs/2306.07179, and the ``tuning_search_space.json`` beside them in
https://github.com/mlcommons/algorithmic-efficiency. NAdam's is our own.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.ranges import check
from timetrial.framework.spaces import OneOf, Range, Space
from timetrial.optimizers.schedules import warmup_linear
from timetrial.optimizers.settings import (
    ADAMW_SPACE,
    NADAMW_SPACE,
    REGULARISATION,
    MomentSettings,
)


@dataclasses.dataclass(frozen=True)
class AdamSettings(MomentSettings):
    """Settings of Adam and NAdam; Adam with weight decay is AdamW. See MomentSettings."""

    learning_rate: float = 5e-3


@dataclasses.dataclass(frozen=True)
class NadamSettings(AdamSettings):
    """Settings of NAdam; see AdamSettings."""

    learning_rate: float = 1e-2


@dataclasses.dataclass(frozen=True)
class NadamwSettings(AdamSettings):
    """Settings of NAdamW; see AdamSettings."""

    learning_rate: float = 1e-2
    weight_decay: float = 4e-3


@dataclasses.dataclass(frozen=True)
class MomentumSettings:
    """Settings of heavy ball and Nesterov momentum.

    The last three apply to the linear schedule only; see ``warmup_linear``.

    Attributes:
        learning_rate: constant, or the peak of the schedule, >= 0.
        momentum: decay of the velocity, in [0, 1).
        weight_decay: coupled, added to the gradient before the momentum, on all parameters, >= 0.
        schedule: ``constant`` or ``linear``.
        warmup_fraction: share of the schedule spent warming up, in [0, 1).
        decay_fraction: share of the updates after the warm-up spent decaying, in (0, 1].
        end_factor: final learning rate as a factor of the peak, in [0, 1].
    """

    learning_rate: float = 5e-2
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup_fraction: float = 0.05
    decay_fraction: float = 0.9
    end_factor: float = 0.01

    def __post_init__(self) -> None:
        check(self, learning_rate=">= 0", momentum="[0, 1)", weight_decay=">= 0")
        check(self, warmup_fraction="[0, 1)", decay_fraction="(0, 1]", end_factor="[0, 1]")
        if self.schedule not in ("constant", "linear"):
            raise ValueError(f"schedule: expected constant or linear, got {self.schedule!r}")

    def learning_rates(self, horizon: Horizon) -> float | optax.Schedule:
        """The learning rate: a constant, or a schedule by number of updates made."""
        if self.schedule == "constant":
            return self.learning_rate
        return warmup_linear(
            self.learning_rate,
            horizon,
            warmup_fraction=self.warmup_fraction,
            decay_fraction=self.decay_fraction,
            end_factor=self.end_factor,
        )


# NAdam has no weight decay in the paper's races; its learning rate has a wider range instead.
_NADAM_SPACE: Space = {
    "learning_rate": Range(1e-4, 1e-1),
    "one_minus_b1": Range(0.004, 0.5),
    "one_minus_b2": Range(1e-4, 1e-1),
}

_MOMENTUM_SPACE: Space = {
    "learning_rate": Range(0.02, 5.0),
    "one_minus_momentum": Range(0.005, 0.3),
    "schedule": OneOf(("linear",)),
    "warmup_fraction": OneOf((0.05,)),
    "weight_decay": Range(1e-7, 5e-5),
    "decay_fraction": OneOf((0.9,)),
    "end_factor": OneOf((1e-3, 1e-2)),
    **REGULARISATION,
}


def make_adam(settings: AdamSettings, horizon: Horizon) -> optax.GradientTransformation:
    """Adam: ``p -= lr * mhat / (sqrt(vhat) + eps)`` with bias-corrected moments.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015,
    https://arxiv.org/abs/1412.6980; with weight decay it is AdamW, see ``make_nadamw``.
    """
    b1, b2, eps = settings.b1, settings.b2, settings.eps
    if settings.weight_decay:
        decay = settings.weight_decay
        return optax.adamw(settings.learning_rates(horizon), b1, b2, eps, weight_decay=decay)
    return optax.adam(settings.learning_rates(horizon), b1, b2, eps)


def make_nadam(settings: NadamSettings, horizon: Horizon) -> optax.GradientTransformation:
    """NAdam as the paper ran it; see ``scale_by_nadam``, and with weight decay ``make_nadamw``."""
    if settings.weight_decay:
        return make_nadamw(settings, horizon)
    return optax.chain(
        scale_by_nadam(settings.b1, settings.b2, settings.eps),
        optax.scale_by_learning_rate(settings.learning_rates(horizon)),
    )


def make_nadamw(settings: AdamSettings, horizon: Horizon) -> optax.GradientTransformation:
    """NAdamW: NAdam with decoupled weight decay, ``p -= lr * (nadam + weight_decay * p)``.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019,
    https://arxiv.org/abs/1711.05101.
    """
    return optax.chain(
        scale_by_nadam(settings.b1, settings.b2, settings.eps),
        optax.add_decayed_weights(settings.weight_decay),
        optax.scale_by_learning_rate(settings.learning_rates(horizon)),
    )


def make_heavy_ball(settings: MomentumSettings, horizon: Horizon) -> optax.GradientTransformation:
    """Heavy ball: ``v = momentum * v + g``, ``p -= lr * v``.

    Source: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964,
    https://doi.org/10.1016/0041-5553(64)90137-5.
    """
    return _momentum(settings, horizon, nesterov=False)


def make_nesterov(settings: MomentumSettings, horizon: Horizon) -> optax.GradientTransformation:
    """Nesterov momentum: ``v = momentum * v + g``, ``p -= lr * (momentum * v + g)``.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep
    learning", 2013, https://proceedings.mlr.press/v28/sutskever13.html.
    """
    return _momentum(settings, horizon, nesterov=True)


def _momentum(
    settings: MomentumSettings, horizon: Horizon, *, nesterov: bool
) -> optax.GradientTransformation:
    """Momentum of either kind; weight decay is part of the gradient, as in L2 regularisation."""
    tx = optax.sgd(settings.learning_rates(horizon), settings.momentum, nesterov=nesterov)
    if settings.weight_decay:
        tx = optax.chain(optax.add_decayed_weights(settings.weight_decay), tx)
    return tx


def scale_by_nadam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """NAdam's direction ``((b1 m + (1 - b1) g) / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)``.

    ``m`` and ``v`` are the moments after this update, ``t`` counts from 1. This is the formula of
    the paper's code; ``optax.nadam`` corrects the bias of ``m`` by ``1 - b1^(t+1)`` instead, and
    its first updates differ by up to a factor of two.

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the root of the second moment.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam", 2016,
    https://openreview.net/pdf?id=OM0jvwB8jIp57ZJjtNEZ; the variant without product of decays,
    AlgoPerf, https://github.com/mlcommons/algorithmic-efficiency.
    """

    def init(params: optax.Params) -> optax.ScaleByAdamState:
        zeros = optax.tree.zeros_like(params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(
        grads: optax.Updates, state: optax.ScaleByAdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        del params
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment(grads, state.nu, b2, 2)
        ahead = optax.tree.bias_correction(optax.tree.update_moment(grads, mu, b1, 1), b1, count)
        scale = optax.tree.bias_correction(nu, b2, count)
        direction = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), ahead, scale)
        return direction, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


ADAM = OptimizerEntry(
    "Adam, warm-up + cosine, lr 5e-3",
    AdamSettings,
    make_adam,
    space=ADAMW_SPACE,
    learning_rates=AdamSettings.learning_rates,
    takes=(),
    color="#1f5eab",
)
NADAM = OptimizerEntry(
    "NAdam, warm-up + cosine, lr 1e-2",
    NadamSettings,
    make_nadam,
    space=_NADAM_SPACE,
    learning_rates=NadamSettings.learning_rates,
    takes=(),
    color="#0096e9",
)
NADAMW = OptimizerEntry(
    "NAdamW, warm-up + cosine, lr 1e-2, weight decay 4e-3",
    NadamwSettings,
    make_nadamw,
    space=NADAMW_SPACE,
    learning_rates=NadamwSettings.learning_rates,
    takes=(),
    color="#1b8e6e",
)
HEAVY_BALL = OptimizerEntry(
    "SGD with heavy-ball momentum 0.9, constant lr 5e-2",
    MomentumSettings,
    make_heavy_ball,
    space=_MOMENTUM_SPACE,
    learning_rates=MomentumSettings.learning_rates,
    takes=(),
    color="#c97f11",
)
NESTEROV = OptimizerEntry(
    "SGD with Nesterov momentum 0.9, constant lr 5e-2",
    MomentumSettings,
    make_nesterov,
    space=_MOMENTUM_SPACE,
    learning_rates=MomentumSettings.learning_rates,
    takes=(),
    color="#685d76",
)
