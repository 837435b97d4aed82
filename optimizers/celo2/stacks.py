"""Which tensors are updated together: stacks of equal matrices, and tiles of all vectors.

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
from timetrial.optimizers.velo.tiling.tiles import Group, make_tiling


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
        stacks: of the tensors of rank >= 2.
        vectors: index among all leaves of every vector and scalar.
        tiles: the tiles of the vectors and scalars, in order; None where there are none.
    """

    stacks: tuple[Stack, ...]
    vectors: tuple[int, ...]
    tiles: Group | None


@functools.lru_cache(maxsize=64)
def make_plan(shapes: tuple[Shape, ...]) -> Plan:
    """The storage of tensors of the given shapes, in order of leaves."""
    by_item: dict[Shape, list[int]] = {}
    vectors = []
    for leaf, shape in enumerate(shapes):
        if math.prod(shape) == 0:
            continue
        if len(shape) < 2:
            vectors.append(leaf)
        else:
            by_item.setdefault(_item(shape), []).append(leaf)
    stacks = [
        Stack(tuple(leaves), tuple(shapes[i] for i in leaves), item)
        for item, leaves in by_item.items()
    ]
    tiling = make_tiling(tuple(shapes[i] for i in vectors))
    return Plan(tuple(stacks), tuple(vectors), tiling.groups[0] if vectors else None)


def _item(shape: Shape) -> Shape:
    last = len(shape) - 1
    return shape[-2:] if set(factored_axes(shape)) == {last, last - 1} else shape
