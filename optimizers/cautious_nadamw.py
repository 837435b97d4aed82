"""Cautious NAdamW: NAdamW without the elements that point against the gradient.

Boundary: settings and an optax transformation.

Source: Liang et al., "Cautious Optimizers: Improving Training with One Line of Code", 2024,
https://arxiv.org/abs/2411.16085; defaults: AlgoPerf's submission ``self_tuning/cautious_nadamw`` in
https://github.com/mlcommons/submissions_algorithms.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import jax
import jax.numpy as jnp
import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.optimizers.baselines import scale_by_nadam
from timetrial.optimizers.precision import in_float32
from timetrial.optimizers.settings import NADAMW_SPACE, DecayedMomentSettings, decayed

LEAST_SHARE: Final = 1e-3
"""Smallest share of kept elements that the others are scaled up by."""


def cautious(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The updates of ``inner`` where they agree in sign with the gradient, 0 elsewhere.

    What is kept of a tensor is divided by the kept share of its elements, at least
    ``LEAST_SHARE``. ``inner`` gives directions of ascent, as ``optax.scale_by_adam`` does.
    """

    def update(
        grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        updates, state = inner.update(grads, state, params)
        return jax.tree.map(_agreeing, updates, grads), state

    return optax.GradientTransformation(inner.init, update)


def _agreeing(update: jax.Array, grad: jax.Array) -> jax.Array:
    kept = (jnp.sign(update) * jnp.sign(grad) > 0).astype(update.dtype)  # products may underflow
    return update * kept / jnp.maximum(jnp.mean(kept), LEAST_SHARE)


@dataclasses.dataclass(frozen=True)
class CautiousSettings(DecayedMomentSettings):
    """Settings of Cautious NAdamW; see DecayedMomentSettings."""

    learning_rate: float = 0.0017486387539278373
    warmup_fraction: float = 0.02
    end_factor: float = 0.0
    weight_decay: float = 0.08121616522670176
    b1: float = 1 - 0.06733926164
    b2: float = 0.9955159689799007


def make_cautious_nadamw(
    settings: CautiousSettings, horizon: Horizon
) -> optax.GradientTransformation:
    """Cautious NAdam with decoupled weight decay; see ``cautious`` and ``scale_by_nadam``."""
    direction = cautious(scale_by_nadam(settings.b1, settings.b2, settings.eps))
    return in_float32(decayed(direction, settings, horizon))


CAUTIOUS_NADAMW = OptimizerEntry(
    "Cautious NAdamW, warm-up + cosine, lr 1.7e-3, weight decay 0.081",
    CautiousSettings,
    make_cautious_nadamw,
    space=NADAMW_SPACE,
    learning_rates=CautiousSettings.learning_rates,
    takes=(),
    sets_targets=False,
)
