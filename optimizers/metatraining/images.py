"""Families of small convolutional networks: a residual classifier with batch norm, a denoiser.

Boundary: synthetic 8 x 8 images; ``tasks`` defines a family. Convolutions are products with shifted
copies: vectorised over lanes with their own kernels, convolutions become grouped ones, which are
slow on CPUs.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from timetrial.optimizers.metatraining import tasks
from timetrial.optimizers.metatraining.dense import Traits, sample_traits
from timetrial.optimizers.metatraining.tasks import Data, Family, apply_dense, dense, log_uniform

PyTree = Any

_SIDE, _CLASSES, _CHANNELS, _EXAMPLES, _BATCH = 8, 8, 8, 1024, 16


def kernel(key: jax.Array, inputs: int, outputs: int, gain: jax.Array | float = 1.0) -> jax.Array:
    """A 3 x 3 kernel (3, 3, inputs, outputs), normal with variance 2 gain^2 / (9 inputs)."""
    scale = gain * jnp.sqrt(2.0 / (9 * inputs))
    return jax.random.normal(key, (3, 3, inputs, outputs)) * scale


def convolve(x: jax.Array, weight: jax.Array, stride: int = 1) -> jax.Array:
    """3 x 3 convolution, zero-padded: (batch, side, side, inputs) to (batch, ..., outputs)."""
    side = x.shape[1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [
        padded[:, i : i + side : stride, j : j + side : stride] for i in range(3) for j in range(3)
    ]
    return jnp.concatenate(shifted, axis=-1) @ weight.reshape(-1, weight.shape[-1])


def normalise(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Zero mean and unit variance over some axes."""
    centred = x - x.mean(axes, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axes, keepdims=True) + 1e-5)


def _smooth(images: jax.Array) -> jax.Array:
    """Blurs (n, side, side) images by the mean over 3 x 3 neighbours, on a torus."""
    for axis in (1, 2):
        images = (images + jnp.roll(images, 1, axis) + jnp.roll(images, -1, axis)) / 3.0
    return images


def _pictures(key: jax.Array) -> Data:
    """Smooth templates, one per class, shifted at random and noisy."""
    keys = jax.random.split(key, 7)
    templates = _smooth(jax.random.normal(keys[0], (_CLASSES, _SIDE, _SIDE)))
    templates = templates / jnp.std(templates)
    labels = jax.random.randint(keys[1], (_EXAMPLES,), 0, _CLASSES)
    shifts = jax.random.randint(keys[2], (2, _EXAMPLES), -1, 2)
    rows = (jnp.arange(_SIDE) + shifts[0][:, None]) % _SIDE
    columns = (jnp.arange(_SIDE) + shifts[1][:, None]) % _SIDE
    images = templates[labels[:, None, None], rows[:, :, None], columns[:, None, :]]
    noise = jax.random.normal(keys[3], images.shape) * log_uniform(keys[4], 1.0, 5.0)
    images = (images + noise) * log_uniform(keys[5], 0.3, 3.0)
    unit = tasks.label_entropy(labels, _CLASSES)
    return Data((images[..., None], labels), sample_traits(keys[6]), unit)


def _norm(scale: jax.Array | float) -> PyTree:
    return {"scale": jnp.full(_CHANNELS, scale), "bias": jnp.zeros(_CHANNELS)}


def _batch_norm(layer: PyTree, x: jax.Array) -> jax.Array:
    y: jax.Array = normalise(x, (0, 1, 2)) * layer["scale"] + layer["bias"]
    return y


def _convnet_init(key: jax.Array, traits: Traits) -> PyTree:
    keys = jax.random.split(key, 4)
    return {
        "stem": kernel(keys[0], 1, _CHANNELS, traits.gain),
        "blocks": [kernel(k, _CHANNELS, _CHANNELS, traits.gain) for k in keys[1:3]],
        "norms": [_norm(1.0), _norm(1.0), _norm(jnp.where(traits.muted, 0.0, 1.0))],
        "head": dense(keys[3], _CHANNELS, _CLASSES, traits.small),
    }


def _convnet_loss(params: PyTree, batch: PyTree, traits: Traits) -> jax.Array:
    del traits
    images, labels = batch
    x = jax.nn.relu(_batch_norm(params["norms"][0], convolve(images, params["stem"], 2)))
    y = jax.nn.relu(_batch_norm(params["norms"][1], convolve(x, params["blocks"][0])))
    y = _batch_norm(params["norms"][2], convolve(y, params["blocks"][1]))
    x = jax.nn.relu(x + y).mean((1, 2))
    return tasks.cross_entropy(apply_dense(params["head"], x), labels)


def _blurred(key: jax.Array) -> Data:
    """Smooth images, and the same with noise and with half of their rows missing."""
    keys = jax.random.split(key, 5)
    clean = _smooth(_smooth(jax.random.normal(keys[0], (_EXAMPLES, _SIDE, _SIDE))))
    clean = clean / jnp.std(clean) * log_uniform(keys[1], 0.3, 3.0)
    noise = jax.random.normal(keys[2], clean.shape) * log_uniform(keys[3], 0.03, 0.5)
    kept = (jnp.arange(_SIDE) % 2 == 0)[:, None]
    noisy = jnp.where(kept, clean + noise * jnp.std(clean), 0.0)
    unit = jnp.mean(jnp.abs(clean - jnp.mean(clean)))
    return Data((noisy[..., None], clean[..., None]), sample_traits(keys[4]), unit)


def _denoiser_init(key: jax.Array, traits: Traits) -> PyTree:
    keys = jax.random.split(key, 4)
    return {
        "down": [
            kernel(keys[0], 1, _CHANNELS, traits.gain),
            kernel(keys[1], _CHANNELS, _CHANNELS, traits.gain),
        ],
        "up": kernel(keys[2], 2 * _CHANNELS, _CHANNELS, traits.gain),
        "head": dense(keys[3], _CHANNELS, 4),
    }


def _denoiser_loss(params: PyTree, batch: PyTree, traits: Traits) -> jax.Array:
    """A U-Net of two levels with instance norm; the head writes 2 x 2 pixels per position."""
    del traits
    noisy, clean = batch
    x = jax.nn.relu(normalise(convolve(noisy, params["down"][0], 2), (1, 2)))
    y = jax.nn.relu(normalise(convolve(x, params["down"][1], 2), (1, 2)))
    y = jnp.repeat(jnp.repeat(y, 2, axis=1), 2, axis=2)
    both = jnp.concatenate([x, y], axis=-1)
    x = jax.nn.relu(normalise(convolve(both, params["up"]), (1, 2)))
    x = apply_dense(params["head"], x).reshape(-1, _SIDE // 2, _SIDE // 2, 2, 2)
    x = x.transpose(0, 1, 3, 2, 4).reshape(-1, _SIDE, _SIDE, 1)
    return jnp.mean(jnp.abs(x - clean))


CONVNET = Family("convnet", _pictures, _convnet_init, _convnet_loss, batch_size=_BATCH)
DENOISER = Family("denoiser", _blurred, _denoiser_init, _denoiser_loss, batch_size=8)
