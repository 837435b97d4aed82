"""Max pooling of 3x3 windows with a gradient that scatters nothing.

Boundary: pure functions of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

_Saved = tuple[jax.Array, jax.Array]


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Maxima of 3x3 windows, stride 2, padding 1: (N, H, W, C) to (N, ceil(H/2), ceil(W/2), C).

    As flax's ``max_pool``; the gradient goes to the first maximum of a window, too. It is a sum of
    shifted arrays here. XLA's gradient searches every window again and scatters.
    """
    y: jax.Array = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    return y


def _forward(x: jax.Array) -> tuple[jax.Array, _Saved]:
    rows, columns = ((side + 1) // 2 for side in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=-jnp.inf)
    parts = [
        padded[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] for i in range(3) for j in range(3)
    ]
    best, place = parts[0], jnp.zeros(parts[0].shape, jnp.int8)
    for k, part in enumerate(parts[1:], start=1):
        place = jnp.where(part > best, jnp.int8(k), place)
        best = jnp.maximum(best, part)
    return best, (place, x)


def _backward(saved: _Saved, gradient: jax.Array) -> tuple[jax.Array]:
    place, x = saved
    shares = [jnp.where(place == k, gradient, 0) for k in range(9)]
    lines = [_interleaved(shares[3 * i : 3 * i + 3], axis=2) for i in range(3)]
    padded = _interleaved(lines, axis=1)
    return (padded[:, 1 : x.shape[1] + 1, 1 : x.shape[2] + 1],)


def _interleaved(parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Adds element i of part k to place 2i + k; n elements give 2n + 2 places."""

    def padded(values: jax.Array, before: int, after: int) -> jax.Array:
        widths = [(0, 0)] * values.ndim
        widths[axis] = (before, after)
        return jnp.pad(values, widths)

    first, middle, last = parts
    even = padded(first, 0, 1) + padded(last, 1, 0)
    both = jnp.stack((even, padded(middle, 0, 1)), axis + 1)
    return both.reshape(*even.shape[:axis], -1, *even.shape[axis + 1 :])


max_pool.defvjp(_forward, _backward)
