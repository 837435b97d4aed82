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

from timetrial.optimizers.celo2.averages import MatrixState, VectorState, factored_axes
from timetrial.optimizers.celo2.network import HIDDEN, NORMALISER, Network
from timetrial.optimizers.celo2.sums import sums

_EPSILON = 1e-8
_FACTOR_EPSILON = 1e-9
_CLIP = 0.1
_ROW, _COLUMN = (np.array([i, i + 1, i + 2, i + 6, i + 7, i + 8]) for i in (15, 18))
_SCALED_MOMENTUM = np.array([27, 28, 29])

Arrays = Sequence[jax.Array]


def matrix_direction(
    network: Network, state: MatrixState, grads: jax.Array, params: jax.Array
) -> jax.Array:
    """The raw output of the network for a stack of tensors of rank >= 2.

    Args:
        network: the weights.
        state: averages after this gradient.
        grads: (k, *S), float32 and clipped.
        params: (k, *S), float32, before the step.

    Returns:
        (k, *S), not normalised.
    """
    d1, d0 = (axis + 1 for axis in factored_axes(grads.shape[1:]))
    rows, columns = jnp.expand_dims(state.rows, d0 + 1), jnp.expand_dims(state.columns, d1 + 1)
    relative = rows / (jnp.mean(rows, d1 + 1, keepdims=True) + _FACTOR_EPSILON)
    factors = (*_inverse_root(relative), *_inverse_root(columns))
    arrays = (grads, params, state.second, *state.momentum)
    lead, size = grads.shape[:-2], grads.shape[-1] * grads.shape[-2]

    direct = sums(_squares, arrays) / size
    scaled = sums(_scaled_squares, (grads, *state.momentum, *factors)) / size
    by_row, by_column = (_with_inverse_root(x) for x in (rows, columns))
    of_rows, of_columns = (
        jnp.broadcast_to(jnp.mean(x * x, (-2, -1)), (6, *lead)) for x in (by_row, by_column)
    )
    moments = [direct[:11], scaled[:3], direct[11:], of_rows[:3], of_columns[:3]]
    moments += [of_rows[3:], of_columns[3:], scaled[3:]]
    w0 = _folded(network.w0, jnp.concatenate(moments))
    down, across = _affine(by_row, w0[_ROW]), _affine(by_column, w0[_COLUMN])
    offsets = [down[h] + across[h] for h in range(HIDDEN)]
    g, p, v, *m = arrays
    scale = [a * b for a, b in zip(factors[:3], factors[3:], strict=True)]
    inputs = _inputs(g, p, v, m, scale) + [x * y for x, y in zip(m, scale, strict=True)]
    used = np.concatenate([np.arange(15), _SCALED_MOMENTUM])
    return _run(network, inputs, w0[used], offsets)


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
    scale = _inverse_root(state.diagonal + _FACTOR_EPSILON)
    inputs = _inputs(grads, params, state.second, list(state.momentum), list(scale))
    squares = jnp.stack([jnp.where(inside, x * x, 0.0).sum(-1) for x in inputs], axis=1)
    w0 = _folded(network.w0[:15], mean(squares).T)[..., 0]
    zero = jnp.zeros((), jnp.float32)
    return _run(network, inputs, w0, [zero] * HIDDEN)


def _inputs(g: jax.Array, p: jax.Array, v: jax.Array, m: Arrays, scale: Arrays) -> list[jax.Array]:
    """The fifteen inputs of blocks 0 to 8."""
    q = jax.lax.rsqrt(v + _EPSILON)
    scaled = [g * x for x in scale]
    return [g, jnp.clip(g, -_CLIP, _CLIP), p, *m, v, *[x * q for x in m], q, *scaled, g * q]


def _squares(g: jax.Array, p: jax.Array, v: jax.Array, *m: jax.Array) -> list[jax.Array]:
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


def _inverse_root(x: jax.Array) -> jax.Array:
    return jax.lax.rsqrt(jnp.maximum(x, 1e-9))


def _with_inverse_root(x: jax.Array) -> jax.Array:
    return jnp.concatenate([x, jax.lax.rsqrt(x + _EPSILON)])


def _folded(w0: jax.Array, moments: jax.Array) -> jax.Array:
    """Weights by which inputs that are not normalised give the same first layer.

    Args:
        w0: (k, 8).
        moments: (k, *leading axes) mean squares of the inputs.

    Returns:
        (k, 8, *leading axes, 1, 1).
    """
    scale = jax.lax.rsqrt(NORMALISER + moments)
    wide = w0.reshape(*w0.shape, *[1] * (moments.ndim - 1))
    return (wide * scale[:, None])[..., None, None]


def _affine(x: Arrays | jax.Array, weights: jax.Array) -> list[jax.Array]:
    """Sums of k inputs times (k, 8, ...) weights, by hidden unit."""
    found = []
    for h in range(HIDDEN):
        y = x[0] * weights[0, h]
        for i in range(1, weights.shape[0]):
            y = y + x[i] * weights[i, h]
        found.append(y)
    return found


def _run(network: Network, inputs: Arrays, w0: jax.Array, offsets: Arrays) -> jax.Array:
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
