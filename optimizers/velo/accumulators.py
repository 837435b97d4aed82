"""Running averages of the gradient, and the statistics of a tensor that the LSTM reads.

Boundary: arithmetic on one group of tiles; knows no network. Nothing is corrected for its start
at zero.

Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up", 2022,
https://arxiv.org/abs/2211.09760; the row and column means are those of Shazeer and Stern,
"Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
https://arxiv.org/abs/1804.04235.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optimizers.velo.segments import Indices
from optimizers.velo.tiles import Blocks, Group

DECAYS = np.array([0.9, 0.99, 0.999], np.float32)
"""Decays of the three momenta and of the three factored second moments."""

RMS_DECAY = np.float32(0.999)
_TINY = 1e-30


class FactoredState(NamedTuple):
    """Averages of a group of tensors of rank >= 2, float32; padding has no meaning.

    Attributes:
        momentum: (3, tiles, rows, columns) of the gradient, one for each decay.
        rms: (tiles, rows, columns) of the squared gradient.
        rows: (3, row blocks, rows) of the squared gradient, mean over the column axis.
        columns: (3, column blocks, columns) the same, mean over the row axis.
    """

    momentum: jax.Array
    rms: jax.Array
    rows: jax.Array
    columns: jax.Array


class VectorState(NamedTuple):
    """Averages of a group of vectors and scalars, float32.

    Attributes:
        momentum: (3, tiles, 1, columns).
        rms: (tiles, 1, columns).
        diagonal: (3, tiles, 1, columns) of the squared gradient, not averaged over any axis.
    """

    momentum: jax.Array
    rms: jax.Array
    diagonal: jax.Array


TensorState = FactoredState | VectorState


class Statistics(NamedTuple):
    """Of the averages of each of n tensors: over all its elements.

    Attributes:
        mean: (n, 4) of the three momenta and of the averaged squared gradient.
        variance: (n, 4) of the same.
    """

    mean: jax.Array
    variance: jax.Array


def init_state(group: Group) -> TensorState:
    """All averages at zero."""
    packed = (group.tiles, *group.tile)
    momentum, rms = jnp.zeros((3, *packed), jnp.float32), jnp.zeros(packed, jnp.float32)
    if not group.factored:
        return VectorState(momentum, rms, jnp.zeros((3, *packed), jnp.float32))
    rows = jnp.zeros((3, *group.by_row.mask.shape), jnp.float32)
    columns = jnp.zeros((3, *group.by_column.mask.shape), jnp.float32)
    return FactoredState(momentum, rms, rows, columns)


def sizes(group: Group) -> Indices:
    """(n,) number of elements of each tensor."""
    return np.array([v.batches * v.rows * v.columns for v in group.views], np.int32)


def inside(group: Group) -> jax.Array:
    """(tiles, rows, columns) True where a tile holds an element of its tensor."""
    rows = np.arange(group.tile[0]) < group.rows[:, None]
    columns = np.arange(group.tile[1]) < group.columns[:, None]
    return jnp.asarray(rows)[:, :, None] & jnp.asarray(columns)[:, None, :]


def statistics(group: Group, state: TensorState) -> Statistics:
    """Means and variances of the averages of a group.

    Variances are sums of squares about the mean of each tile, and of the tile means about the
    mean of the tensor: nothing cancels, however far from zero the mean is.
    """
    count = (group.rows * group.columns).astype(np.float32)
    size = sizes(group).astype(np.float32)
    mask = inside(group)
    averages = [*state.momentum, state.rms]
    totals = [x.sum((1, 2)) for x in averages]
    spreads = [
        jnp.where(mask, (x - (total / count)[:, None, None]) ** 2, 0.0).sum((1, 2))
        for x, total in zip(averages, totals, strict=True)
    ]
    total, within = jnp.stack(totals, 1), jnp.stack(spreads, 1)
    mean = group.sum_tensor(total) / size[:, None]
    offset = total / count[:, None] - jnp.take(mean, group.tensor, axis=0)
    scatter = group.sum_tensor(within + count[:, None] * offset * offset)
    return Statistics(mean, scatter / size[:, None])


def mean_square(group: Group, packed: jax.Array) -> jax.Array:
    """(n,) mean over each tensor of its squared elements; padding is zero."""
    return group.sum_tensor((packed * packed).sum((1, 2))) / sizes(group).astype(np.float32)


def accumulate(group: Group, state: TensorState, grads: jax.Array) -> TensorState:
    """Takes in a gradient, (tiles, rows, columns), already clipped."""
    squares = grads * grads
    momentum = _average(state.momentum, grads[None])
    rms = RMS_DECAY * state.rms + (1 - RMS_DECAY) * squares
    if isinstance(state, VectorState):
        return VectorState(momentum, rms, _average(state.diagonal, (squares + _TINY)[None]))
    rows = _block_mean(group, group.by_row, squares.sum(2), axis=1)
    columns = _block_mean(group, group.by_column, squares.sum(1), axis=0)
    return FactoredState(
        momentum,
        rms,
        _average(state.rows, rows[None]),
        _average(state.columns, columns[None]),
    )


def _average(old: jax.Array, new: jax.Array) -> jax.Array:
    decay = DECAYS.reshape(-1, *[1] * (old.ndim - 1))
    return decay * old + (1 - decay) * new


def _block_mean(group: Group, blocks: Blocks, partial: jax.Array, axis: int) -> jax.Array:
    """Sums over the tiles beside each block, over the length of the averaged axis."""
    length = np.array([(v.rows, v.columns)[axis] for v in group.views], np.float32)
    return blocks.sum_tiles(partial) / length[blocks.tensor][:, None] + _TINY


def unpack(group: Group, state: TensorState) -> list[dict[str, jax.Array]]:
    """The averages of each tensor in its own shape, the decay axis last."""
    named = {"momentum": state.momentum, "rms": state.rms[None]}
    if isinstance(state, VectorState):
        named["diagonal"] = state.diagonal
    found: list[dict[str, jax.Array]] = [{} for _ in group.views]
    for name, packed in named.items():
        for one, x in zip(found, zip(*map(group.unpack, packed), strict=True), strict=True):
            one[name] = jnp.stack(x, axis=-1)
    if isinstance(state, FactoredState):
        by_row = _unpack_blocks(group, group.by_row, state.rows, rows=True)
        by_column = _unpack_blocks(group, group.by_column, state.columns, rows=False)
        for v, one, x, y in zip(group.views, found, by_row, by_column, strict=True):
            one["row"], one["column"] = (y, x) if v.swapped else (x, y)
    return found


def _unpack_blocks(
    group: Group, blocks: Blocks, packed: jax.Array, *, rows: bool
) -> list[jax.Array]:
    out = []
    for i, v in enumerate(group.views):
        length = v.rows if rows else v.columns
        x = packed[:, np.flatnonzero(blocks.tensor == i)].reshape(3, v.batches, -1)[:, :, :length]
        axes = (*v.order[:-2], v.order[-2] if rows else v.order[-1])
        x = x.reshape(3, *[v.shape[axis] for axis in axes])
        out.append(jnp.moveaxis(x.transpose(0, *(1 + np.argsort(axes))), 0, -1))
    return out
