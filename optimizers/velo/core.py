"""One VeLO update, given the loss features: averages, LSTM, per-parameter network.

Boundary: a pure function of arrays; ``transform`` gives loss features and training fraction, and
does weight decay and gradient accumulation.

Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up", 2022,
https://arxiv.org/abs/2211.09760.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.velo import accumulators, mlp
from timetrial.optimizers.velo.accumulators import tensor_means
from timetrial.optimizers.velo.inputs import Packed, make_factors, second_moments
from timetrial.optimizers.velo.network import MetaParameters, lstm_step, mlp_weights
from timetrial.optimizers.velo.tiling.segments import rows_of
from timetrial.optimizers.velo.tiling.tiles import Tiling

_TRAINING_FRACTIONS = np.array([0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1], np.float32)
_LARGEST_GRADIENT = 1000.0
_KINDS = 5


class NetworkState(NamedTuple):
    """State of the tensors, all float32.

    Attributes:
        hidden, cell: (n, H) LSTM state, one row for each tensor, in order of leaves.
        statistics: means and variances of the averages of each tensor, in order of leaves, for the
            LSTM at the next update. Taken when the averages are new, so that these can be updated
            in place.
        groups: averages of each group of the tiling.
    """

    hidden: jax.Array
    cell: jax.Array
    statistics: accumulators.Statistics
    groups: tuple[accumulators.TensorState, ...]


class Trace(NamedTuple):
    """Intermediate values of one update, for inspection; n tensors in order of leaves.

    Attributes:
        lstm_inputs: (n, 30).
        controls: (n, K).
        step_size: (n,) raw multiplier of each tensor's step.
        second_moments: (n, 30) of the inputs of the per-parameter network.
    """

    lstm_inputs: jax.Array
    controls: jax.Array
    step_size: jax.Array
    second_moments: jax.Array


def init_state(theta: MetaParameters, tiling: Tiling) -> NetworkState:
    """State before the first update."""
    n = len(tiling.leaves)
    # Not one array twice: a buffer that occurs twice in a state cannot be donated.
    mean, variance = (jnp.zeros((n, 4), jnp.float32) for _ in range(2))
    return NetworkState(
        hidden=jnp.tile(jnp.asarray(theta.hidden), (n, 1)),
        cell=jnp.tile(jnp.asarray(theta.cell), (n, 1)),
        statistics=accumulators.Statistics(mean, variance),
        groups=tuple(accumulators.init_state(group) for group in tiling.groups),
    )


def learned_update(
    theta: MetaParameters,
    tiling: Tiling,
    state: NetworkState,
    grads: Sequence[jax.Array],
    params: Sequence[jax.Array],
    loss_features: jax.Array,
    fraction: jax.Array,
) -> tuple[list[jax.Array], NetworkState, Trace]:
    """One update of all tensors, of which there is at least one.

    Args:
        theta: the learned weights.
        tiling: storage of the tensors.
        state: state after the update before.
        grads: all leaves.
        params: all leaves.
        loss_features: (9,).
        fraction: float32 scalar, share of the training that is done; it may be above 1.

    Returns:
        The float32 changes of the tensors, in order of ``tiling.leaves``, the new state and the
        intermediate values.
    """
    # A True that XLA cannot constant-fold, also for NaN.
    live = jnp.logical_not(fraction < -jnp.inf)
    packed = pack_all(tiling, state.groups, grads, params)
    pairs = list(zip(tiling.groups, packed, strict=True))
    found = [second_moments(group, one) for group, one in pairs]
    moments = [each for each, _ in found]
    square = by_leaf(tiling, [one.means.params for one in packed])

    lstm_inputs = _lstm_inputs(square, state.statistics, tiling.kinds, loss_features, fraction)
    hidden, cell = lstm_step(theta, lstm_inputs, state.hidden, state.cell)
    controls = theta.controls(hidden)
    step_size = theta.step_size(hidden)[:, 0]
    weights = mlp_weights(theta, controls)
    multiplier = step_size * jnp.sqrt(square + 1e-9)
    updates = changes(tiling, packed, moments, weights, multiplier, live)

    statistics = jax.tree.map(lambda *parts: by_leaf(tiling, parts), *[s for _, s in found])
    trace = Trace(lstm_inputs, controls, step_size, by_leaf(tiling, moments))
    averages = tuple(one.averages for one in packed)
    return updates, NetworkState(hidden, cell, statistics, averages), trace


def pack_all(
    tiling: Tiling,
    averages: Sequence[accumulators.TensorState],
    grads: Sequence[jax.Array],
    params: Sequence[jax.Array],
) -> list[Packed]:
    """Gradients, parameters and updated averages of every group.

    Args:
        tiling: storage of the tensors.
        averages: of every group, before the update.
        grads: all leaves; clipped here.
        params: all leaves.
    """
    groups = tiling.groups
    packed_params = [group.pack(params) for group in groups]
    packed_grads = [group.pack(grads, _clip) for group in groups]
    updated = [
        accumulators.accumulate(*one)
        for one in zip(groups, averages, packed_grads, packed_params, strict=True)
    ]
    return [
        Packed(grads, params, new, sums, tensor_means(group, sums), make_factors(group, new))
        for group, grads, params, (new, sums) in zip(
            groups, packed_grads, packed_params, updated, strict=True
        )
    ]


def _clip(x: jax.Array) -> jax.Array:
    return jnp.clip(x.astype(jnp.float32), -_LARGEST_GRADIENT, _LARGEST_GRADIENT)


def changes(
    tiling: Tiling,
    packed: Sequence[Packed],
    moments: Sequence[jax.Array],
    weights: jax.Array,
    multiplier: jax.Array,
    live: jax.Array,
) -> list[jax.Array]:
    """Changes of all tensors, in order of groups.

    Args:
        tiling: storage of the tensors.
        packed: every group.
        moments: second moments of the inputs, for every group.
        weights: (n, 159) of the MLP of each tensor, in order of leaves; see ``MetaParameters``.
        multiplier: (n,) multiplier of each tensor's step, in order of leaves.
        live: see ``at_once``.
    """
    numbers = rows_of(mlp.numbers(weights, multiplier), tiling.rank)
    ends = np.cumsum([len(group.views) for group in tiling.groups])[:-1]
    by_group = jnp.split(numbers, ends)
    updates = []
    for group, one, of_inputs, own in zip(tiling.groups, packed, moments, by_group, strict=True):
        updates += group.unpack(mlp.changes(group, one, of_inputs, own, live))
    return updates


def by_leaf(tiling: Tiling, parts: Sequence[jax.Array]) -> jax.Array:
    """Rows of the groups, one for each tensor, in order of leaves."""
    return rows_of(jnp.concatenate(parts), tiling.position)


def _lstm_inputs(
    square: jax.Array,
    statistics: accumulators.Statistics,
    kinds: np.ndarray,
    loss_features: jax.Array,
    fraction: jax.Array,
) -> jax.Array:
    """The (n, 30) inputs of the LSTM, from the parameters and averages before the update."""
    n = len(kinds)
    scale = jax.lax.rsqrt(jnp.maximum(1e-9, square))[:, None]
    momentum, rms = scale * statistics.mean[:, :3], scale * statistics.mean[:, 3:]
    momentum_variance = scale**2 * statistics.variance[:, :3]
    # About the mean of the *momentum*, as when the weights were trained.
    rms_variance = scale**2 * statistics.variance[:, 3:] + (rms - momentum) ** 2
    return jnp.concatenate(
        [
            jnp.tile(progress_features(fraction), (n, 1)),
            jnp.tile(loss_features, (n, 1)),
            _log(rms),
            jnp.asarray(kinds[:, None] == np.arange(_KINDS), jnp.float32),
            _log(momentum_variance),
            _log(rms_variance),
        ],
        axis=1,
    )


def progress_features(fraction: jax.Array) -> jax.Array:
    """Nine features of the share of the training that is done, (9,)."""
    return jnp.tanh(10.0 * (fraction - _TRAINING_FRACTIONS))


def _log(x: jax.Array) -> jax.Array:
    return 0.5 * jnp.clip(jnp.log(1e-8 + jnp.abs(10.0 * x)), -5.0, 5.0)


def tensor_averages(tiling: Tiling, state: NetworkState, leaves: int) -> list[dict[str, jax.Array]]:
    """The averages by tensor; see ``transform.tensor_averages``."""
    found: list[dict[str, jax.Array]] = [{} for _ in range(leaves)]
    for group, packed in zip(tiling.groups, state.groups, strict=True):
        for v, averages in zip(group.views, accumulators.unpack(group, packed), strict=True):
            found[v.leaf] = averages
    return found
