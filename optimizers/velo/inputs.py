"""The thirty inputs of the per-parameter network: their scaling and their second moments.

Boundary: arithmetic on one group of tiles; knows no weights. The inputs themselves are never
stored: ``mlp`` computes them where it needs them.

Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up", 2022,
https://arxiv.org/abs/2211.09760.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.velo.accumulators import (
    FactoredState,
    Statistics,
    TensorMeans,
    TensorState,
    TileSums,
    VectorState,
    deviations,
    mean,
)
from timetrial.optimizers.velo.tiling.chunks import over_tiles
from timetrial.optimizers.velo.tiling.lines import beside_tiles, inside
from timetrial.optimizers.velo.tiling.segments import rows_of
from timetrial.optimizers.velo.tiling.tiles import Blocks, Group


class Factors(NamedTuple):
    """Inverse root of the second moment, by which gradient and momentum are multiplied.

    For factored tensors it is a row factor times a column factor.

    Attributes:
        rows: (row blocks, 3, rows).
        columns: (column blocks, 3, columns).
    """

    rows: jax.Array
    columns: jax.Array


class Packed(NamedTuple):
    """One group at one update.

    Attributes:
        grads: (tiles, rows, columns), clipped.
        params: (tiles, rows, columns).
        averages: the averages after the update.
        sums: sums over tiles from that pass.
        means: means over tensors of these sums.
        factors: see ``make_factors``.
    """

    grads: jax.Array
    params: jax.Array
    averages: TensorState
    sums: TileSums
    means: TensorMeans
    factors: Factors | None


def make_factors(group: Group, state: TensorState) -> Factors | None:
    """Adafactor's inverse root of the second moment; ``None`` for vectors, which need none.

    The statistic that is a mean over the largest axis (d0) is divided by its own mean; which of
    the two that is depends on the order of the two largest axes.
    """
    if isinstance(state, VectorState):
        return None
    rows = np.array([v.rows for v in group.views], np.float32)
    columns = np.array([v.columns for v in group.views], np.float32)

    def factor(x: jax.Array, blocks: Blocks, length: np.ndarray, relative: np.ndarray) -> jax.Array:
        sums = jnp.where(blocks.mask[:, None], x, 0.0).sum(2)
        total = rows_of(blocks.sum_matrix(sums), blocks.matrix)
        average = total / length[blocks.tensor][:, None]
        ratio = x / (average[:, :, None] + 1e-9)
        x = jnp.where(relative[blocks.tensor][:, None, None], ratio, x)
        return jax.lax.rsqrt(jnp.maximum(x, 1e-9))

    return Factors(
        factor(state.rows, group.by_row, rows, ~group.swapped),
        factor(state.columns, group.by_column, columns, group.swapped),
    )


def scale_sources(group: Group, packed: Packed) -> tuple[jax.Array, ...]:
    """The arguments of ``scales``, by tile."""
    if isinstance(packed.averages, VectorState):
        return (packed.averages.diagonal,)
    assert packed.factors is not None
    return beside_tiles(group, *packed.factors)


def scales(sources: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """Inverse roots (tiles, 3, rows, columns) for the gradient and for the momentum."""
    if len(sources) == 1:
        (diagonal,) = sources
        gradient = jax.lax.rsqrt(jnp.maximum(diagonal + 1e-9, 1e-9))
        return gradient, jax.lax.rsqrt(diagonal)
    rows, columns = sources
    both = rows[:, :, :, None] * columns[:, :, None, :]
    return both, both


def second_moments(group: Group, packed: Packed) -> tuple[jax.Array, Statistics]:
    """Means over each tensor of the squares of the thirty inputs, (n, 30); and of the averages.

    Args:
        group: the tensors.
        packed: their values.
    """
    masks = (jnp.asarray(group.rows), jnp.asarray(group.columns))
    _, more = over_tiles(
        _scaled_tiles,
        (),
        (packed.grads, packed.averages.momentum, scale_sources(group, packed), masks),
        chunk=group.chunk,
        kernel=_scaled_kernel if group.pallas else None,
    )
    means = packed.means
    scaled, variance = mean(group, [more, deviations(group, packed.sums, means)])
    direct, square = means.inputs, means.params[:, None]
    if isinstance(packed.averages, VectorState):
        row, rs_row = scaled[:, 6:9], scaled[:, 9:12]
        statistics = [row, row, rs_row, rs_row]
    else:
        statistics = _factor_moments(group, packed.averages)
    moments = [
        *(direct[:, :2], square, direct[:, 2:10], scaled[:, :3], direct[:, 10:]),
        *statistics,
        scaled[:, 3:6],
    ]
    return jnp.concatenate(moments, axis=1), Statistics(means.averages, variance)


def _scaled_tiles(state: tuple[()], inputs: tuple[Any, ...]) -> tuple[tuple[()], jax.Array]:
    """Sums over tiles of the squared inputs that are scaled by the second moment."""
    grads, momentum, sources, (rows, columns) = inputs
    gradient, of_momentum = scales(sources)
    squares = [(grads[:, None] * gradient) ** 2, (momentum * of_momentum) ** 2]
    if len(sources) == 1:
        mask = inside(rows, columns, grads.shape[1:])[:, None]
        (diagonal,) = sources
        squares += [jnp.where(mask, diagonal**2, 0.0)]
        squares += [jnp.where(mask, jax.lax.rsqrt(diagonal + 1e-8) ** 2, 0.0)]
    return state, jnp.concatenate([x.sum((2, 3)) for x in squares], 1)


def scale(sources: tuple[Any, ...], i: int) -> tuple[jax.Array, jax.Array]:
    """Part i of ``scales`` in a Pallas kernel, (rows, columns), from references to one tile."""
    if len(sources) == 1:
        diagonal = sources[0][i]
        return jax.lax.rsqrt(jnp.maximum(diagonal + 1e-9, 1e-9)), jax.lax.rsqrt(diagonal)
    rows, columns = sources
    both = rows[i][:, None] * columns[i][None, :]
    return both, both


def _scaled_kernel(state: Any, inputs: Any, new: Any, sums: Any) -> None:
    """The Pallas kernel of ``_scaled_tiles``; its arguments are references to one tile."""
    del state, new
    grads, momentum, sources, (rows, columns) = inputs
    g = grads[...]
    for i in range(3):
        gradient, of_momentum = scale(sources, i)
        squares = [(g * gradient) ** 2, (momentum[i] * of_momentum) ** 2]
        if len(sources) == 1:
            across = jax.lax.broadcasted_iota(jnp.int32, g.shape, 1)
            mask = (across < columns[...]) & (rows[...] > 0)
            diagonal = sources[0][i]
            squares += [jnp.where(mask, diagonal**2, 0.0)]
            squares += [jnp.where(mask, jax.lax.rsqrt(diagonal + 1e-8) ** 2, 0.0)]
        for j, x in enumerate(squares):
            sums[3 * j + i] = x.sum(0).sum(0)


def _factor_moments(group: Group, state: FactoredState) -> list[jax.Array]:
    """Moments of row, column and their inverse roots, each (n, 3)."""

    def moments(x: jax.Array, blocks: Blocks, lengths: list[int]) -> jax.Array:
        both = jnp.concatenate([x, jax.lax.rsqrt(x + 1e-8)], axis=1)
        sums = jnp.where(blocks.mask[:, None], both * both, 0.0).sum(2)
        return blocks.sum_tensor(sums) / np.array(lengths, np.float32)[:, None]

    by_row = moments(state.rows, group.by_row, [v.batches * v.rows for v in group.views])
    by_column = moments(
        state.columns, group.by_column, [v.batches * v.columns for v in group.views]
    )
    swapped = group.swapped[:, None]
    row, column = jnp.where(swapped, by_column, by_row), jnp.where(swapped, by_row, by_column)
    return [row[:, :3], column[:, :3], row[:, 3:], column[:, 3:]]
