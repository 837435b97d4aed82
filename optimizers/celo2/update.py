"""The direction of one update: inputs, normalisation, network.

Boundary: a pure function of arrays; ``transform`` cuts tensors into stacks and tiles.

The normalisation is folded into the weights of the first layer. Inputs of a row or a column alone
pass the first layer once per row or column. The rest is written out elementwise, so that XLA makes
one loop of inputs and network.

Moudgil, Knyazev and Belilovsky, "Celo2: Towards Learned Optimization Free Lunch", 2026,
https://arxiv.org/abs/2602.19142.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.celo2.averages import (
    MatrixState,
    VectorState,
    accumulate_elements,
    accumulate_lines,
    factored_axes,
)
from timetrial.optimizers.celo2.network import HIDDEN, NORMALISER, Network
from timetrial.optimizers.celo2.sums import sums

_EPSILON = 1e-8
FACTOR_EPSILON = 1e-9
"""Added to the means of row statistics, and to diagonal statistics."""

_CLIP = 0.1

ELEMENT_INPUTS = (*range(15), 27, 28, 29)
"""The inputs of ``run``, among the thirty."""

LINE_INPUTS = (15, 16, 17, 21, 22, 23), (18, 19, 20, 24, 25, 26)
"""The inputs that are means over d0 and those over d1: each the means, then inverse roots."""

Arrays = Sequence[jax.Array]


def matrix_directions(
    network: Network, state: MatrixState, grads: jax.Array, params: jax.Array
) -> tuple[jax.Array, MatrixState]:
    """One update of a stack of tensors of rank >= 2.

    Args:
        network: the weights.
        state: averages before.
        grads: (k, *S), float32 and clipped.
        params: (k, *S), float32, before the step.

    Returns:
        (k, *S) output of the network, not normalised, and the averages after this gradient.
    """
    momentum, second = accumulate_elements(state, grads)
    arrays = (grads, params, second, *momentum)
    direct, by_column = sums(squares, arrays)
    state = MatrixState(momentum, second, *accumulate_lines(state, grads, by_column))
    d1, d0 = (axis + 1 for axis in factored_axes(grads.shape[1:]))
    rows, columns = jnp.expand_dims(state.rows, d0 + 1), jnp.expand_dims(state.columns, d1 + 1)
    relative = rows / (jnp.mean(rows, d1 + 1, keepdims=True) + FACTOR_EPSILON)
    factors = (*inverse_root(relative), *inverse_root(columns))
    scaled, _ = sums(_scaled_squares, (grads, *momentum, *factors))
    size = grads.shape[-1] * grads.shape[-2]
    direct, scaled, lead = direct / size, scaled / size, grads.shape[:-2]
    of_lines = [
        jnp.broadcast_to(jnp.mean(x * x, (-2, -1)), (3, *lead))
        for x in (rows, _input_root(rows), columns, _input_root(columns))
    ]
    moments = jnp.concatenate([direct[:11], scaled[:3], direct[11:], scaled[3:], *of_lines])
    w0 = folded(network.w0[np.array([*ELEMENT_INPUTS, *LINE_INPUTS[0], *LINE_INPUTS[1]])], moments)
    down, across = _per_line(rows, w0[18:24]), _per_line(columns, w0[24:])
    offsets = [down[h] + across[h] for h in range(HIDDEN)]
    g, p, v, *m = arrays
    scale = [a * b for a, b in zip(factors[:3], factors[3:], strict=True)]
    inputs = element_inputs(g, p, v, m, scale) + [x * y for x, y in zip(m, scale, strict=True)]
    return run(network, inputs, w0[:18, ..., None, None], offsets), state


def vector_direction(
    network: Network,
    state: VectorState,
    grads: jax.Array,
    params: jax.Array,
    inside: jax.Array,
    mean: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """The raw output of the network for tiles of vectors and scalars.

    Args:
        network: the weights.
        state: averages after this gradient.
        grads: (tiles, n), float32 and clipped.
        params: (tiles, n), float32, before the step.
        inside: (tiles, n) True where a tile holds an element of its vector.
        mean: maps sums over tiles (tiles, k) to the means over the vector of each tile (tiles, k).

    Returns:
        (tiles, n), not normalised.
    """
    shape = (len(grads), 8, grads.shape[1] // 8)
    g, p, v, *rest = (
        x.reshape(shape) for x in (grads, params, state.second, *state.momentum, *state.diagonal)
    )
    mask = inside.reshape(shape)

    def inputs(g: jax.Array, p: jax.Array, v: jax.Array, *rest: jax.Array) -> list[jax.Array]:
        scale = [inverse_root(x + FACTOR_EPSILON) for x in rest[3:]]
        return element_inputs(g, p, v, rest[:3], scale)

    def masked(mask: jax.Array, *arrays: jax.Array) -> list[jax.Array]:
        return [jnp.where(mask, x * x, 0.0) for x in inputs(*arrays)]

    moments = mean(sums(masked, (mask, g, p, v, *rest))[0].T).T
    w0 = folded(network.w0[:15], moments)[..., None, None]
    zero = jnp.zeros((), jnp.float32)
    return run(network, inputs(g, p, v, *rest), w0, [zero] * HIDDEN).reshape(grads.shape)


def element_inputs(
    g: jax.Array, p: jax.Array, v: jax.Array, m: Arrays, scale: Arrays
) -> list[jax.Array]:
    """The fifteen inputs of blocks 0 to 8."""
    q = jax.lax.rsqrt(v + _EPSILON)
    scaled = [g * x for x in scale]
    return [g, jnp.clip(g, -_CLIP, _CLIP), p, *m, v, *[x * q for x in m], q, *scaled, g * q]


def squares(g: jax.Array, p: jax.Array, v: jax.Array, *m: jax.Array) -> list[jax.Array]:
    """Squares of inputs 0 to 10 and 14."""
    inverse = 1.0 / (v + _EPSILON)
    clipped = jnp.clip(g, -_CLIP, _CLIP)
    momenta = [x * x for x in m]
    found = [g * g, clipped * clipped, p * p, *momenta, v * v, *[x * inverse for x in momenta]]
    return [*found, inverse, g * g * inverse]


def _scaled_squares(g: jax.Array, *rest: jax.Array) -> list[jax.Array]:
    """Squares of inputs 11 to 13 and 27 to 29."""
    m, a, b = rest[:3], rest[3:6], rest[6:]
    scale = [x * y for x, y in zip(a, b, strict=True)]
    return [(g * x) ** 2 for x in scale] + [(y * x) ** 2 for x, y in zip(scale, m, strict=True)]


def inverse_root(x: jax.Array) -> jax.Array:
    """One over the root of a statistic, which is at least 1e-9."""
    return jax.lax.rsqrt(jnp.maximum(x, 1e-9))


def with_inverse_root(x: jax.Array, axis: int) -> jax.Array:
    """Statistics and their inverse roots, the inputs of a row or a column."""
    return jnp.concatenate([x, _input_root(x)], axis)


def _input_root(x: jax.Array) -> jax.Array:
    """One over the root of a row or column statistic, itself an input."""
    return jax.lax.rsqrt(x + _EPSILON)


def folded(w0: jax.Array, moments: jax.Array) -> jax.Array:
    """Weights by which inputs that are not normalised give the same first layer.

    Args:
        w0: (k, 8).
        moments: (k, *leading axes) mean squares of the inputs.

    Returns:
        (k, 8, *leading axes).
    """
    scale = jax.lax.rsqrt(NORMALISER + moments)
    wide = w0.reshape(*w0.shape, *[1] * (moments.ndim - 1))
    return wide * scale[:, None]


def _per_line(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Part of the inputs of rows or columns in the first layer, (8, ...) once per row or column.

    A product of matrices, because XLA would repeat elementwise arithmetic for every element.
    """
    highest = jax.lax.Precision.HIGHEST
    x = with_inverse_root(x, 0)
    return jnp.einsum("i...rc,ih...->h...rc", x, weights, precision=highest)


def _affine(x: Arrays | jax.Array, weights: jax.Array) -> list[jax.Array]:
    """Sums of k inputs times (k, 8, ...) weights, by hidden unit."""
    found = []
    for h in range(HIDDEN):
        y = x[0] * weights[0, h]
        for i in range(1, weights.shape[0]):
            y = y + x[i] * weights[i, h]
        found.append(y)
    return found


def run(network: Network, inputs: Arrays, w0: jax.Array, offsets: Arrays) -> jax.Array:
    """The network, its first layer from inputs and from what is known of it already."""
    first = [
        jax.nn.relu(x + (offset + network.b0[h]))
        for h, (x, offset) in enumerate(zip(_affine(inputs, w0), offsets, strict=True))
    ]
    second = [jax.nn.relu(x + network.b1[h]) for h, x in enumerate(_affine(first, network.w1))]
    out = network.b2
    for h, x in enumerate(second):
        out = out + x * network.w2[h]
    return out
