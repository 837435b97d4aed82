"""Celo2's meta-parameters as one vector, and the starts of a meta-training.

Boundary: arrays and names; ``lane`` computes updates with them, files are read elsewhere.

The network has 30 inputs, two hidden layers of 8 ReLUs and 3 outputs: 347 numbers. Outputs 1 and 2
are unused. The vector holds the other 329 numbers; the 18 unused ones are written as 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLOCK_WIDTHS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
"""Inputs by block; block j has the weights ``w0__j``."""

INPUTS, WIDTH, OUTPUTS = sum(BLOCK_WIDTHS), 8, 3

MOMENTUM_OVER_RMS, MOMENTUM_OVER_FACTORS = 7, 27
"""Columns of the fastest momentum over the root of the second moment: of each element as in Adam,
factored as in Adafactor."""


class Theta(NamedTuple):
    """The weights of the network, (inputs, outputs), and its biases; of the last layer output 0."""

    w0: jax.Array
    b0: jax.Array
    w1: jax.Array
    b1: jax.Array
    w2: jax.Array
    b2: jax.Array


_SHAPES: dict[str, tuple[int, ...]] = {
    "w0": (INPUTS, WIDTH),
    "b0": (WIDTH,),
    "w1": (WIDTH, WIDTH),
    "b1": (WIDTH,),
    "w2": (WIDTH,),
    "b2": (),
}

LIVE_NUMBERS = sum(math.prod(shape) for shape in _SHAPES.values())
"""Size of the vector."""


def theta_of(vector: jax.Array) -> Theta:
    """The network of a vector (329,)."""
    shapes = list(_SHAPES.values())
    ends = itertools.accumulate(math.prod(shape) for shape in shapes)
    parts = jnp.split(vector, list(ends)[:-1])
    return Theta(*(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)))


def vector_of(theta: Theta) -> jax.Array:
    """The inverse of ``theta_of``."""
    return jnp.concatenate([jnp.asarray(part, jnp.float32).reshape(-1) for part in theta])


def to_meta_params(vector: Any) -> dict[str, Any]:
    """The tree of the published container, float32; unused outputs are 0."""
    theta = {
        name: np.asarray(part, np.float32)
        for name, part in theta_of(jnp.asarray(vector))._asdict().items()
    }
    blocks = np.split(theta["w0"], np.cumsum(BLOCK_WIDTHS)[:-1])
    w2, b2 = np.zeros((WIDTH, OUTPUTS), np.float32), np.zeros(OUTPUTS, np.float32)
    w2[:, 0], b2[0] = theta["w2"], theta["b2"]
    layers = {f"w0__{j}": block for j, block in enumerate(blocks)}
    layers |= {name: theta[name] for name in ("b0", "w1", "b1")} | {"w2": w2, "b2": b2}
    return {"ff_mod_stack": {"~": layers}}


def from_meta_params(meta_params: Mapping[str, Any]) -> jax.Array:
    """The vector (329,) of a tree of the published container."""
    layers = meta_params["ff_mod_stack"]["~"]
    w0 = jnp.concatenate([layers[f"w0__{j}"] for j in range(len(BLOCK_WIDTHS))])
    w2, b2 = layers["w2"][:, 0], layers["b2"][0]
    return vector_of(Theta(w0, layers["b0"], layers["w1"], layers["b1"], w2, b2))


def hand_made() -> jax.Array:
    """Weights (30,) of a linear rule made by hand: the mean of Adam's and Adafactor's directions.

    It uses the fastest momentum, of decay 0.9.
    """
    weights = np.zeros(INPUTS, np.float32)
    weights[[MOMENTUM_OVER_RMS, MOMENTUM_OVER_FACTORS]] = 0.5
    return jnp.asarray(weights)


def of_linear(weights: jax.Array) -> jax.Array:
    """The vector of the network whose output is a linear function of its inputs.

    A ReLU passes one sign only: two pairs of units carry the positive and the negative part.

    Args:
        weights: (30,) of the inputs.
    """
    signs = jnp.array([1.0, -1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0])
    zeros = jnp.zeros(WIDTH)
    w0, w1 = weights[:, None] * signs, jnp.diag(jnp.abs(signs))
    return vector_of(Theta(w0, zeros, w1, zeros, signs / 2.0, jnp.zeros(())))


def with_noise(vector: jax.Array, seed: int, size: float = 0.03) -> jax.Array:
    """A vector with normal noise: it makes equal units different and wakes unused ones."""
    noise = np.random.default_rng(seed).standard_normal(vector.shape)
    return vector + jnp.asarray(size * noise, jnp.float32)


def random_start(seed: int) -> jax.Array:
    """A random vector: weights of variance 1 / inputs, biases 0."""
    rng = np.random.default_rng(seed)
    made = {
        name: rng.standard_normal(shape) / math.sqrt(shape[0]) if name[0] == "w" else 0.0
        for name, shape in _SHAPES.items()
    }
    return vector_of(
        Theta(**{name: jnp.broadcast_to(jnp.asarray(x), _SHAPES[name]) for name, x in made.items()})
    )
