"""Batch normalisation with statistics per group of images.

Boundary: a flax module; it does not depend on devices.

Source: Ioffe, Szegedy, "Batch Normalization" (2015), https://arxiv.org/abs/1502.03167. Programs
that run one batch on several devices often take statistics per device: AlgoPerf's mid-2023 code
does (Dahl et al., "Benchmarking Neural Network Training Algorithms", 2023,
https://arxiv.org/abs/2306.07179). Groups give the same numbers on any number of devices.
"""

# mypy: allow-subclassing-any, allow-untyped-decorators
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike


def of(groups: int) -> Callable[..., Any]:
    """The module for a number of groups; names and shapes are those of flax's ``BatchNorm``."""
    return nn.BatchNorm if groups == 1 else functools.partial(BatchNorm, groups=groups)


class BatchNorm(nn.Module):
    """Normalises each group of consecutive images by itself.

    Running statistics are means over the groups of those per group, as the mean over devices is.

    Attributes:
        groups: number of groups, a divisor of the batch size.
        use_running_average: normalise with the running statistics.
        momentum: weight of the old running statistics at an update, in [0, 1].
        epsilon: added to the variance, > 0.
        dtype: type of the result.
        scale_init: initialiser of the scale.
    """

    groups: int
    use_running_average: bool
    momentum: float
    epsilon: float
    dtype: DTypeLike
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (N, H, W, C) to (N, H, W, C).

        Raises:
            ValueError: in training, the groups do not divide the batch.
        """
        channels = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        scale = self.param("scale", self.scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        if self.use_running_average or self.is_initializing():
            normalised = self._normalised(x, mean.value, var.value)
        else:
            if len(x) % self.groups:
                found = f"got {self.groups}"
                raise ValueError(f"bn_groups: expected a divisor of {len(x)} images, {found}")
            wide = x.reshape(self.groups, -1, *x.shape[1:])
            means, variances = _statistics(wide)
            for running, values in ((mean, means), (var, variances)):
                new = jnp.mean(values, axis=(0, 1, 2, 3))
                running.value = self.momentum * running.value + (1 - self.momentum) * new
            normalised = self._normalised(wide, means, variances).reshape(x.shape)
        y: jax.Array = normalised * scale + bias
        return y.astype(self.dtype)

    def _normalised(self, x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
        return (x.astype(jnp.float32) - mean) * jax.lax.rsqrt(var + self.epsilon)


def _statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of each group (G, n, H, W, C): two of (G, 1, 1, 1, C), float32."""
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=(1, 2, 3), keepdims=True)
    mean_of_squares = jnp.mean(jnp.square(wide), axis=(1, 2, 3), keepdims=True)
    # Rounding may make the difference slightly negative.
    return mean, jnp.maximum(mean_of_squares - jnp.square(mean), 0)
