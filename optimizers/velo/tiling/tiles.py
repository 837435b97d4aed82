"""Storing many tensors as tiles of one shape, so that one program serves a whole model.

Boundary: shapes and index arithmetic in NumPy, and the two copies in and out; no optimizer.

A tensor of rank >= 2 is seen as a stack of matrices over its two largest axes. Each matrix is cut
into tiles, padded with zeros where it does not fill the last one. A model with 161 tensors then
takes a handful of operations on arrays (tiles, rows, columns): compile time does not grow with the
number of tensors, and a GPU launches a handful of kernels.

A large tensor that devices may divide by its first axis has tiles of its own, in the order of that
axis. Among others its tiles would lie on other devices than its rows, and each update would gather
all of them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.velo.tiling.segments import (
    NOTHING,
    Indices,
    SegmentSum,
    rows_or_zeros,
    segment_sum,
)
from timetrial.optimizers.velo.tiling.views import Shape, TensorView, view

MATRIX_TILES = ((64, 64), (16, 16), (8, 512), (512, 8), (1, 4096), (4096, 1))
"""Tile shapes to choose from; several are used only where one wastes much."""

VECTOR_TILE = (1, 256)
"""Tile shape of vectors and scalars, which have no row and column statistics; narrower (the next
power of two, at least 8) where all of them are shorter: there is less to compile."""

LARGE = 2**20
"""Elements from which a tensor may be divided among devices."""

_CHUNK_ELEMENTS = 262_144
_TILE_COST = 300
_NEW_SHAPE_COST = 1_000_000

_MANY = 8
"""Tensors of one shape from which a loop copies them on a CPU: one program for all to compile."""

Elementwise = Callable[[jax.Array], jax.Array]


def _float32(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """Slices of a row or column statistic, each as long as one tile side.

    Attributes:
        tensor: (blocks,) tensor of each block.
        matrix: (blocks,) matrix of each block, counted over all tensors of the group.
        mask: (blocks, side) True inside the matrix.
        of_tile: (tiles,) block beside each tile.
        sum_tiles: sums over the tiles beside the same block.
        sum_tensor, sum_matrix: sums over the blocks of the same tensor, of the same matrix.
    """

    tensor: Indices
    matrix: Indices
    mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    of_tile: Indices
    sum_tiles: SegmentSum
    sum_tensor: SegmentSum
    sum_matrix: SegmentSum


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Tensors stored together as tiles of the same shape.

    Attributes:
        tile: (rows, columns) of a tile.
        factored: whether squared gradients are kept as row and column means.
        views: the tensors, in order.
        swapped: (tensors,) ``TensorView.swapped``.
        sizes: (tensors,) number of elements.
        chunk: tiles that a CPU works on together; it divides the number of tiles, to which empty
            ones are added at the end.
        pallas: whether Pallas kernels work on the tiles.
        tensor: (tiles,) tensor of each tile, counted within the group.
        rows, columns: (tiles,) size of the part inside the matrix, 0 for empty tiles.
        sum_tensor: sums over the tiles of the same tensor.
        by_row, by_column: the blocks of row and of column statistics.
    """

    tile: Shape
    factored: bool
    views: tuple[TensorView, ...]
    swapped: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    sizes: Indices
    chunk: int
    pallas: bool
    tensor: Indices
    rows: Indices
    columns: Indices
    sum_tensor: SegmentSum
    by_row: Blocks
    by_column: Blocks

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.tensor)

    def pack(self, leaves: Sequence[jax.Array], prepare: Elementwise = _float32) -> jax.Array:
        """Copies tensors into float32 tiles.

        Args:
            leaves: all leaves; those of the group are read.
            prepare: elementwise function of the tensors, which keeps zeros; its result is float32.

        Returns:
            (tiles, rows, columns), zero where a tile reaches over the edge of its matrix.
        """
        if not self.factored:
            flat = jnp.concatenate([_float32(leaves[v.leaf]).reshape(-1) for v in self.views])
            return rows_or_zeros(prepare(flat), self._flat_index())
        if self.pallas:  # in one operation, which is one kernel of a GPU
            cut = [v.cut(_float32(leaves[v.leaf]), self.tile) for v in self.views]
            empty = jnp.zeros((self.tiles - sum(len(x) for x in cut), *self.tile), jnp.float32)
            return prepare(jnp.concatenate([*cut, empty]))
        out, first = jnp.zeros((self.tiles, *self.tile), jnp.float32), 0
        for views in self._alike():
            some = [leaves[v.leaf] for v in views]
            out = _pack_alike(out, first, views[0], self.tile, some, prepare)
            first += len(views) * math.prod(views[0].grid(self.tile))
        return out

    def _flat_index(self) -> Indices:
        """Index of every tile element in the vectors laid end to end; padding has nothing."""
        used = np.arange(self.tile[1]) < self.columns[:, None]
        index = np.full(used.shape, NOTHING, np.int32)
        index[used] = np.arange(used.sum())
        return index[:, None, :]

    def unpack(self, packed: jax.Array) -> list[jax.Array]:
        """The inverse of ``pack``: one float32 tensor per view."""
        out, first = [], 0
        for views in self._alike():
            last = first + len(views) * math.prod(views[0].grid(self.tile))
            out += _unpack_alike(packed[first:last], views[0], self.tile, len(views))
            first = last
        return out

    def _alike(self) -> list[list[TensorView]]:
        """The tensors in order, in lists of equal shape."""
        return [list(views) for _, views in itertools.groupby(self.views, lambda v: v.shape)]


