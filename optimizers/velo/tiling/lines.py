"""Rows and columns of tiles: those inside the matrix, and statistics by row and by column.

Boundary: masks and copies; no optimizer.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.velo.tiling.segments import rows_of
from timetrial.optimizers.velo.tiling.tiles import Blocks, Group


def inside(rows: jax.Array, columns: jax.Array, tile: tuple[int, ...]) -> jax.Array:
    """(tiles, rows, columns) True where a tile holds an element of its tensor."""
    down = jnp.arange(tile[0]) < rows[:, None]
    across = jnp.arange(tile[1]) < columns[:, None]
    return down[:, :, None] & across[:, None, :]


def beside_tiles(
    group: Group, by_row: jax.Array, by_column: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The row block and the column block beside every tile."""
    rows = rows_of(by_row, group.by_row.of_tile)
    return rows, rows_of(by_column, group.by_column.of_tile)


def unpack_lines(
    group: Group, rows: jax.Array, columns: jax.Array
) -> list[tuple[jax.Array, jax.Array]]:
    """The means over the largest axis d0 and those over the next, d1, of every tensor.

    Args:
        group: the tensors.
        rows: (row blocks, 3, rows), means over the column axis.
        columns: (column blocks, 3, columns), means over the row axis.

    Returns:
        Arrays in the tensor's shape without the axis of the mean, with a trailing axis of 3.
    """
    by_row = _unpack_blocks(group, group.by_row, rows, rows=True)
    by_column = _unpack_blocks(group, group.by_column, columns, rows=False)
    pairs = zip(group.views, by_row, by_column, strict=True)
    return [(y, x) if v.swapped else (x, y) for v, x, y in pairs]


def _unpack_blocks(
    group: Group, blocks: Blocks, packed: jax.Array, *, rows: bool
) -> list[jax.Array]:
    out = []
    for i, v in enumerate(group.views):
        length = v.rows if rows else v.columns
        x = jnp.moveaxis(packed[np.flatnonzero(blocks.tensor == i)], 1, 0)
        x = x.reshape(3, v.batches, -1)[:, :, :length]
        axes = (*v.order[:-2], v.order[-2] if rows else v.order[-1])
        x = x.reshape(3, *[v.shape[axis] for axis in axes])
        out.append(jnp.moveaxis(x.transpose(0, *(1 + np.argsort(axes))), 0, -1))
    return out
