"""The direction of one update for matrices that are stored together as tiles of one shape.

Boundary: arithmetic on one group of tiles; ``tiles`` of VeLO cuts, ``update`` has the network.

One program serves all matrices of a model, so compilation does not grow with their number. An
update reads the tiles three times: for the averages and the sums of squares, for the sums that need
rows and columns, for the network.

Moudgil, Knyazev and Belilovsky, "Celo2: Towards Learned Optimization Free Lunch", 2026,
https://arxiv.org/abs/2602.19142.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.celo2.averages import DECAYS, SECOND_DECAY, TINY, TileState, clipped
from timetrial.optimizers.celo2.matrices import Matrices, apart, true_of
from timetrial.optimizers.celo2.network import HIDDEN, NORMALISER, Network
from timetrial.optimizers.celo2.sums import tile_sums
from timetrial.optimizers.celo2.update import (
    ELEMENT_INPUTS,
    FACTOR_EPSILON,
    LINE_INPUTS,
    element_inputs,
    folded,
    inverse_root,
    run,
    squares,
    with_inverse_root,
)
from timetrial.optimizers.velo.tiling.chunks import over_tiles
from timetrial.optimizers.velo.tiling.lines import beside_tiles, inside
from timetrial.optimizers.velo.tiling.segments import rows_of
from timetrial.optimizers.velo.tiling.tiles import Blocks

_CHUNK_AVERAGES, _CHUNK = 2**14, 2**17
"""Elements that a CPU works on at a time: in the first reading, which writes much, and later."""

_IN_CACHE = 2**20
"""Elements up to which all tiles are worked on at once."""


def tile_directions(
    network: Network,
    matrices: Matrices,
    state: TileState,
    grads: jax.Array,
    params: jax.Array,
    *,
    normalise: bool,
) -> tuple[jax.Array, TileState]:
    """One update of a group.

    Args:
        network: the weights.
        matrices: of the group.
        state: averages before.
        grads: (tiles, rows, columns), float32, clipped at each reading.
        params: (tiles, rows, columns), float32, before the step.
        normalise: divide every matrix by its root mean square.

    Returns:
        (tiles, rows, columns) output of the network, and the averages after this gradient.
    """
    group = matrices.group
    live = true_of(state.rows)
    state, direct = _accumulate(matrices, state, grads, params, live)
    factors = _factors(matrices, state)
    scaled = _scaled_sums(matrices, grads, state.momentum, beside_tiles(group, *factors), live)
    moments = matrices.mean(jnp.concatenate([direct, scaled], 1))
    of_rows, of_columns = _line_moments(matrices, state)
    w0 = folded(network.w0, _in_order(matrices, moments, of_rows, of_columns).T)
    w0 = jnp.moveaxis(w0, -1, 0)
    lines = _lines(matrices, state, factors, w0)
    elements = rows_of(w0[:, np.array(ELEMENT_INPUTS)], matrices.of_tile)
    sizes = (jnp.asarray(group.rows), jnp.asarray(group.columns))
    inputs = (grads, state.momentum, state.second, lines, elements, sizes)
    x, total = over_tiles(
        lambda p, some: _outputs(network, matrices.padded, p, some),
        params,  # overwritten by the outputs: a new array of this size takes long to allocate
        inputs,
        chunk=_chunk(matrices, _CHUNK),
        live=live,
    )
    return x * _scales(matrices, total, live) if normalise else x, state


def _scales(matrices: Matrices, total: jax.Array, live: jax.Array) -> jax.Array:
    """By tile one over the root mean square of its matrix, (tiles, 1, 1)."""

    def function(state: tuple[()], total: jax.Array) -> tuple[tuple[()], jax.Array]:
        scale = jax.lax.rsqrt(NORMALISER + matrices.mean(total))
        return state, rows_of(scale, matrices.of_tile)[:, :, None]

    # Apart, because XLA would repeat these steps for each of the tensors.
    return jnp.asarray(apart(function, (), total, live)[1])


def _chunk(matrices: Matrices, elements: int) -> int:
    """Tiles to take at a time: all of them where they fit into the cache."""
    tiles = matrices.group.tiles
    whole = tiles * math.prod(matrices.group.tile)
    return tiles if whole <= _IN_CACHE else matrices.chunk(elements)


def _accumulate(
    matrices: Matrices,
    state: TileState,
    grads: jax.Array,
    params: jax.Array,
    live: jax.Array,
) -> tuple[TileState, jax.Array]:
    """The new averages, and by tile the sums of the squares of inputs 0 to 10 and 14."""
    group = matrices.group

    def function(averages: Any, inputs: Any) -> tuple[Any, Any]:
        return _accumulate_tiles(matrices.padded, averages, inputs)

    averages = (state.momentum, state.second)
    inputs = (grads, params, jnp.asarray(group.rows), jnp.asarray(group.columns))
    if grads.size <= _IN_CACHE:
        averages, (sums, rows, columns) = function(averages, inputs)
    else:
        averages, (sums, rows, columns) = over_tiles(
            function, averages, inputs, chunk=_chunk(matrices, _CHUNK_AVERAGES), live=live
        )
    lengths = np.array([(v.rows, v.columns) for v in group.views], np.float32)
    found = TileState(
        *averages,
        _average(state.rows, _block_mean(group.by_row, rows, lengths[:, 1])),
        _average(state.columns, _block_mean(group.by_column, columns, lengths[:, 0])),
    )
    return found, sums


def _accumulate_tiles(
    padded: bool, averages: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, ...]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    grads, params, rows, columns = inputs
    grads = clipped(grads)
    decay = jnp.asarray(DECAYS).reshape(1, -1, 1, 1)
    momentum = decay * averages[0] + (1 - decay) * grads[:, None]
    square = grads * grads
    second = SECOND_DECAY * averages[1] + (1 - SECOND_DECAY) * square
    mask = [inside(rows, columns, grads.shape[1:])] if padded else []

    def terms(g: jax.Array, p: jax.Array, v: jax.Array, *rest: jax.Array) -> list[jax.Array]:
        found = squares(g, p, v, *rest[:3])
        if rest[3:]:
            found[10] = jnp.where(rest[3], found[10], 0.0)  # the others are zero in the padding
        return found

    arrays = (grads, params, second, *[momentum[:, i] for i in range(3)], *mask)
    by_column = tile_sums(terms, arrays)
    return (momentum, second), (by_column.sum(2), square.sum(2), by_column[:, 0])


def _average(old: jax.Array, new: jax.Array) -> jax.Array:
    decay = jnp.asarray(DECAYS)[:, None]
    return decay * old + (1 - decay) * new[:, None]


def _block_mean(blocks: Blocks, partial: jax.Array, length: np.ndarray) -> jax.Array:
    """Sums over the tiles beside each block, divided by the length of the averaged axis."""
    return blocks.sum_tiles(partial) / jnp.asarray(length[blocks.tensor][:, None]) + TINY


def _factors(matrices: Matrices, state: TileState) -> tuple[jax.Array, jax.Array]:
    """Inverse roots by which gradient and momenta are multiplied, by row and by column block.

    The means over the largest axis d0 are first divided by their own mean.
    """
    views = matrices.group.views

    def factor(x: jax.Array, blocks: Blocks, lengths: list[int], largest: list[bool]) -> jax.Array:
        sums = blocks.sum_matrix(jnp.where(blocks.mask[:, None], x, 0.0).sum(2))
        length = np.array(lengths, np.float32)[blocks.tensor][:, None]
        average = rows_of(sums, blocks.matrix) / length
        relative = x / (average[:, :, None] + FACTOR_EPSILON)
        return inverse_root(jnp.where(np.array(largest)[blocks.tensor][:, None, None], relative, x))

    return (
        factor(
            state.rows,
            matrices.group.by_row,
            [v.rows for v in views],
            [not v.swapped for v in views],
        ),
        factor(
            state.columns,
            matrices.group.by_column,
            [v.columns for v in views],
            [v.swapped for v in views],
        ),
    )


def _scaled_sums(
    matrices: Matrices,
    grads: jax.Array,
    momentum: jax.Array,
    beside: tuple[jax.Array, jax.Array],
    live: jax.Array,
) -> jax.Array:
    """By tile the sums of the squares of inputs 11 to 13 and 27 to 29, (tiles, 6)."""

    def function(state: tuple[()], inputs: Any) -> tuple[tuple[()], jax.Array]:
        grads, momentum, rows, columns = inputs
        grads = clipped(grads)
        arrays = (grads, *[momentum[:, i] for i in range(3)])
        high = [rows[:, i, :, None] for i in range(3)]
        wide = [columns[:, i, None, :] for i in range(3)]

        def terms(g: jax.Array, *rest: jax.Array) -> list[jax.Array]:
            m, scale = rest[:3], [x * y for x, y in zip(rest[3:6], rest[6:], strict=True)]
            square = g * g
            return [square * x for x in scale] + [y * y * x for x, y in zip(scale, m, strict=True)]

        return state, tile_sums(terms, (*arrays, *high, *wide)).sum(2)

    inputs = (grads, momentum, *[x * x for x in beside])
    chunk = _chunk(matrices, _CHUNK)
    return over_tiles(function, (), inputs, chunk=chunk, live=live)[1]


def _line_moments(matrices: Matrices, state: TileState) -> tuple[jax.Array, jax.Array]:
    """Means over each matrix of the squared inputs of rows and of columns, each (matrices, 6)."""
    group = matrices.group

    def moments(x: jax.Array, blocks: Blocks, lengths: list[int]) -> jax.Array:
        both = with_inverse_root(x, 1)
        sums = jnp.where(blocks.mask[:, None], both * both, 0.0).sum(2)
        tensor = np.repeat(np.arange(len(group.views)), [v.batches for v in group.views])
        return blocks.sum_matrix(sums) / np.array(lengths, np.float32)[tensor][:, None]

    return (
        moments(state.rows, group.by_row, [v.rows for v in group.views]),
        moments(state.columns, group.by_column, [v.columns for v in group.views]),
    )


def _in_order(
    matrices: Matrices, moments: jax.Array, of_rows: jax.Array, of_columns: jax.Array
) -> jax.Array:
    """Mean squares of all inputs in their order, (matrices, 30)."""
    swapped = matrices.swapped[:, None]
    of_d1 = jnp.where(swapped, of_columns, of_rows)  # means over d0, the largest axis
    of_d0 = jnp.where(swapped, of_rows, of_columns)
    return jnp.concatenate(
        [
            *(moments[:, :11], moments[:, 12:15], moments[:, 11:12]),
            *(of_d1[:, :3], of_d0[:, :3], of_d1[:, 3:], of_d0[:, 3:], moments[:, 15:]),
        ],
        axis=1,
    )


def _lines(
    matrices: Matrices, state: TileState, factors: tuple[jax.Array, jax.Array], w0: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """By tile what belongs to its rows (tiles, 11, rows) and to its columns (tiles, 11, columns).

    The three factors of ``_factors``, and the part of the inputs of the row or column in each of
    the eight units of the first layer.
    """
    group = matrices.group
    of_d1, of_d0 = (w0[:, np.array(indices)] for indices in LINE_INPUTS)
    swapped = matrices.swapped[:, None, None]

    def per_block(x: jax.Array, factor: jax.Array, blocks: Blocks, table: jax.Array) -> jax.Array:
        table = rows_of(table, blocks.matrix)
        part = (with_inverse_root(x, 1)[:, :, None, :] * table[:, :, :, None]).sum(1)
        return jnp.concatenate([factor, part], 1)

    rows, columns = jnp.where(swapped, of_d0, of_d1), jnp.where(swapped, of_d1, of_d0)
    return beside_tiles(
        group,
        per_block(state.rows, factors[0], group.by_row, rows),
        per_block(state.columns, factors[1], group.by_column, columns),
    )


def _outputs(
    network: Network, padded: bool, params: jax.Array, inputs: Any
) -> tuple[jax.Array, jax.Array]:
    """The outputs of the network, and by tile the sums (tiles, 1) of their squares."""
    grads, momentum, second, (rows, columns), elements, (high, wide) = inputs
    grads = clipped(grads)
    m = [momentum[:, i] for i in range(3)]
    scale = [rows[:, i, :, None] * columns[:, i, None, :] for i in range(3)]
    offsets = [rows[:, 3 + h, :, None] + columns[:, 3 + h, None, :] for h in range(HIDDEN)]
    values = element_inputs(grads, params, second, m, scale)
    values += [x * y for x, y in zip(m, scale, strict=True)]
    x = run(network, values, jnp.moveaxis(elements, 0, -1)[..., None, None], offsets)
    used = jnp.where(inside(high, wide, grads.shape[1:]), x, 0.0) if padded else x
    return x, jnp.sum(used * used, (1, 2))[:, None]
