"""U-Net for image reconstruction, with its L1 loss, as AlgoPerf trains it on fastMRI.

Boundary: pure functions and a flax module; the SSIM metric is in ``metrics``.

Sources: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation" (2015), https://arxiv.org/abs/1505.04597; Zbontar et al., "fastMRI" (2018),
https://arxiv.org/abs/1811.08839. Names, shapes and initialisation: Dahl et al., "Benchmarking
Neural Network Training Algorithms" (2023), https://arxiv.org/abs/2306.07179, workload ``fastmri``
of https://github.com/mlcommons/algorithmic-efficiency.
"""

# mypy: allow-subclassing-any, allow-untyped-decorators
from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike


def _normalise_and_activate(x: jax.Array) -> jax.Array:
    """Instance norm without affine (per image and channel), then leaky ReLU of slope 0.2."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = jnp.mean(wide, axis=(1, 2), keepdims=True)
    mean_of_squares = jnp.mean(jnp.square(wide), axis=(1, 2), keepdims=True)
    # Rounding may make the difference slightly negative.
    variance = jnp.maximum(mean_of_squares - jnp.square(mean), 0)
    normalised = (wide - mean) / jnp.sqrt(variance + 1e-5)
    return jax.nn.leaky_relu(normalised, 0.2).astype(x.dtype)


class ConvBlock(nn.Module):
    """3x3 convolution, instance norm, leaky ReLU and dropout of whole channels, twice."""

    channels: int
    dropout_rate: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps (N, H, W, C) to (N, H, W, channels)."""
        for _ in range(2):
            x = nn.Conv(self.channels, (3, 3), use_bias=False, dtype=self.dtype)(x)
            x = _normalise_and_activate(x)
            x = nn.Dropout(self.dropout_rate, broadcast_dims=(1, 2), deterministic=not train)(x)
        return x


class ConvTranspose(nn.Module):
    """2x2 transposed convolution of stride 2 without bias; AlgoPerf uses flax's ConvTranspose.

    Windows do not overlap, so it is one matrix product per pixel. On CPUs its gradient takes a
    tenth of the time of the gradient of the convolution.
    """

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (N, H, W, C) to (N, 2H, 2W, channels)."""
        n, height, width, depth = x.shape
        shape = (2, 2, depth, self.channels)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        # A transposed convolution mirrors its kernel.
        y = jnp.einsum("nhwc,ijcd->nhiwjd", x, kernel[::-1, ::-1].astype(x.dtype))
        return y.reshape(n, 2 * height, 2 * width, self.channels)


class TransposeConvBlock(nn.Module):
    """Doubles the resolution: 2x2 transposed convolution, instance norm, leaky ReLU."""

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (N, H, W, C) to (N, 2H, 2W, channels)."""
        return _normalise_and_activate(ConvTranspose(self.channels)(x))


class UNet(nn.Module):
    """U-Net; see ``make_model`` for the settings and ``__call__`` for the shapes."""

    channels: int
    num_pool_layers: int
    dropout_rate: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns reconstructed images.

        Args:
            x: images (N, H, W), H and W at least ``2**num_pool_layers``, even or odd.
            train: apply dropout (needs ``rngs={"dropout": key}`` when the rate is not 0).

        Returns:
            Images (N, H, W) float32.
        """
        if min(x.shape[1:]) < 2**self.num_pool_layers:
            raise ValueError(
                f"images of a U-Net with num_pool_layers={self.num_pool_layers}: expected at least "
                f"{2**self.num_pool_layers} pixels along each side, got {x.shape[1:]}"
            )
        x = x[..., None]
        skips = []
        for level in range(self.num_pool_layers):
            x = ConvBlock(self.channels * 2**level, self.dropout_rate, self.dtype)(x, train=train)
            skips.append(x)
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        width = self.channels * 2**self.num_pool_layers
        x = ConvBlock(width, self.dropout_rate, self.dtype)(x, train=train)
        for skip in reversed(skips):
            width //= 2
            x = TransposeConvBlock(width)(x)
            # Pooling drops the last row or column of an odd side: reflection restores it.
            missing = [(0, skip.shape[axis] - x.shape[axis]) for axis in (1, 2)]
            x = jnp.pad(x, ((0, 0), *missing, (0, 0)), mode="reflect")
            x = jnp.concatenate((x, skip), axis=-1)
            x = ConvBlock(width, self.dropout_rate, self.dtype)(x, train=train)
        images: jax.Array = nn.Conv(1, (1, 1), dtype=self.dtype)(x)[..., 0]
        return images.astype(jnp.float32)


def make_model(
    *,
    channels: int = 32,
    num_pool_layers: int = 4,
    dropout_rate: float = 0.0,
    dtype: DTypeLike = jnp.float32,
) -> nn.Module:
    """Builds a U-Net; the defaults are AlgoPerf's fastMRI model (7,756,097 parameters).

    Call it as ``model.apply(variables, x, train=..., rngs={"dropout": key})`` with ``x`` of shape
    (N, H, W); the result has the same shape.

    Args:
        channels: width at full resolution, doubled at every level below.
        num_pool_layers: number of times the resolution is halved.
        dropout_rate: dropout probability of a channel, in [0, 1).
        dtype: type of convolutions; parameters, statistics and results are float32.

    Raises:
        ValueError: a size is not positive or the rate is outside [0, 1).
    """
    for name, value in (("channels", channels), ("num_pool_layers", num_pool_layers)):
        if value < 1:
            raise ValueError(f"{name}: expected a number >= 1, got {value}")
    if not 0 <= dropout_rate < 1:
        raise ValueError(f"dropout_rate: expected a number in [0, 1), got {dropout_rate}")
    return UNet(channels, num_pool_layers, dropout_rate, dtype)


def l1_loss(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean absolute error of every image: (N, H, W) and (N, H, W) to (N,)."""
    return jnp.mean(jnp.abs(outputs - targets), axis=tuple(range(1, outputs.ndim)))
