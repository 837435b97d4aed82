"""Sums of rows by segment as a tree of padded gathers: the same bits at every call.

Boundary: index arithmetic in NumPy when traced, gathers and sums when run; knows no optimizer.

A scatter-add gives the same sums, but a GPU adds in the order in which threads arrive: a resumed
run would not be bitwise the uninterrupted one.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int32]

NOTHING = np.iinfo(np.int32).max
"""An index that stands for a row of zeros."""

_WIDTHS = (2, 4, 8, 16, 32)


def rows_of(x: jax.Array, index: Indices) -> jax.Array:
    """Rows of an array.

    All indices are planned, so none is checked or masked: there is less to compile.
    """
    return x.at[index].get(mode="promise_in_bounds")


def rows_or_zeros(x: jax.Array, index: Indices) -> jax.Array:
    """Rows of an array, and zeros where the index is ``NOTHING``."""
    last = jnp.zeros((1, *x.shape[1:]), x.dtype)
    return rows_of(jnp.concatenate([x, last]), np.where(index == NOTHING, len(x), index))


@dataclasses.dataclass(frozen=True, eq=False)
class SegmentSum:
    """Sums the rows of an array that belong to the same segment.

    Attributes:
        levels: for each level of the tree, (groups, width) rows of the level below; a group is
            their sum, and ``NOTHING`` stands for zero.
        segments: number of segments.
    """

    levels: tuple[Indices, ...]
    segments: int

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``(rows, ...)`` to sums ``(segments, ...)``; rows beyond the planned are ignored."""
        for index in self.levels:
            x = rows_or_zeros(x, index).sum(1)
        return x[: self.segments]


def segment_sum(segment: Indices, segments: int) -> SegmentSum:
    """Plans the sums over segments.

    Args:
        segment: segment of every row, each in [0, segments).
        segments: number of segments; every one has at least one row.
    """
    levels = []
    while not np.array_equal(segment, np.arange(segments)):
        index, segment = _level(segment, segments)
        levels.append(index)
    return SegmentSum(tuple(levels), segments)


def _level(segment: Indices, segments: int) -> tuple[Indices, Indices]:
    """One level: indices (groups, width) and the segment of every group, in order of segment."""
    counts = np.bincount(segment, minlength=segments)
    width = _best_width(counts)
    groups = -(-counts // width)
    order = np.argsort(segment, kind="stable")
    rank = np.arange(len(segment)) - np.repeat(np.cumsum(counts) - counts, counts)
    first_group = np.cumsum(groups) - groups
    group = np.repeat(first_group, counts) + rank // width
    index = np.full((int(groups.sum()), width), NOTHING, np.int32)
    index[group, rank % width] = order
    return index, np.repeat(np.arange(segments, dtype=np.int32), groups)


def _best_width(counts: npt.NDArray[np.intp]) -> int:
    """The width that gathers the fewest rows, those of the next level included."""
    if counts.max() == 1:
        return 1
    return min(_WIDTHS, key=lambda width: int((-(-counts // width)).sum()) * (width + 2))
