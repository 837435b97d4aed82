"""Running averages of the gradient and of its square, for a stack of equal-shaped tensors.

Boundary: arithmetic on arrays; knows no network. The averages start at zero and are not corrected
for it.

Moudgil, Knyazev and Belilovsky, "Celo2: Towards Learned Optimization Free Lunch", 2026,
https://arxiv.org/abs/2602.19142; the row and column means are those of Shazeer and Stern,
"Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
https://arxiv.org/abs/1804.04235.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Shape = tuple[int, ...]

DECAYS = np.array([0.9, 0.99, 0.999], np.float32)
"""Decays of the three momenta and of the three averages of the squared gradient."""

SECOND_DECAY = np.float32(0.95)
"""Decay of the elementwise second moment."""

TINY = np.float32(1e-30)
"""Added to the squared gradient before it is averaged for rows, columns and the diagonal."""

_LARGEST_GRADIENT = 1000.0
_SHORT_AXIS = 8


class MatrixState(NamedTuple):
    """Averages of a stack of k tensors of shape S with rank >= 2, float32.

    Attributes:
        momentum: (3, k, *S) of the gradient, one for each decay.
        second: (k, *S) of the squared gradient.
        rows: (3, k, *S without its largest axis d0) of the squared gradient's mean over d0.
        columns: (3, k, *S without the next, d1) of its mean over d1.
    """

    momentum: jax.Array
    second: jax.Array
    rows: jax.Array
    columns: jax.Array


class TileState(NamedTuple):
    """Averages of a group of matrices stored as tiles, float32; padding is arbitrary.

    Attributes:
        momentum: (tiles, 3, rows, columns) of the gradient, one for each decay.
        second: (tiles, rows, columns) of the squared gradient.
        rows: (row blocks, 3, rows) of the squared gradient's mean over the column axis.
        columns: (column blocks, 3, columns) of its mean over the row axis.
    """

    momentum: jax.Array
    second: jax.Array
    rows: jax.Array
    columns: jax.Array


class VectorState(NamedTuple):
    """Averages of all vectors and scalars, as tiles of 64 elements; padding is arbitrary.

    Attributes:
        momentum: (3, tiles, 64) of the gradient, one for each decay.
        second: (tiles, 64) of the squared gradient.
        diagonal: (3, tiles, 64) of the squared gradient, with the decays of the momenta.
    """

    momentum: jax.Array
    second: jax.Array
    diagonal: jax.Array


TensorState = MatrixState | VectorState


def clipped(grads: jax.Array) -> jax.Array:
    """Gradients in [-1000, 1000]."""
    return jnp.clip(grads, -_LARGEST_GRADIENT, _LARGEST_GRADIENT)


def factored_axes(shape: Shape) -> tuple[int, int]:
    """The two largest axes ``(d1, d0)``, d0 the largest; of equal axes the later is the larger."""
    order = np.argsort(shape, kind="stable")
    return int(order[-2]), int(order[-1])


def init_matrices(count: int, shape: Shape) -> MatrixState:
    """All averages at zero, for a stack of ``count`` tensors of a shape of rank >= 2."""
    d1, d0 = factored_axes(shape)

    def zeros(gone: int | None = None) -> jax.Array:
        kept = [size for axis, size in enumerate(shape) if axis != gone]
        return jnp.zeros((len(DECAYS), count, *kept), jnp.float32)

    return MatrixState(zeros(), jnp.zeros((count, *shape), jnp.float32), zeros(d0), zeros(d1))


def init_vectors(tiles: int, length: int) -> VectorState:
    """All averages at zero, for ``tiles`` tiles of ``length`` elements."""

    def zeros(*lead: int) -> jax.Array:  # one buffer each, so that all can be donated
        return jnp.zeros((*lead, tiles, length), jnp.float32)

    return VectorState(zeros(len(DECAYS)), zeros(), zeros(len(DECAYS)))


def accumulate_elements(
    state: MatrixState | VectorState, grads: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The elementwise averages after one more gradient: ``momentum`` and ``second``."""
    second = SECOND_DECAY * state.second + (1 - SECOND_DECAY) * grads * grads
    return _average(state.momentum, grads), second


def accumulate_lines(
    state: MatrixState, grads: jax.Array, above: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The averages of rows and columns after one more gradient.

    Args:
        state: averages before.
        grads: (k, *S), float32 and clipped.
        above: (k, *S without its last axis but one) sums of the squared gradient over that axis.
    """
    squares = grads * grads

    def mean(axis: int) -> jax.Array:
        if axis == grads.ndim - 2:
            return above / grads.shape[axis]
        return _mean(squares, axis)

    d1, d0 = (axis + 1 for axis in factored_axes(grads.shape[1:]))
    return _average(state.rows, mean(d0) + TINY), _average(state.columns, mean(d1) + TINY)


def accumulate_vectors(state: VectorState, grads: jax.Array) -> VectorState:
    """The averages after one more gradient, (tiles, 64), float32 and clipped."""
    diagonal = _average(state.diagonal, grads * grads + TINY)
    return VectorState(*accumulate_elements(state, grads), diagonal)


def _mean(x: jax.Array, axis: int) -> jax.Array:
    """The mean over an axis; a short one is written out, which XLA fuses with what follows."""
    length = x.shape[axis]
    if length > _SHORT_AXIS:
        return jnp.mean(x, axis)
    parts = [jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in range(length)]
    return functools.reduce(jnp.add, parts) / length


def _average(old: jax.Array, new: jax.Array) -> jax.Array:
    decay = jnp.asarray(DECAYS).reshape(-1, *[1] * new.ndim)
    return decay * old + (1 - decay) * new
