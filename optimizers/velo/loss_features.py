"""The nine loss features of VeLO: running means of the loss compared with their minima.

Boundary: a pure recurrence over scalar losses; knows no parameters and no network.

Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up", 2022,
https://arxiv.org/abs/2211.09760.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

MEANS = 10
"""Number of running means; there is one feature for each neighbouring pair."""


class LossState(NamedTuple):
    """Running means of the loss, all float32.

    Attributes:
        means: (10,) exponential moving averages, not yet corrected for their start at zero.
        minima: (10,) smallest corrected mean so far.
        decays: (10,) decay of each mean; nothing else depends on the number of steps.
        seen: int32 scalar, number of losses so far.
    """

    means: jax.Array
    minima: jax.Array
    decays: jax.Array
    seen: jax.Array


def init_loss_state(num_steps: int | jax.Array) -> LossState:
    """The state before the first loss.

    Args:
        num_steps: N, expected number of updates, >= 1; may be traced. The time constants of the
            ten means are spaced evenly in the logarithm from 10 to N updates.
    """
    log_length = jnp.linspace(1.0, jnp.log10(jnp.float32(num_steps)), MEANS, dtype=jnp.float32)
    return LossState(
        means=jnp.zeros(MEANS, jnp.float32),
        minima=jnp.full(MEANS, 999999999999.0, jnp.float32),
        decays=jnp.exp(-1.0 / 10.0**log_length),
        seen=jnp.zeros((), jnp.int32),
    )


def update_loss_state(state: LossState, loss: jax.Array) -> tuple[LossState, jax.Array]:
    """Updates the means with one loss.

    The loss is first cut at twice the largest running mean, which bounds the effect of an outlier.
    A NaN loss makes every later feature NaN.

    Args:
        state: state after the loss before.
        loss: float32 scalar.

    Returns:
        The new state and the (9,) features in [-1, 1]; they are 0 for the first two losses.
    """
    count = state.seen + 1
    correction = 1.0 - state.decays ** count.astype(jnp.float32)
    largest = jnp.where(state.seen == 0, loss, jnp.max(state.means / correction))
    loss = jnp.minimum(2.0 * jnp.abs(largest), loss)
    means = state.decays * state.means + (1.0 - state.decays) * loss
    corrected = means / correction
    minima = jnp.minimum(state.minima, corrected)
    fast, slow, floor = corrected[:-1], corrected[1:], minima[:-1]
    features = (fast - floor) / jnp.maximum(1e-8, slow - floor) - 1.0
    features = jnp.clip(features, -1.0, 1.0)
    features = jnp.where(count <= 2, features * 0.0, features)
    return LossState(means, minima, state.decays, count), features
