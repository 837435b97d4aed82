"""The learned schedule of Celo and Celo-Adam: one learning rate for all tensors at each update.

Boundary: a recurrence over scalar losses; knows no parameters.

An LSTM reads the share of the training that is done and VeLO's loss features. It is VeLO's LSTM
without the features of single tensors, so that one step serves all of them.

Moudgil et al., "Celo: Training Versatile Learned Optimizers on a Compute Diet", 2025,
https://arxiv.org/abs/2501.12670.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from timetrial.optimizers.velo.core import progress_features
from timetrial.optimizers.velo.loss_features import LossState, init_loss_state, update_loss_state
from timetrial.optimizers.velo.network import Affine, layer, lstm_step
from timetrial.optimizers.weights.trees import Path

_RATE = 0.1


class Scheduler(NamedTuple):
    """The weights of the schedule, float32; H is the LSTM's width.

    Attributes:
        hidden, cell: (1, H) LSTM state before the first update.
        maximum, own: 18 to H; the former passes a ReLU before both are added.
        lstm: 2 H to 4 H, gates in the order input, candidate, forget, output.
        step_size: H to 1, logarithm of ten times the learning rate.
    """

    hidden: jax.Array
    cell: jax.Array
    maximum: Affine
    own: Affine
    lstm: Affine
    step_size: Affine


class SchedulerState(NamedTuple):
    """State of the schedule, float32 except for the counters.

    Attributes:
        updates: int32 scalar, updates made.
        num_steps: int32 scalar, updates expected in all.
        loss: running means of the loss.
        hidden, cell: (1, H) LSTM state.
    """

    updates: jax.Array
    num_steps: jax.Array
    loss: LossState
    hidden: jax.Array
    cell: jax.Array


def read_scheduler(flat: Mapping[Path, Any]) -> Scheduler:
    """The schedule's part of weights by path."""
    return Scheduler(
        hidden=flat["lstm_init_state", "hidden"],
        cell=flat["lstm_init_state", "cell"],
        maximum=layer(flat, "linear_1"),
        own=layer(flat, "linear_2"),
        lstm=layer(flat, "rnn/linear"),
        step_size=layer(flat, "step_size"),
    )


def init_scheduler(theta: Scheduler, num_steps: int) -> SchedulerState:
    """State before the first loss; ``num_steps`` >= 1."""
    return SchedulerState(
        updates=jnp.zeros((), jnp.int32),
        num_steps=jnp.asarray(num_steps, jnp.int32),
        loss=init_loss_state(num_steps),
        hidden=jnp.asarray(theta.hidden),
        cell=jnp.asarray(theta.cell),
    )


def schedule(
    theta: Scheduler, state: SchedulerState, loss: jax.Array
) -> tuple[jax.Array, SchedulerState]:
    """The learning rate of one update, > 0, and the new state.

    Args:
        theta: the learned weights.
        state: state after the update before.
        loss: float32 scalar.
    """
    fraction = state.updates.astype(jnp.float32) / state.num_steps.astype(jnp.float32)
    loss_state, features = update_loss_state(state.loss, loss)
    inputs = jnp.concatenate([progress_features(fraction), features])[None]
    hidden, cell = lstm_step(theta, inputs, state.hidden, state.cell)
    rate = _RATE * jnp.exp(theta.step_size(hidden)[0, 0])
    return rate, SchedulerState(state.updates + 1, state.num_steps, loss_state, hidden, cell)
