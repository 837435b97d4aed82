"""Running averages of the gradient and of its square, for a stack of equal-shaped tensors.

Boundary: arithmetic on arrays; knows no network. The averages start at zero and are not corrected
for it.

Moudgil, Knyazev and Belilovsky, "Celo2: Towards Learned Optimization Free Lunch", 2026,
https://arxiv.org/abs/2602.19142; the row and column means are those of Shazeer and Stern,
"Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
https://arxiv.org/abs/1804.04235.
"""

from __future__ import annotations

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
    """Averages of all vectors and scalars, as tiles of 256 elements; padding is arbitrary.

    Attributes:
        momentum: (3, tiles, 256) of the gradient, one for each decay.
        second: (tiles, 256) of the squared gradient.
        diagonal: (3, tiles, 256) of the squared gradient, with the decays of the momenta.
    """

    momentum: jax.Array
    second: jax.Array
    diagonal: jax.Array


TensorState = MatrixState | VectorState


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


def accumulate_matrices(state: MatrixState, grads: jax.Array) -> MatrixState:
    """The averages after one more gradient, (k, *S), float32 and clipped."""
    d1, d0 = factored_axes(grads.shape[1:])
    squares = grads * grads
    rows, columns = (jnp.mean(squares, axis + 1) + TINY for axis in (d0, d1))
    return MatrixState(
        _average(state.momentum, grads),
        SECOND_DECAY * state.second + (1 - SECOND_DECAY) * squares,
        _average(state.rows, rows),
        _average(state.columns, columns),
    )


def accumulate_vectors(state: VectorState, grads: jax.Array) -> VectorState:
    """The averages after one more gradient, (tiles, 256), float32 and clipped."""
    squares = grads * grads
    return VectorState(
        _average(state.momentum, grads),
        SECOND_DECAY * state.second + (1 - SECOND_DECAY) * squares,
        _average(state.diagonal, squares + TINY),
    )


def _average(old: jax.Array, new: jax.Array) -> jax.Array:
    decay = jnp.asarray(DECAYS).reshape(-1, *[1] * new.ndim)
    return decay * old + (1 - decay) * new
