"""ResNet v1 for image classification, with its loss and top-1 accuracy, as AlgoPerf trains it.

Boundary: pure functions and a flax module; independent of data set and image size.

Sources: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (2015),
https://arxiv.org/abs/1512.03385; the stride sits in the 3x3 convolution ("v1.5"). Names, shapes
and initialisation: Dahl et al., "Benchmarking Neural Network Training Algorithms" (2023),
https://arxiv.org/abs/2306.07179, workload ``imagenet_resnet`` of
https://github.com/mlcommons/algorithmic-efficiency.
"""

# mypy: allow-subclassing-any, allow-untyped-decorators
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from timetrial.workloads.models import batch_norm, pooling

_Layer = Callable[..., Any]


class Conv(nn.Module):
    """1x1 convolution without bias as a product of matrices; parameters as flax's ``Conv``.

    XLA computes the gradient of a kernel as a convolution; on CPUs it first transposes the images.
    """

    features: int
    strides: tuple[int, int]
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (N, H, W, C) to (N, H/stride, W/stride, features)."""
        shape = (1, 1, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        strided = x[:, :: self.strides[0], :: self.strides[1]]
        y: jax.Array = strided.astype(self.dtype) @ kernel[0, 0].astype(self.dtype)
        return y


def _fast_conv(
    features: int,
    size: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    *,
    dtype: DTypeLike,
    name: str | None = None,
    **settings: Any,
) -> nn.Module:
    if size == (1, 1):
        return Conv(features, strides, dtype, name=name)
    return nn.Conv(features, size, strides, use_bias=False, dtype=dtype, name=name, **settings)


class ResNetBlock(nn.Module):
    """Basic block: two 3x3 convolutions and a shortcut; the first convolution is strided."""

    filters: int
    strides: tuple[int, int]
    conv: _Layer
    norm: _Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (N, H, W, C) to (N, H/stride, W/stride, filters)."""
        y = self.conv(self.filters, (3, 3), self.strides)(x)
        y = jax.nn.relu(self.norm()(y))
        y = self.conv(self.filters, (3, 3))(y)
        y = self.norm(scale_init=nn.initializers.zeros)(y)
        return jax.nn.relu(y + _shortcut(x, y, self.strides, self.conv, self.norm))


class BottleneckResNetBlock(nn.Module):
    """Bottleneck block: 1x1, 3x3 (strided) and 1x1 convolutions, 4x the filters, shortcut."""

    filters: int
    strides: tuple[int, int]
    conv: _Layer
    norm: _Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (N, H, W, C) to (N, H/stride, W/stride, 4 * filters)."""
        y = self.conv(self.filters, (1, 1))(x)
        y = jax.nn.relu(self.norm()(y))
        y = self.conv(self.filters, (3, 3), self.strides)(y)
        y = jax.nn.relu(self.norm()(y))
        y = self.conv(4 * self.filters, (1, 1))(y)
        y = self.norm(scale_init=nn.initializers.zeros)(y)
        return jax.nn.relu(y + _shortcut(x, y, self.strides, self.conv, self.norm))


def _shortcut(
    x: jax.Array, y: jax.Array, strides: tuple[int, int], conv: _Layer, norm: _Layer
) -> jax.Array:
    """Returns ``x``, projected to the shape of ``y`` if that differs."""
    if x.shape == y.shape and strides == (1, 1):
        return x
    x = conv(y.shape[-1], (1, 1), strides, name="Conv_proj")(x)
    projected: jax.Array = norm(name="BatchNorm_proj")(x)
    return projected


class ResNet(nn.Module):
    """Residual network; see ``make_model`` for the settings and ``__call__`` for the shapes."""

    stage_sizes: tuple[int, ...]
    num_filters: int
    num_classes: int
    bottleneck: bool
    small_inputs: bool
    bn_groups: int
    dtype: DTypeLike
    fast: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns class logits.

        Args:
            x: images (N, H, W, C), normalised.
            train: normalise with batch statistics and update running statistics (collection
                ``batch_stats``, to be passed as ``mutable``).

        Returns:
            Logits (N, num_classes) float32.
        """
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        if self.fast:
            conv = functools.partial(_fast_conv, dtype=self.dtype)
        norm = functools.partial(
            batch_norm.of(self.bn_groups),
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
        )
        if self.small_inputs:
            x = conv(self.num_filters, (3, 3), name="Conv_init")(x)
        else:
            x = conv(self.num_filters, (7, 7), (2, 2), padding=((3, 3), (3, 3)), name="Conv_init")(
                x
            )
        x = jax.nn.relu(norm(name="BatchNorm_init")(x))
        if not self.small_inputs and self.fast:
            x = pooling.max_pool(x)
        elif not self.small_inputs:
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        block = BottleneckResNetBlock if self.bottleneck else ResNetBlock
        for stage, size in enumerate(self.stage_sizes):
            for position in range(size):
                strides = (2, 2) if stage > 0 and position == 0 else (1, 1)
                x = block(self.num_filters * 2**stage, strides, conv, norm)(x)
        x = jnp.mean(x, axis=(1, 2))
        kernel_init = nn.initializers.normal(0.01)
        logits: jax.Array = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=kernel_init)(x)
        return logits.astype(jnp.float32)


