"""Persistent evolution strategies: gradients of summed losses of runs made piece by piece.

Pure: perturbations, losses and gradients as arrays; knows no optimizer and no task.

Vicol, Metz and Sohl-Dickstein, "Unbiased Gradient Estimation in Unrolled Computation Graphs with
Persistent Evolution Strategies", 2021, https://arxiv.org/abs/2112.13835.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_LARGEST_DIFFERENCE = 3.0


def perturbations(key: jax.Array, pairs: int, size: int, sigma: float | jax.Array) -> jax.Array:
    """Normal perturbations (pairs, size) of standard deviation sigma."""
    return sigma * jax.random.normal(key, (pairs, size))


def antithetic(vector: jax.Array, perturbation: jax.Array) -> jax.Array:
    """The two vectors (2, size) of a pair: with the perturbation (size,) added and subtracted."""
    return jnp.stack([vector + perturbation, vector - perturbation])


def estimates(losses: jax.Array, accumulated: jax.Array, sigma: float | jax.Array) -> jax.Array:
    """Estimate of the gradient by every pair, unbiased for smoothed losses.

    The sum over all pieces of a run estimates the gradient of the sum of its losses.

    Args:
        losses: (pairs, 2) of this piece of the run, plus and minus.
        accumulated: (pairs, size) sum of the run's perturbations, this piece's included.
        sigma: standard deviation of the perturbation of one piece.

    Returns:
        (pairs, size).
    """
    return (losses[:, :1] - losses[:, 1:]) * accumulated / (2.0 * sigma**2)


def normalised(losses: jax.Array, scale: jax.Array) -> jax.Array:
    """Losses in units of the family's usual difference within pairs, outliers cut.

    Args:
        losses: (pairs, 2).
        scale: scalar, root mean square of the differences.

    Returns:
        (pairs, 2), each pair centred on 0, its difference in [-3, 3].
    """
    difference = (losses[:, 0] - losses[:, 1]) / jnp.maximum(scale, 1e-8)
    half = 0.5 * jnp.clip(difference, -_LARGEST_DIFFERENCE, _LARGEST_DIFFERENCE)
    return jnp.stack([half, -half], axis=1)
