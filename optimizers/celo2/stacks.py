"""Which tensors are updated together: tiles of many matrices, stacks of equal ones, all vectors.

Boundary: shapes, and the two copies in and out; no optimizer.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from timetrial.optimizers.celo2.averages import Shape, factored_axes
from timetrial.optimizers.celo2.matrices import Matrices, matrices_of
from timetrial.optimizers.velo.tiling.tiles import MATRIX_TILES, Group, make_tiling

_SHAPES_ALONE = 4
_ELEMENTS_ALONE = 2**16
_SQUARE_TILES = ((64, 64), (32, 32), (16, 16))
_TILES = tuple(dict.fromkeys((*_SQUARE_TILES, *MATRIX_TILES)))
_VECTOR_TILE = (1, 64)
_MOST_PADDING = 1.75


@dataclasses.dataclass(frozen=True)
class Stack:
    """Tensors of rank >= 2 that are stacked.

    A tensor whose two largest axes are its last two counts as a stack of matrices, whatever its
    other axes; these treat it alike.

    Attributes:
        leaves: index of every tensor among all leaves.
        shapes: shape of every tensor.
        shape: shape of every item of the stack, rank >= 2.
    """

    leaves: tuple[int, ...]
    shapes: tuple[Shape, ...]
    shape: Shape

    @property
    def counts(self) -> tuple[int, ...]:
        """Items of every tensor."""
        return tuple(math.prod(s) // math.prod(self.shape) for s in self.shapes)

    def pack(self, leaves: Sequence[jax.Array]) -> jax.Array:
        """The tensors as (items, *shape), float32; the leaves may have any dtype."""
        parts = [leaves[i].astype(jnp.float32).reshape(-1, *self.shape) for i in self.leaves]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

    def unpack(self, x: jax.Array) -> list[jax.Array]:
        """The tensors in their own shapes, from (items, *shape)."""
        return [x[items].reshape(shape) for _, shape, items in self.items()]

    def items(self) -> Iterator[tuple[int, Shape, slice]]:
        """The index among all leaves, the shape and the items of every tensor."""
        first = 0
        for leaf, shape, count in zip(self.leaves, self.shapes, self.counts, strict=True):
            yield leaf, shape, slice(first, first + count)
            first += count

    def factor(self, x: jax.Array, shape: Shape, place: int) -> jax.Array:
        """A row or column statistic of one tensor, its decays last.

        Args:
            x: (3, items, *shape of an item without one axis).
            shape: of the tensor.
            place: -1 for the statistic without the largest axis, -2 for that without the next.
        """
        gone = factored_axes(shape)[place + 2]
        kept = [size for axis, size in enumerate(shape) if axis != gone]
        return jnp.moveaxis(x.reshape(len(x), *kept), 0, -1)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The storage of all tensors with elements.

    Attributes:
        tiled: index among all leaves of every tensor that is stored as tiles.
        groups: of these tensors; a view's leaf is a place in ``tiled``.
        stacks: of the other tensors of rank >= 2.
        vectors: index among all leaves of every vector and scalar.
        tiles: the tiles of the vectors and scalars, in order; None where there are none.
    """

    tiled: tuple[int, ...]
    groups: tuple[Matrices, ...]
    stacks: tuple[Stack, ...]
    vectors: tuple[int, ...]
    tiles: Group | None


@functools.lru_cache(maxsize=64)
def make_plan(shapes: tuple[Shape, ...]) -> Plan:
    """The storage of tensors of the given shapes, in order of leaves."""
    vectors = [i for i, s in enumerate(shapes) if len(s) < 2 and math.prod(s) > 0]
    by_item = _by_item(shapes)
    alone = {item for item in by_item if not _is_matrix(item)}
    alone.update(_narrow({item: by_item[item] for item in by_item if item not in alone}, shapes))
    tiled = sorted(i for item, leaves in by_item.items() if item not in alone for i in leaves)
    groups = make_tiling(tuple(shapes[i] for i in tiled), _TILES).groups
    tiling = make_tiling(tuple(shapes[i] for i in vectors), vector_tile=_VECTOR_TILE)
    return Plan(
        tuple(tiled),
        tuple(matrices_of(group) for group in groups),
        tuple(stack_of(shapes, by_item[item], item) for item in by_item if item in alone),
        tuple(vectors),
        tiling.groups[0] if vectors else None,
    )


def stack_of(shapes: Sequence[Shape], leaves: Sequence[int], item: Shape) -> Stack:
    """The stack of some leaves that are made of equal items."""
    return Stack(tuple(leaves), tuple(shapes[i] for i in leaves), item)


def by_last_axes(shapes: Sequence[Shape], leaves: Sequence[int]) -> tuple[Stack, ...]:
    """The stacks of some leaves of rank >= 2, as matrices of their last two axes."""
    found: dict[Shape, list[int]] = {}
    for i in leaves:
        found.setdefault(shapes[i][-2:], []).append(i)
    return tuple(stack_of(shapes, members, item) for item, members in found.items())


def _by_item(shapes: Sequence[Shape]) -> dict[Shape, list[int]]:
    """Leaves of rank >= 2 by the shape of their items; leaves without elements are left out."""
    found: dict[Shape, list[int]] = {}
    for leaf, shape in enumerate(shapes):
        if len(shape) >= 2 and math.prod(shape) > 0:
            found.setdefault(_item(shape), []).append(leaf)
    return found


def _item(shape: Shape) -> Shape:
    last = len(shape) - 1
    return shape[-2:] if set(factored_axes(shape)) == {last, last - 1} else shape


def _is_matrix(item: Shape) -> bool:
    return len(item) == 2


def _narrow(by_item: dict[Shape, list[int]], shapes: Sequence[Shape]) -> list[Shape]:
    """The few large shapes that square tiles would pad too much: these have their own program."""

    def elements(item: Shape) -> int:
        return sum(math.prod(shapes[i]) for i in by_item[item])

    def padding(item: Shape) -> float:
        full = min(
            math.prod(-(-n // t) * t for n, t in zip(item, tile, strict=True))
            for tile in _SQUARE_TILES
        )
        return full / math.prod(item)

    found = [x for x in by_item if elements(x) >= _ELEMENTS_ALONE and padding(x) > _MOST_PADDING]
    return sorted(found, key=elements, reverse=True)[:_SHAPES_ALONE]
