"""Division of tensors into blocks of equal shape, each with preconditioners of its own.

Boundary: shapes only; pure, jittable.

Source: Anil et al., "Scalable Second Order Optimization for Deep Learning", 2020, section 4,
https://arxiv.org/abs/2002.09018.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np


class Blocks:
    """Division of a tensor into blocks of equal shape, padded with zeros.

    Args:
        shape: shape of the tensor.
        block_size: longest axis of a block, >= 1.
        merge_dims: neighbouring axes are merged while their product is at most this.

    Attributes:
        merged: shape after merging.
        block: shape of a block.
        number: number of blocks.
    """

    def __init__(self, shape: tuple[int, ...], block_size: int, merge_dims: int) -> None:
        self._shape = shape
        self.merged = merged(shape, merge_dims)
        self.block = tuple(min(size, block_size) for size in self.merged)
        self._counts = tuple(-(-n // b) for n, b in zip(self.merged, self.block, strict=True))
        self.number = math.prod(self._counts)
        rank = len(self.merged)
        self._order = (*range(0, 2 * rank, 2), *range(1, 2 * rank, 2))

    def split(self, tensor: jax.Array) -> jax.Array:
        """The blocks of a tensor, of shape ``(number, *block)``."""
        sizes = zip(self._counts, self.block, self.merged, strict=True)
        padded = jnp.pad(tensor.reshape(self.merged), [(0, c * b - n) for c, b, n in sizes])
        halves = padded.reshape([i for pair in self._pairs() for i in pair])
        return halves.transpose(self._order).reshape(self.number, *self.block)

    def join(self, blocks: jax.Array) -> jax.Array:
        """The tensor of its blocks."""
        halves = blocks.reshape(*self._counts, *self.block).transpose(np.argsort(self._order))
        padded = halves.reshape([count * size for count, size in self._pairs()])
        return padded[tuple(slice(n) for n in self.merged)].reshape(self._shape)

    def _pairs(self) -> list[tuple[int, int]]:
        return list(zip(self._counts, self.block, strict=True))


def merged(shape: tuple[int, ...], limit: int) -> tuple[int, ...]:
    """A shape whose neighbouring axes are merged while their product is at most ``limit``."""
    sizes: list[int] = []
    for size in (n for n in shape if n != 1):
        if sizes and sizes[-1] * size <= limit:
            sizes[-1] *= size
        else:
            sizes.append(size)
    return tuple(sizes) or (1,)
