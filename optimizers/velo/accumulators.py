"""Running averages of the gradient, and the sums over tiles taken in the same pass.

Boundary: arithmetic on one group of tiles; knows no network. The averages start at zero and are
not corrected for it.

Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up", 2022,
https://arxiv.org/abs/2211.09760; the row and column means are those of Shazeer and Stern,
"Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
https://arxiv.org/abs/1804.04235.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.velo.tiling.chunks import over_tiles
from timetrial.optimizers.velo.tiling.lines import inside, unpack_lines
from timetrial.optimizers.velo.tiling.segments import rows_of
from timetrial.optimizers.velo.tiling.tiles import Blocks, Group

DECAYS = np.array([0.9, 0.99, 0.999], np.float32)
"""Decays of the three momenta and of the three factored second moments."""

RMS_DECAY = np.float32(0.999)
_TINY = 1e-30


class FactoredState(NamedTuple):
    """Averages of a group of tensors of rank >= 2, float32; values in the padding are arbitrary.

    Attributes:
        momentum: (tiles, 3, rows, columns) of the gradient, one for each decay.
        rms: (tiles, rows, columns) of the squared gradient.
        rows: (row blocks, 3, rows) of the squared gradient's mean over the column axis.
        columns: (column blocks, 3, columns) of its mean over the row axis.
    """

    momentum: jax.Array
    rms: jax.Array
    rows: jax.Array
    columns: jax.Array


class VectorState(NamedTuple):
    """Averages of a group of vectors and scalars, float32.

    Attributes:
        momentum: (tiles, 3, 1, columns).
        rms: (tiles, 1, columns).
        diagonal: (tiles, 3, 1, columns) of the squared gradient, not averaged over any axis.
    """

    momentum: jax.Array
    rms: jax.Array
    diagonal: jax.Array


TensorState = FactoredState | VectorState


class Statistics(NamedTuple):
    """Mean and variance of each average over all elements of a tensor, for n tensors.

    Attributes:
        mean: (n, 4) of the three momenta and of the averaged squared gradient.
        variance: (n, 4) of the same.
    """

    mean: jax.Array
    variance: jax.Array


class TileSums(NamedTuple):
    """Sums over the elements of each tile.

    Attributes:
        params: (tiles,) of the squared parameters.
        averages: (tiles, 4) of the new averages.
        spread: (tiles, 4) of the squared differences of the averages from their means in the tile.
        inputs: (tiles, 11) of the squared network inputs 0, 1, 3 to 10 and 14, which need no row
            or column statistic.
        rows: (tiles, rows) of the squared gradients.
        columns: (tiles, columns) of the squared gradients.
    """

    params: jax.Array
    averages: jax.Array
    spread: jax.Array
    inputs: jax.Array
    rows: jax.Array
    columns: jax.Array


class TensorMeans(NamedTuple):
    """Means over all elements of each tensor, for n tensors; columns as in ``TileSums``.

    Attributes:
        params: (n,) of the squared parameters.
        averages: (n, 4) of the new averages.
        inputs: (n, 11) of the squared network inputs.
    """

    params: jax.Array
    averages: jax.Array
    inputs: jax.Array


def init_state(group: Group) -> TensorState:
    """All averages at zero."""
    momentum = jnp.zeros((group.tiles, 3, *group.tile), jnp.float32)
    rms = jnp.zeros((group.tiles, *group.tile), jnp.float32)
    if not group.factored:
        return VectorState(momentum, rms, jnp.zeros_like(momentum))
    by_row, by_column = (blocks.mask.shape for blocks in (group.by_row, group.by_column))
    rows = jnp.zeros((by_row[0], 3, by_row[1]), jnp.float32)
    columns = jnp.zeros((by_column[0], 3, by_column[1]), jnp.float32)
    return FactoredState(momentum, rms, rows, columns)


def accumulate(
    group: Group, state: TensorState, grads: jax.Array, params: jax.Array
) -> tuple[TensorState, TileSums]:
    """Updates the averages with a gradient.

    Args:
        group: the tensors.
        state: averages before.
        grads: (tiles, rows, columns), clipped.
        params: (tiles, rows, columns).
    """
    inputs = (grads, params, jnp.asarray(group.rows), jnp.asarray(group.columns))
    if group.pallas or jax.default_backend() != "cpu":
        (momentum, rms), sums = over_tiles(
            _accumulate_tiles,
            (state.momentum, state.rms),
            inputs,
            chunk=group.chunk,
            kernel=_accumulate_kernel if group.pallas else None,
        )
    else:  # apart, because XLA would copy the averages before each chunk
        momentum, rms = _averages((state.momentum, state.rms), grads)
        _, sums = over_tiles(_sums, (), (momentum, rms, *inputs), chunk=group.chunk)
    if isinstance(state, VectorState):
        squares = (grads * grads + _TINY)[:, None]
        diagonal = _average(state.diagonal, squares, axis=1)
        return VectorState(momentum, rms, diagonal), sums
    lengths = np.array([(v.rows, v.columns) for v in group.views], np.float32)
    rows = _block_mean(group.by_row, sums.rows, lengths[:, 1])
    columns = _block_mean(group.by_column, sums.columns, lengths[:, 0])
    rows = _average(state.rows, rows[:, None], axis=1)
    columns = _average(state.columns, columns[:, None], axis=1)
    return FactoredState(momentum, rms, rows, columns), sums


def _averages(old: tuple[jax.Array, jax.Array], grads: jax.Array) -> tuple[jax.Array, jax.Array]:
    rms = RMS_DECAY * old[1] + (1 - RMS_DECAY) * (grads * grads)
    return _average(old[0], grads[:, None], axis=1), rms


def _accumulate_tiles(
    averages: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, ...]
) -> tuple[tuple[jax.Array, jax.Array], TileSums]:
    new = _averages(averages, inputs[0])
    return new, _sums((), (*new, *inputs))[1]


def _sums(state: tuple[()], inputs: tuple[jax.Array, ...]) -> tuple[tuple[()], TileSums]:
    momentum, rms, grads, params, rows, columns = inputs
    mask = inside(rows, columns, grads.shape[1:])
    count = jnp.maximum(rows * columns, 1).astype(jnp.float32)[:, None]
    squares = grads * grads

    totals = _totals if grads.shape[1] > 1 else _totals_at_once
    both = [momentum, rms[:, None]]
    by_row = squares.sum(2)
    inverse = jnp.where(mask, 1.0 / (rms + 1e-6), 0.0)
    # The selection is the last operation: XLA sums products with a broadcast factor slowly.
    scaled = jnp.where(mask[:, None], momentum * momentum * inverse[:, None], 0.0)
    small = jnp.clip(grads, -0.1, 0.1) ** 2
    rest = [x[:, None] for x in (params * params, small, inverse, squares * inverse)]
    *averages, of_scaled, of_params, of_small, of_inverse, of_ratio = totals([*both, scaled, *rest])
    # Squared differences from the means of the tile.
    means = [(x / count)[:, :, None, None] for x in averages]
    differences = [
        jnp.where(mask[:, None], (x - m) ** 2, 0.0) for x, m in zip(both, means, strict=True)
    ]
    spreads = totals(differences)
    # Without another pass: the sum of the squares is the spread and the square of the mean.
    of_averages = [s + t * t / count for s, t in zip(spreads, averages, strict=True)]
    inputs_squared = [
        by_row.sum(1, keepdims=True),
        of_small,
        *of_averages,
        of_scaled,
        of_inverse,
        of_ratio,
    ]
    sums = TileSums(
        params=of_params[:, 0],
        averages=jnp.concatenate(averages, 1),
        spread=jnp.concatenate(spreads, 1),
        inputs=jnp.concatenate(inputs_squared, 1),
        rows=by_row,
        columns=squares.sum(1),
    )
    return state, sums


def _totals(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """Sums (tiles, k) of arrays (tiles, k, rows, columns)."""
    return [x.sum(-2).sum(-1) for x in arrays]


def _totals_at_once(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """``_totals`` by one reduction: less to compile; for tiles of one row, which are few."""
    return _joined(lambda x: x.sum((-2, -1)), arrays)


def _joined(
    function: Callable[[jax.Array], jax.Array], arrays: Sequence[jax.Array]
) -> list[jax.Array]:
    """Calls a function once for arrays side by side on axis 1, and divides its result."""
    ends = np.cumsum([x.shape[1] for x in arrays])[:-1]
    parts: list[jax.Array] = jnp.split(function(jnp.concatenate(arrays, axis=1)), ends, axis=1)
    return parts


def _accumulate_kernel(averages: Any, inputs: Any, new: Any, sums: TileSums) -> None:
    """The Pallas kernel of ``_accumulate_tiles``; its arguments are references to one tile."""
    grads, params, rows, columns = (x[...] for x in inputs)
    down, across = (jax.lax.broadcasted_iota(jnp.int32, grads.shape, axis) for axis in (0, 1))
    mask = (down < rows) & (across < columns)
    count = jnp.maximum(rows * columns, 1).astype(jnp.float32)
    squares = grads * grads
    momenta = []
    for i, decay in enumerate(DECAYS):
        momenta.append(float(decay) * averages[0][i] + float(1 - decay) * grads)
        new[0][i] = momenta[i]
    rms = float(RMS_DECAY) * averages[1][...] + float(1 - RMS_DECAY) * squares
    new[1][...] = rms

    def total(x: jax.Array) -> jax.Array:
        return x.sum(0).sum(0)

    for i, x in enumerate([*momenta, rms]):
        sums.averages[i] = total(x)
        sums.spread[i] = total(jnp.where(mask, (x - total(x) / count) ** 2, 0.0))
    inverse = jnp.where(mask, 1.0 / (rms + 1e-6), 0.0)
    squared_inputs = [
        squares,
        jnp.clip(grads, -0.1, 0.1) ** 2,
        *(m**2 for m in momenta),
        rms**2,
        *(m**2 * inverse for m in momenta),
        inverse,
        squares * inverse,
    ]
    for i, x in enumerate(squared_inputs):
        sums.inputs[i] = total(x)
    sums.params[...] = total(params * params)
    sums.rows[...] = squares.sum(1)
    sums.columns[...] = squares.sum(0)


def _average(old: jax.Array, new: jax.Array, axis: int) -> jax.Array:
    decay = jnp.asarray(DECAYS).reshape([-1 if i == axis else 1 for i in range(old.ndim)])
    return decay * old + (1 - decay) * new


def _block_mean(blocks: Blocks, partial: jax.Array, length: np.ndarray) -> jax.Array:
    """Sums over the tiles beside each block, divided by the length of the averaged axis."""
    return blocks.sum_tiles(partial) / jnp.asarray(length[blocks.tensor][:, None]) + _TINY


def mean(group: Group, tile_sums: Sequence[jax.Array]) -> list[jax.Array]:
    """Means over each tensor, (n, k) each, from sums over each tile, (tiles, k) each.

    All are summed together: every sum over segments is several programs to compile.
    """
    sizes = group.sizes.astype(np.float32)[:, None]
    return _joined(lambda sums: group.sum_tensor(sums) / sizes, tile_sums)


def tensor_means(group: Group, sums: TileSums) -> TensorMeans:
    """Means over the tensors of a group."""
    params, averages, inputs = mean(group, [sums.params[:, None], sums.averages, sums.inputs])
    return TensorMeans(params[:, 0], averages, inputs)


def deviations(group: Group, sums: TileSums, means: TensorMeans) -> jax.Array:
    """Squared differences of the averages from the tensor's mean, summed over tiles, (tiles, 4).

    Squares are summed about the mean of each tile, then of the tile means about the mean of the
    tensor, so that nothing cancels however far from zero the mean is.
    """
    count = np.maximum(group.rows * group.columns, 1).astype(np.float32)[:, None]
    offset = sums.averages / count - rows_of(means.averages, group.tensor)
    summed: jax.Array = sums.spread + count * offset * offset
    return summed


def unpack(group: Group, state: TensorState) -> list[dict[str, jax.Array]]:
    """The averages of each tensor in its own shape, the decay axis last."""
    named = {"momentum": state.momentum, "rms": state.rms[:, None]}
    if isinstance(state, VectorState):
        named["diagonal"] = state.diagonal
    found: list[dict[str, jax.Array]] = [{} for _ in group.views]
    for name, packed in named.items():
        decays = [group.unpack(packed[:, i]) for i in range(packed.shape[1])]
        for one, x in zip(found, zip(*decays, strict=True), strict=True):
            one[name] = jnp.stack(x, axis=-1)
    if isinstance(state, FactoredState):
        for one, (row, column) in zip(
            found, unpack_lines(group, state.rows, state.columns), strict=True
        ):
            one["row"], one["column"] = row, column
    return found
