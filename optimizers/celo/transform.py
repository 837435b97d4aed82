"""Celo and Celo-Adam as optax transformations.

Boundary: arguments, state and results of an update; ``scheduler`` computes the learning rate, and
VeLO's modules Celo's step.

**Celo** has VeLO's averages, inputs and per-parameter network, one network for all tensors, and a
learned schedule (``scheduler``) in place of VeLO's LSTM of every tensor. **Celo-Adam** is Adam with
that schedule as its learning rate.

**Number of steps.** Both read the share of the training that is done, ``t / num_steps`` after t
updates; more updates than ``num_steps`` are allowed.

**Weight decay** is L2 regularisation, as in VeLO: every update adds ``w * p`` to the gradient and
``w * sum(p**2)`` to the loss, for every tensor.

**Not a number.** There is no guard, as in the published code: a NaN loss makes the running means
and all parameters NaN for good, a NaN gradient makes its element NaN, and in Celo its tensor.
Gradients are clipped to [-1000, 1000].

Moudgil et al., "Celo: Training Versatile Learned Optimizers on a Compute Diet", 2025,
https://arxiv.org/abs/2501.12670.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial.optimizers import calls
from timetrial.optimizers.celo.scheduler import (
    Scheduler,
    SchedulerState,
    init_scheduler,
    read_scheduler,
    schedule,
)
from timetrial.optimizers.velo import accumulators, core
from timetrial.optimizers.velo.inputs import second_moments
from timetrial.optimizers.velo.network import bank_of, float32_leaves
from timetrial.optimizers.velo.tiling.tiles import Tiling, make_tiling
from timetrial.optimizers.weights.layouts import CELO, CELO_ADAM

PyTree = Any

_LARGEST_GRADIENT = 1000.0
_ADAM_RATE = 1e-3
_MOMENTUM_DECAY, _RMS_DECAY = np.float32(0.9), np.float32(0.999)


class CeloState(NamedTuple):
    """State of ``celo``; float32 for parameters of any dtype, except for the counters.

    Attributes:
        scheduler: state of the learned schedule.
        groups: averages of the gradients, for each group of tiles.
    """

    scheduler: SchedulerState
    groups: tuple[accumulators.TensorState, ...]


class CeloAdamState(NamedTuple):
    """State of ``celo_adam``; float32 for parameters of any dtype, except for the counters.

    Attributes:
        scheduler: state of the learned schedule.
        momentum: running means of the gradients, shaped like the parameters.
        rms: running means of their squares.
    """

    scheduler: SchedulerState
    momentum: PyTree
    rms: PyTree


def celo(
    num_steps: int, *, meta_params: Mapping[str, Any], weight_decay: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    """The learned optimizer Celo; the module's docstring describes it.

    ``update(grads, state, params, *, value)`` needs the parameters and ``value``, the training loss
    of the gradients. It returns ``new_params - params`` in the dtype of the parameters.

    Args:
        num_steps: expected number of updates, >= 1.
        meta_params: Celo's weights, a nested mapping with the published names and shapes, for any
            LSTM width; see ``optimizers.weights.load_celo``.
        weight_decay: w >= 0.

    Raises:
        ValueError: an argument is out of range.
        WeightsError: ``meta_params`` is not a set of Celo's weights.
    """
    calls.check_numbers("celo", weight_decay, num_steps=num_steps)
    flat = float32_leaves(meta_params, CELO)
    theta, bank = read_scheduler(flat), bank_of(flat)

    def init(params: PyTree) -> CeloState:
        tiling = _tiling(calls.float_leaves("celo", params, "params"))
        averages = tuple(accumulators.init_state(group) for group in tiling.groups)
        return CeloState(init_scheduler(theta, num_steps), averages)

    def update(
        grads: PyTree, state: CeloState, params: PyTree = None, *, value: Any = None, **extra: Any
    ) -> tuple[PyTree, CeloState]:
        del extra
        call = calls.read_call("celo", grads, params, value, weight_decay)
        rate, scheduled = schedule(theta, state.scheduler, call.loss)
        changes, groups = _celo_changes(bank, state.groups, call, rate)
        updates = [calls.rounded(x, change) for x, change in zip(call.params, changes, strict=True)]
        made = jax.tree.unflatten(jax.tree.structure(params), updates)
        return made, CeloState(scheduled, groups)

    return optax.GradientTransformationExtraArgs(init, update)


def _celo_changes(
    bank: jax.Array,
    averages: tuple[accumulators.TensorState, ...],
    call: calls.Call,
    rate: jax.Array,
) -> tuple[list[jax.Array], tuple[accumulators.TensorState, ...]]:
    """Float32 changes of all leaves, and the new averages."""
    tiling = _tiling(call.params)
    steps = [jnp.zeros(p.shape, jnp.float32) for p in call.params]
    n = len(tiling.leaves)
    if n == 0:
        return steps, averages
    # A True that XLA cannot constant-fold, also for NaN.
    live = jnp.logical_not(rate < -jnp.inf)
    packed = core.pack_all(tiling, averages, call.grads, call.params)
    pairs = zip(tiling.groups, packed, strict=True)
    moments = [second_moments(group, one)[0] for group, one in pairs]
    square = core.by_leaf(tiling, [one.means.params for one in packed])
    weights = jnp.broadcast_to(bank, (n, bank.shape[1]))
    found = core.changes(tiling, packed, moments, weights, rate * jnp.sqrt(square + 1e-9), live)
    for leaf, step in zip(tiling.leaves, found, strict=True):
        steps[leaf] = step
    return steps, tuple(one.averages for one in packed)


def _tiling(leaves: Sequence[jax.Array]) -> Tiling:
    return make_tiling(tuple(leaf.shape for leaf in leaves))


def celo_adam(
    num_steps: int, *, meta_params: Mapping[str, Any], weight_decay: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    """The learned optimizer Celo-Adam: Adam with a learned learning rate; see the module.

    ``update(grads, state, params, *, value)`` is that of ``celo``.

    Args:
        num_steps: expected number of updates, >= 1.
        meta_params: Celo-Adam's weights, a nested mapping with the published names and shapes, for
            any LSTM width; see ``optimizers.weights.load_celo_adam``.
        weight_decay: w >= 0.

    Raises:
        ValueError: an argument is out of range.
        WeightsError: ``meta_params`` is not a set of Celo-Adam's weights.
    """
    calls.check_numbers("celo_adam", weight_decay, num_steps=num_steps)
    theta: Scheduler = read_scheduler(float32_leaves(meta_params, CELO_ADAM))

    def init(params: PyTree) -> CeloAdamState:
        calls.float_leaves("celo_adam", params, "params")
        # Two trees: a buffer that occurs twice in a state cannot be donated.
        m, v = (
            jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), jnp.float32), params) for _ in range(2)
        )
        return CeloAdamState(init_scheduler(theta, num_steps), m, v)

    def update(
        grads: PyTree,
        state: CeloAdamState,
        params: PyTree = None,
        *,
        value: Any = None,
        **extra: Any,
    ) -> tuple[PyTree, CeloAdamState]:
        del extra
        call = calls.read_call("celo_adam", grads, params, value, weight_decay)
        rate, scheduled = schedule(theta, state.scheduler, call.loss)
        leaves = _adam_changes(state, call, rate, scheduled.updates)
        treedef = jax.tree.structure(params)
        updates, m, v = (jax.tree.unflatten(treedef, some) for some in leaves)
        return updates, CeloAdamState(scheduled, m, v)

    return optax.GradientTransformationExtraArgs(init, update)


def _adam_changes(
    state: CeloAdamState, call: calls.Call, rate: jax.Array, updates: jax.Array
) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
    """Changes of all leaves in their own dtypes, and the new averages.

    Args:
        state: before the update.
        call: arguments of the update.
        rate: the schedule's.
        updates: number of updates, this one included.
    """
    grads = [
        jnp.clip(g.astype(jnp.float32), -_LARGEST_GRADIENT, _LARGEST_GRADIENT) for g in call.grads
    ]
    m = _averages(state.momentum, grads, _MOMENTUM_DECAY)
    v = _averages(state.rms, [g * g for g in grads], _RMS_DECAY)
    size, count = rate * _ADAM_RATE, updates.astype(jnp.float32)
    steps = [_adam_step(size, count, *both) for both in zip(m, v, strict=True)]
    changes = [calls.rounded(x, -step) for x, step in zip(call.params, steps, strict=True)]
    return changes, m, v


def _averages(old: PyTree, new: Sequence[jax.Array], decay: np.float32) -> list[jax.Array]:
    return [
        decay * average + (1 - decay) * x
        for average, x in zip(jax.tree.leaves(old), new, strict=True)
    ]


def _adam_step(size: jax.Array, count: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
    """Adam's step with its averages corrected for their start at zero after ``count`` updates."""
    m = m / (1 - _MOMENTUM_DECAY**count)
    v = v / (1 - _RMS_DECAY**count)
    return m * (size / (1e-8 + jnp.sqrt(v + 1e-10)))