def make_model(
    *,
    stage_sizes: Sequence[int] = (3, 4, 6, 3),
    num_filters: int = 64,
    num_classes: int = 1000,
    bottleneck: bool = True,
    small_inputs: bool = False,
    bn_groups: int = 1,
    dtype: DTypeLike = jnp.float32,
    fast: bool = False,
) -> nn.Module:
    """Builds a ResNet; the defaults are AlgoPerf's ResNet-50 (25,557,032 parameters).

    Call it as ``model.apply(variables, x, train=...)`` with ``x`` of shape (N, H, W, C); in
    training mode pass ``mutable=["batch_stats"]``.

    Args:
        stage_sizes: number of blocks per stage; every stage but the first halves the resolution.
        num_filters: width of the first stage, doubled from stage to stage.
        num_classes: number of logits.
        bottleneck: bottleneck blocks (ResNet-50 and deeper) instead of basic ones.
        small_inputs: stem for images of about 32 pixels: a 3x3 convolution of stride 1, no max
            pooling (section 4.2 of the ResNet paper). The default stem is a 7x7 convolution of
            stride 2 and 3x3 max pooling of stride 2.
        bn_groups: groups of consecutive images that share batch statistics; 1 is the whole batch.
        dtype: type of the layers; parameters, statistics and logits are float32.
        fast: 1x1 convolutions as products of matrices, and max pooling with a gradient of its own.
            The same function in less time, up to rounding.

    Raises:
        ValueError: a size is not positive, or ``stage_sizes`` is empty.
    """
    stage_sizes = tuple(stage_sizes)
    if not stage_sizes or min(stage_sizes) < 1:
        raise ValueError(f"stage_sizes: expected one or more numbers >= 1, got {stage_sizes}")
    for name, value in (
        ("num_filters", num_filters),
        ("num_classes", num_classes),
        ("bn_groups", bn_groups),
    ):
        if value < 1:
            raise ValueError(f"{name}: expected a number >= 1, got {value}")
    sizes = (stage_sizes, num_filters, num_classes)
    return ResNet(*sizes, bottleneck, small_inputs, bn_groups, dtype, fast)


def softmax_cross_entropy(
    logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Softmax cross-entropy of every example, in nats.

    Args:
        logits: (N, C).
        labels: class indices (N,), integers in [0, C).
        label_smoothing: share ``a`` in [0, 1] of the target spread evenly over all ``C`` classes:
            ``(1 - a) * onehot + a / C``.

    Returns:
        Losses (N,).
    """
    log_p = jax.nn.log_softmax(logits)
    losses = -jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * jnp.mean(log_p, axis=-1)
    return losses


def top1_correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1.0 where the largest of ``logits`` (N, C) is at the index in ``labels`` (N,), else 0.0."""
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
