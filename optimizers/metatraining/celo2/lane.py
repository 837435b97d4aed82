"""Celo2's direction in one lane: all tensors as one flat array, one product per layer.

Boundary: pure functions of one lane's arrays; ``rule`` adds rate and schedule. XLA compiles one
network whatever the number of tensors, which suits many lanes of small models.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.celo2.averages import DECAYS, SECOND_DECAY, Shape, factored_axes
from timetrial.optimizers.celo2.orthogonal import orthogonalized
from timetrial.optimizers.metatraining.celo2.vector import INPUTS, Theta

_LARGEST_GRADIENT, _SMALL_GRADIENT = 1e3, 0.1
_COMMON = 15
"""Inputs that every tensor has; matrices have the other 15, too."""


class Celo2State(NamedTuple):
    """Averages of gradients and of their squares; N elements, V of them of rank 0 or 1.

    Flat arrays hold the tensors of rank >= 2 first.

    Attributes:
        momenta: (3, N), decays 0.9, 0.99 and 0.999.
        squares: (N,), decay 0.95.
        rows, columns: per tensor of rank >= 2, (3, ...) means of squares over the largest and over
            the second largest axis, which has size 1; decays as of the momenta.
        diagonals: (3, V), squares of the others.
    """

    momenta: jax.Array
    squares: jax.Array
    rows: tuple[jax.Array, ...]
    columns: tuple[jax.Array, ...]
    diagonals: jax.Array


def init_state(shapes: Sequence[Shape]) -> Celo2State:
    """The state before the first step: zeros."""
    matrices = [shape for shape in shapes if len(shape) >= 2]
    vectors = sum(math.prod(shape) for shape in shapes if len(shape) < 2)
    total = sum(math.prod(shape) for shape in shapes)

    def factors(which: int) -> tuple[jax.Array, ...]:
        axes = [factored_axes(shape)[which] for shape in matrices]
        return tuple(
            jnp.zeros((3, *shape[:axis], 1, *shape[axis + 1 :]))
            for axis, shape in zip(axes, matrices, strict=True)
        )

    return Celo2State(
        jnp.zeros((3, total)), jnp.zeros(total), factors(1), factors(0), jnp.zeros((3, vectors))
    )


def directions(
    theta: Theta,
    state: Celo2State,
    grads: Sequence[jax.Array],
    params: Sequence[jax.Array],
    orthogonalize: bool = False,
) -> tuple[list[jax.Array], Celo2State]:
    """One step of Celo2 without its rate.

    Args:
        theta: the network.
        state: before the step.
        grads: of all tensors, of any ranks.
        params: the tensors before the step.
        orthogonalize: five Newton-Schulz iterations on the output of matrices.

    Returns:
        The directions, of the shapes of the gradients: along the gradient, with root mean square 1
        over the last two axes. And the new state.
    """
    order = sorted(range(len(grads)), key=lambda i: grads[i].ndim < 2)
    shapes = [grads[i].shape for i in order]
    g = jnp.clip(_flat([grads[i] for i in order]), -_LARGEST_GRADIENT, _LARGEST_GRADIENT)
    state, row, column, factor = _accumulate(state, g, shapes)
    p = _flat([params[i] for i in order])
    outputs = _network(theta, _inputs(g, p, state, row, column, factor), shapes)
    found: list[jax.Array] = list(grads)
    for i, shape, output in zip(order, shapes, outputs, strict=True):
        if orthogonalize and len(shape) >= 2:
            output = _normalised(orthogonalized(output.reshape(shape)).reshape(output.shape))
        found[i] = output.reshape(shape)
    return found, state


def _flat(tensors: Sequence[jax.Array]) -> jax.Array:
    return jnp.concatenate([x.astype(jnp.float32).reshape(-1) for x in tensors])


def _pieces(flat: jax.Array, shapes: Sequence[Shape]) -> list[jax.Array]:
    """Parts (..., size) of the last axis, one per tensor."""
    ends = itertools.accumulate(math.prod(shape) for shape in shapes)
    return jnp.split(flat, list(ends)[:-1], axis=-1)


def _averaged(old: jax.Array, new: jax.Array) -> jax.Array:
    """Averages (3, ...) of the three decays after one more value."""
    decay = DECAYS.reshape(3, *[1] * (old.ndim - 1))
    return old * decay + new * (np.float32(1.0) - decay)


def _safe_rsqrt(x: jax.Array) -> jax.Array:
    return jax.lax.rsqrt(jnp.maximum(x, 1e-9))


def _accumulate(
    state: Celo2State, g: jax.Array, shapes: Sequence[Shape]
) -> tuple[Celo2State, jax.Array, jax.Array, jax.Array]:
    """The new state; rows and columns (3, N - V) and factors (3, N), one entry per element."""
    s = g * g + 1e-30
    matrices = [shape for shape in shapes if len(shape) >= 2]
    count = sum(math.prod(shape) for shape in matrices)
    new_rows, new_columns, row, column, factor = [], [], [], [], []
    for piece, shape, old_r, old_c in zip(
        _pieces(s[:count], matrices) if matrices else (),
        matrices,
        state.rows,
        state.columns,
        strict=True,
    ):
        second, first = factored_axes(shape)
        r = _averaged(old_r, piece.reshape(shape).mean(first, keepdims=True))
        c = _averaged(old_c, piece.reshape(shape).mean(second, keepdims=True))
        scale = _safe_rsqrt(r / (r.mean(second + 1, keepdims=True) + 1e-9)) * _safe_rsqrt(c)
        new_rows.append(r)
        new_columns.append(c)
        factor.append(scale.reshape(3, -1))
        row.append(jnp.broadcast_to(r, (3, *shape)).reshape(3, -1))
        column.append(jnp.broadcast_to(c, (3, *shape)).reshape(3, -1))
    diagonals = _averaged(state.diagonals, s[count:])
    factor.append(_safe_rsqrt(diagonals + 1e-9))
    new = Celo2State(
        _averaged(state.momenta, g),
        SECOND_DECAY * state.squares + (np.float32(1.0) - SECOND_DECAY) * g * g,
        tuple(new_rows),
        tuple(new_columns),
        diagonals,
    )
    none = [jnp.zeros((3, 0))]
    rows, columns = (jnp.concatenate(x or none, axis=1) for x in (row, column))
    return new, rows, columns, jnp.concatenate(factor, axis=1)


def _inputs(
    g: jax.Array,
    p: jax.Array,
    state: Celo2State,
    row: jax.Array,
    column: jax.Array,
    factor: jax.Array,
) -> jax.Array:
    """The inputs of the network, (30, N); vectors have zeros in the last 15."""
    m, v = state.momenta, state.squares
    q = jax.lax.rsqrt(v + 1e-8)
    small = jnp.clip(g, -_SMALL_GRADIENT, _SMALL_GRADIENT)
    common = jnp.concatenate(
        [jnp.stack([g, small, p]), m, v[None], m * q, q[None], g * factor, (g * q)[None]]
    )
    count = row.shape[1]
    of_matrices = jnp.concatenate(
        [
            row,
            column,
            jax.lax.rsqrt(row + 1e-8),
            jax.lax.rsqrt(column + 1e-8),
            m[:, :count] * factor[:, :count],
        ]
    )
    padded = jnp.pad(of_matrices, ((0, 0), (0, g.size - count)))
    return jnp.concatenate([common, padded])


def _normalised(x: jax.Array) -> jax.Array:
    """Divided by the root mean square over the last axis."""
    return x * jax.lax.rsqrt(1e-9 + jnp.mean(x * x, axis=-1, keepdims=True))


def _network(theta: Theta, inputs: jax.Array, shapes: Sequence[Shape]) -> list[jax.Array]:
    """Outputs (groups, elements) of every tensor; a group is what the last two axes index."""
    groups = [math.prod(shape[-2:]) for shape in shapes]
    pieces = zip(_pieces(inputs, shapes), groups, strict=True)
    even = [_normalised(x.reshape(INPUTS, -1, n)).reshape(INPUTS, -1) for x, n in pieces]
    h = jax.nn.relu(theta.w0.T @ jnp.concatenate(even, axis=1) + theta.b0[:, None])
    h = jax.nn.relu(theta.w1.T @ h + theta.b1[:, None])
    outputs = _pieces(theta.w2 @ h + theta.b2, shapes)
    return [_normalised(x.reshape(-1, n)) for x, n in zip(outputs, groups, strict=True)]