def _looped(tensors: int) -> bool:
    return tensors >= _MANY and jax.default_backend() == "cpu"


def _pack_alike(
    out: jax.Array,
    first: int,
    each: TensorView,
    tile: Shape,
    tensors: Sequence[jax.Array],
    prepare: Elementwise,
) -> jax.Array:
    """Copies tensors of one shape to the tiles from ``first`` on."""
    count = math.prod(each.grid(tile))

    def copied(out: jax.Array, tensor: jax.Array, i: Any) -> jax.Array:
        x = each.cut(prepare(tensor), tile)
        new: jax.Array = jax.lax.dynamic_update_slice_in_dim(out, x, first + i * count, 0)
        return new

    if not _looped(len(tensors)):
        for i, tensor in enumerate(tensors):
            out = copied(out, tensor, i)
        return out
    stacked = jnp.stack(tensors)
    packed: jax.Array = jax.lax.fori_loop(
        0, len(tensors), lambda i, out: copied(out, stacked[i], i), out
    )
    return packed


def _unpack_alike(tiles: jax.Array, each: TensorView, tile: Shape, tensors: int) -> list[jax.Array]:
    """The inverse of ``_pack_alike``, from the tiles of these tensors alone."""
    count = math.prod(each.grid(tile))
    if not _looped(tensors):
        return [each.join(x, tile) for x in jnp.split(tiles, tensors)]

    def joined(i: jax.Array, out: jax.Array) -> jax.Array:
        x = each.join(jax.lax.dynamic_slice_in_dim(tiles, i * count, count), tile)
        new: jax.Array = jax.lax.dynamic_update_index_in_dim(out, x, i, 0)
        return new

    stacked: jax.Array = jax.lax.fori_loop(
        0, tensors, joined, jnp.zeros((tensors, *each.shape), jnp.float32)
    )
    return [stacked[i] for i in range(tensors)]


@dataclasses.dataclass(frozen=True, eq=False)
class Tiling:
    """The storage of all tensors of a model.

    Attributes:
        groups: the groups of tiles.
        leaves: index among all leaves of every tensor, in order of groups; leaves without
            elements are left out.
        position: for every tensor in order of leaves, its place in the order of groups.
        rank: the inverse: for every tensor in order of groups, its place in order of leaves.
        kinds: (tensors,) number of axes longer than 1, in order of leaves.
    """

    groups: tuple[Group, ...]
    leaves: Indices
    position: Indices
    rank: Indices
    kinds: Indices


@functools.lru_cache(maxsize=64)
def make_tiling(
    shapes: tuple[Shape, ...],
    matrix_tiles: tuple[Shape, ...] = MATRIX_TILES,
    vector_tile: Shape = VECTOR_TILE,
    pallas: bool = False,
    divide: bool = True,
) -> Tiling:
    """Chooses the storage of tensors of the given shapes.

    Args:
        shapes: of the tensors, in order of leaves.
        matrix_tiles: tile shapes to choose from.
        vector_tile: widest tile shape of vectors, (1, any).
        pallas: let Pallas kernels work on the tiles; the sides of tiles must be powers of two.
        divide: give each tensor that may be divided among devices a group of its own.
    """
    group_of = functools.partial(_group, pallas=pallas)
    views = [view(leaf, shape) for leaf, shape in enumerate(shapes) if math.prod(shape) > 0]
    vectors = [v for v in views if len(v.shape) < 2]
    matrices = [v for v in views if len(v.shape) >= 2]
    groups = []
    if vectors:
        width = 1 << (max(8, *(v.columns for v in vectors)) - 1).bit_length()
        narrow = (1, min(vector_tile[1], width))
        groups.append(group_of(vectors, narrow, factored=False))
    apart = list(filter(_divisible, matrices)) if divide else []
    together = [v for v in matrices if not (divide and _divisible(v))]
    for tile, members in _assign(together, matrix_tiles).items():
        # Those of one shape beside each other.
        groups.append(group_of(sorted(members, key=lambda v: v.shape), tile, factored=True))
    for v in apart:
        tile = min(matrix_tiles, key=functools.partial(_cost, v))
        groups.append(group_of([v], tile, factored=True))
    leaves = np.array([v.leaf for g in groups for v in g.views], np.int32)
    position = np.argsort(leaves).astype(np.int32)
    rank = np.argsort(position).astype(np.int32)
    kinds = np.array([sum(size > 1 for size in v.shape) for v in views], np.int32)
    return Tiling(tuple(groups), leaves, position, rank, kinds)


