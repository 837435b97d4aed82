"""How one tensor is seen as a stack of matrices, and how these are cut into tiles.

Boundary: shapes of one tensor, and its two copies in and out; no optimizer.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class TensorView:
    """One tensor as ``batches`` matrices of ``rows`` by ``columns``.

    Attributes:
        leaf: index of the tensor among all leaves.
        shape: its own shape.
        order: its axes, the batch axes first, then the row and the column axis.
        batches, rows, columns: sizes of the view.
        swapped: the largest axis (d0) is the row axis, not the column axis.
    """

    leaf: int
    shape: Shape
    order: tuple[int, ...]
    batches: int
    rows: int
    columns: int
    swapped: bool

    def grid(self, tile: Shape) -> Shape:
        """Number of tiles as ``(batches, down, across)``."""
        return self.batches, -(-self.rows // tile[0]), -(-self.columns // tile[1])

    def cut(self, x: jax.Array, tile: Shape) -> jax.Array:
        """The tensor as (tiles, rows, columns), zero where a tile reaches over its matrix."""
        batches, down, across = self.grid(tile)
        x = x.transpose(self.order).reshape(self.batches, self.rows, self.columns)
        over = (down * tile[0] - self.rows, across * tile[1] - self.columns)
        x = jnp.pad(x, ((0, 0), (0, over[0]), (0, over[1])))
        x = x.reshape(batches, down, tile[0], across, tile[1]).transpose(0, 1, 3, 2, 4)
        return x.reshape(-1, *tile)

    def join(self, tiles: jax.Array, tile: Shape) -> jax.Array:
        """The inverse of ``cut``."""
        batches, down, across = self.grid(tile)
        x = tiles.reshape(batches, down, across, *tile).transpose(0, 1, 3, 2, 4)
        x = x.reshape(batches, down * tile[0], across * tile[1])[:, : self.rows, : self.columns]
        x = x.reshape([self.shape[axis] for axis in self.order])
        return x.transpose(np.argsort(self.order))


def view(leaf: int, shape: Shape) -> TensorView:
    """The view of one tensor; vectors and scalars are one row."""
    if len(shape) < 2:
        return TensorView(leaf, shape, tuple(range(len(shape))), 1, 1, math.prod(shape), False)
    d1, d0 = _factored_axes(shape)
    major, minor = sorted((d1, d0))
    batch = [axis for axis in range(len(shape)) if axis not in (d1, d0)]
    batches = math.prod(shape[axis] for axis in batch)
    return TensorView(
        leaf, shape, (*batch, major, minor), batches, shape[major], shape[minor], d0 == major
    )


def _factored_axes(shape: Shape) -> tuple[int, int]:
    """The two largest axes ``(d1, d0)``, d0 the largest; of equal axes the later is the larger.

    Row statistics are means over d0, column statistics means over d1. The sort is stable, as
    NumPy's was for so few elements when the weights were trained.
    """
    order = np.argsort(shape, kind="stable")
    return int(order[-2]), int(order[-1])
