"""The matrices of a group of tiles, each of which is normalised by itself.

Boundary: index arithmetic in NumPy when traced, copies and means when run; knows no network.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.celo2.averages import DECAYS, TileState
from timetrial.optimizers.velo.tiling.chunks import over_tiles
from timetrial.optimizers.velo.tiling.lines import unpack_lines
from timetrial.optimizers.velo.tiling.segments import Indices, SegmentSum, segment_sum
from timetrial.optimizers.velo.tiling.tiles import Blocks, Group
from timetrial.optimizers.velo.tiling.views import TensorView

_PORTION = 2**21


@dataclasses.dataclass(frozen=True, eq=False)
class Matrices:
    """The matrices of a group of tiles; each has its own normalisation.

    Attributes:
        group: the tiles.
        of_tile: (tiles,) matrix of each tile; 0 for empty tiles.
        sizes: (matrices,) number of elements.
        swapped: (matrices,) ``TensorView.swapped`` of its tensor.
        total: sums over the tiles of the same matrix.
        padded: some tile reaches over the edge of its matrix, or is empty.
    """

    group: Group
    of_tile: Indices
    sizes: Indices
    swapped: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    total: SegmentSum
    padded: bool

    def init_state(self) -> TileState:
        """All averages at zero."""
        group, decays = self.group, len(DECAYS)

        def lines(blocks: Blocks) -> jax.Array:
            count, side = blocks.mask.shape
            return jnp.zeros((count, decays, side), jnp.float32)

        return TileState(
            jnp.zeros((group.tiles, decays, *group.tile), jnp.float32),
            jnp.zeros((group.tiles, *group.tile), jnp.float32),
            lines(group.by_row),
            lines(group.by_column),
        )

    def unpack_state(self, state: TileState) -> list[dict[str, jax.Array]]:
        """The averages of each tensor, as ``transform.tensor_averages`` gives them."""
        momenta = [self.group.unpack(state.momentum[:, i]) for i in range(len(DECAYS))]
        parts = zip(
            zip(*momenta, strict=True),
            self.group.unpack(state.second),
            unpack_lines(self.group, state.rows, state.columns),
            strict=True,
        )
        return [
            {"momentum": jnp.stack(m, -1), "second": v, "row": row, "column": column}
            for m, v, (row, column) in parts
        ]

    def chunk(self, elements: int) -> int:
        """Tiles to take at a time: they divide all tiles and have about as many elements."""
        most = max(1, elements // math.prod(self.group.tile))
        return max(i for i in range(1, most + 1) if self.group.tiles % i == 0)

    def pack(self, leaves: Sequence[jax.Array]) -> jax.Array:
        """``Group.pack``, with some tensors at a time.

        One concatenation of all tensors keeps a copy of each of them until it is made. Updates in
        place by single tensors take longer to compile.
        """
        out, first = jnp.zeros((self.group.tiles, *self.group.tile), jnp.float32), 0
        for views in self._portions():
            parts = [v.cut(leaves[v.leaf].astype(jnp.float32), self.group.tile) for v in views]
            x = jnp.concatenate(parts)
            out = jax.lax.dynamic_update_slice_in_dim(out, x, first, 0)
            first += len(x)
        return out

    def _portions(self) -> list[list[TensorView]]:
        """The tensors in order, in lists that end where they reach ``_PORTION`` elements."""
        portions: list[list[TensorView]] = [[]]
        size = 0
        for v in self.group.views:
            portions[-1].append(v)
            size += math.prod(v.shape)
            if size >= _PORTION:
                portions.append([])
                size = 0
        return [views for views in portions if views]

    def mean(self, sums: jax.Array) -> jax.Array:
        """Means over each matrix (matrices, k) from sums over each tile (tiles, k)."""
        return self.total(sums) / self.sizes.astype(np.float32)[:, None]


def matrices_of(group: Group) -> Matrices:
    """The matrices of a group of factored tensors."""
    of_tile = group.by_row.matrix[group.by_row.of_tile]
    used = group.rows > 0
    tensor = np.repeat(np.arange(len(group.views)), [v.batches for v in group.views])
    sizes = np.array([v.rows * v.columns for v in group.views], np.int32)[tensor]
    return Matrices(
        group,
        of_tile,
        sizes,
        group.swapped[tensor],
        segment_sum(of_tile[used], len(sizes)),
        bool(np.any(group.rows * group.columns < math.prod(group.tile))),
    )


def apart(
    function: Callable[[Any, Any], tuple[Any, Any]], state: Any, inputs: Any, live: jax.Array
) -> tuple[Any, Any]:
    """Calls ``function(state, inputs)`` so that XLA fuses nothing across its edge."""
    first: jax.Array = jax.tree.leaves((state, inputs))[0]
    return over_tiles(function, state, inputs, chunk=first.shape[0], live=live)


def true_of(x: jax.Array) -> jax.Array:
    """A True that XLA cannot constant-fold, also for NaN; ``x`` has one element or more."""
    return jnp.logical_not(x[(0,) * x.ndim] < -jnp.inf)