def _divisible(v: TensorView) -> bool:
    """True for a large tensor whose first axis leads its tiles; an even one, as devices are."""
    return math.prod(v.shape) >= LARGE and v.order[0] == 0 and v.shape[0] % 2 == 0


def _cost(v: TensorView, tile: Shape) -> int:
    """Elements that a tensor occupies, plus a constant cost per tile."""
    return math.prod(v.grid(tile)) * (math.prod(tile) + _TILE_COST)


def _assign(
    views: Sequence[TensorView], allowed: tuple[Shape, ...] = MATRIX_TILES
) -> dict[Shape, list[TensorView]]:
    """Matrices by tile shape: as few shapes as possible, more where padding is large."""
    if not views:
        return {}

    def total(tiles: tuple[Shape, ...]) -> int:
        return sum(min(_cost(v, tile) for tile in tiles) for v in views)

    chosen: tuple[Shape, ...] = (min(allowed, key=lambda tile: total((tile,))),)
    while len(chosen) < len(allowed):
        more = min(((*chosen, t) for t in allowed if t not in chosen), key=total)
        if total(chosen) - total(more) < _NEW_SHAPE_COST:
            break
        chosen = more
    assigned: dict[Shape, list[TensorView]] = {}
    for v in views:
        assigned.setdefault(min(chosen, key=lambda tile: _cost(v, tile)), []).append(v)
    return assigned


def _group(views: Sequence[TensorView], tile: Shape, *, factored: bool, pallas: bool) -> Group:
    where = [
        (i, b, r, c)
        for i, v in enumerate(views)
        for b, r, c in itertools.product(*map(range, v.grid(tile)))
    ]
    tensor, batch, down, across = np.array(where, np.int32).T
    total_rows = np.array([v.rows for v in views], np.int32)[tensor]
    total_columns = np.array([v.columns for v in views], np.int32)[tensor]
    matrix = _number(tensor, batch)
    rows = np.minimum(tile[0], total_rows - down * tile[0]).astype(np.int32)
    columns = np.minimum(tile[1], total_columns - across * tile[1]).astype(np.int32)
    tiles = len(tensor)
    chunk = _chunk(tiles, max(4, _CHUNK_ELEMENTS // math.prod(tile)))
    empty = -tiles % chunk

    def padded(x: Indices) -> Indices:
        return np.pad(x, (0, empty))

    def blocks(block: Indices, used: Indices, side: int) -> Blocks:
        found = _blocks(tensor, matrix, block, used, side)
        return dataclasses.replace(found, of_tile=padded(block))

    return Group(
        tile=tile,
        factored=factored,
        views=tuple(views),
        swapped=np.array([v.swapped for v in views]),
        sizes=np.array([math.prod(v.shape) for v in views], np.int32),
        chunk=chunk,
        pallas=pallas,
        tensor=padded(tensor),
        rows=padded(rows),
        columns=padded(columns),
        sum_tensor=segment_sum(tensor, len(views)),
        by_row=blocks(_number(matrix, down), rows, tile[0]),
        by_column=blocks(_number(matrix, across), columns, tile[1]),
    )


def _chunk(tiles: int, most: int) -> int:
    """Tiles to work on together: all, or an even number from most / 4 that leaves few empty."""
    if tiles <= most:
        return tiles
    return min(range(most - most % 2, most // 4, -2), key=lambda chunk: -tiles % chunk)


def _number(*keys: Indices) -> Indices:
    """Numbers the distinct tuples of keys in order of the tuples."""
    _, inverse = np.unique(np.stack(keys), axis=1, return_inverse=True)
    return inverse.reshape(-1).astype(np.int32)


def _blocks(tensor: Indices, matrix: Indices, block: Indices, used: Indices, side: int) -> Blocks:
    count = int(block.max()) + 1
    _, first = np.unique(block, return_index=True)
    return Blocks(
        tensor=tensor[first],
        matrix=matrix[first],
        mask=np.arange(side) < used[first][:, None],
        of_tile=block,
        sum_tiles=segment_sum(block, count),
        sum_tensor=segment_sum(tensor[first], int(tensor.max()) + 1),
        sum_matrix=segment_sum(matrix[first], int(matrix.max()) + 1),
    )
