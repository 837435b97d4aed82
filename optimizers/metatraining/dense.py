"""Families of dense networks: perceptrons of several depths, embeddings with towers, autoencoder.

Boundary: synthetic data, models of a few thousand parameters; ``tasks`` defines a family.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from timetrial.optimizers.metatraining import tasks
from timetrial.optimizers.metatraining.tasks import Data, Family, apply_dense, dense, log_uniform

PyTree = Any

_CLASSES = 8
_FEATURES = 16
_EXAMPLES = 2048


class Traits(NamedTuple):
    """Random properties of a task.

    Attributes:
        gain: factor of the initial weights.
        small: factor of the initial weights of heads and embeddings, which often begin small.
        smooth: whether the activation is tanh instead of ReLU.
        muted: whether the last norm of a residual branch begins at 0 instead of 1, which switches
            the branch off (Goyal et al., "Accurate, Large Minibatch SGD", 2017, arXiv:1706.02677).
    """

    gain: jax.Array
    small: jax.Array
    smooth: jax.Array
    muted: jax.Array


def sample_traits(key: jax.Array) -> Traits:
    """Gain between 0.5 and 2, small between 0.03 and 1; every third smooth, half of them muted."""
    gain, small, smooth, muted = jax.random.split(key, 4)
    return Traits(
        log_uniform(gain, 0.5, 2.0),
        log_uniform(small, 0.03, 1.0),
        jax.random.bernoulli(smooth, 1 / 3),
        jax.random.bernoulli(muted),
    )


def activation(x: jax.Array, traits: Traits) -> jax.Array:
    """The task's activation, ReLU or tanh."""
    return jnp.where(traits.smooth, jnp.tanh(x), jax.nn.relu(x))


def mixture(key: jax.Array, features: int = _FEATURES) -> Data:
    """Gaussian mixture of 8 classes, of random spectrum, scale and label noise."""
    keys = jax.random.split(key, 9)
    centres = jax.random.normal(keys[0], (2 * _CLASSES, features))
    component = jax.random.randint(keys[1], (_EXAMPLES,), 0, 2 * _CLASSES)
    noise = jax.random.normal(keys[2], (_EXAMPLES, features))
    x = centres[component] * log_uniform(keys[3], 0.3, 1.5) + noise
    decay = jax.random.uniform(keys[4], minval=0.0, maxval=1.5)
    x = x * (1.0 + jnp.arange(features)) ** -decay * log_uniform(keys[5], 0.3, 3.0)
    # Two components share a class, so that no linear boundary separates the classes.
    labels = component % _CLASSES
    wrong = jax.random.uniform(keys[6], (_EXAMPLES,)) < 0.2 * jax.random.uniform(keys[7])
    labels = jnp.where(wrong, jnp.roll(labels, 1), labels)
    unit = tasks.label_entropy(labels, _CLASSES)
    return Data((x, labels), sample_traits(keys[8]), unit)


def _layers(key: jax.Array, widths: tuple[int, ...], traits: Traits) -> PyTree:
    """Initial dense layers, each from one of the widths to the next."""
    keys = jax.random.split(key, len(widths) - 1)
    return [dense(*one, traits.gain) for one in zip(keys, widths, widths[1:], strict=False)]


def _apply_layers(layers: PyTree, x: jax.Array, traits: Traits) -> jax.Array:
    """Applies dense layers, with the task's activation between them."""
    for layer in layers[:-1]:
        x = activation(apply_dense(layer, x), traits)
    return apply_dense(layers[-1], x)


def perceptron(name: str, hidden: tuple[int, ...], features: int = _FEATURES) -> Family:
    """A classifier of Gaussian mixtures with hidden layers of the given widths."""
    widths = (features, *hidden, _CLASSES)

    def init(key: jax.Array, traits: Traits) -> PyTree:
        return _layers(key, widths, traits)

    def loss(params: PyTree, batch: PyTree, traits: Traits) -> jax.Array:
        x, labels = batch
        return tasks.cross_entropy(_apply_layers(params, x, traits), labels)

    return Family(name, functools.partial(mixture, features=features), init, loss)


_FIELDS, _VOCABULARY, _WIDTH, _NUMBERS = 4, 32, 8, 8


def _clicks(key: jax.Array) -> Data:
    """Categories with a heavy tail, and numbers; a random network of both gives the label."""
    keys = jax.random.split(key, 9)
    tail = jax.random.uniform(keys[0], minval=0.5, maxval=1.5)
    popularity = (1.0 + jnp.arange(_VOCABULARY)) ** -tail
    below = jnp.cumsum(popularity)[:-1] / popularity.sum()
    ids = (jax.random.uniform(keys[1], (_EXAMPLES, _FIELDS, 1)) > below).sum(-1)
    numbers = jax.random.normal(keys[2], (_EXAMPLES, _NUMBERS)) * log_uniform(keys[3], 0.3, 3.0)
    meaning = jax.random.normal(keys[4], (_FIELDS, _VOCABULARY, 4))
    hidden = sum(meaning[f][ids[:, f]] for f in range(_FIELDS))
    hidden = hidden + numbers @ jax.random.normal(keys[5], (_NUMBERS, 4)) / 2.0
    logits = jnp.tanh(hidden) @ jax.random.normal(keys[6], (4,)) * log_uniform(keys[7], 1.0, 6.0)
    bias, coin, traits = jax.random.split(keys[8], 3)
    logits = logits + jax.random.normal(bias)
    labels = jax.random.bernoulli(coin, jax.nn.sigmoid(logits)).astype(jnp.float32)
    return Data((ids, numbers, labels), sample_traits(traits), tasks.binary_entropy(labels))


def _embedding_init(key: jax.Array, traits: Traits) -> PyTree:
    keys = jax.random.split(key, 5)
    pairs = (_FIELDS + 1) * _FIELDS // 2

    def biased(key: jax.Array, inputs: int, outputs: int) -> PyTree:
        weights, bias = jax.random.split(key)
        layer = dense(weights, inputs, outputs, traits.gain)
        return layer | {"b": jax.random.normal(bias, (outputs,)) / jnp.sqrt(float(outputs))}

    return {
        "tables": jax.random.normal(keys[0], (_FIELDS * _VOCABULARY, _WIDTH)) * traits.small / 4,
        "bottom": [biased(keys[1], _NUMBERS, 16), biased(keys[2], 16, _WIDTH)],
        "top": [biased(keys[3], _WIDTH + pairs, 16), biased(keys[4], 16, 1)],
    }


def _embedding_loss(params: PyTree, batch: PyTree, traits: Traits) -> jax.Array:
    """Dot products of the embeddings and the bottom tower's output feed the top tower."""
    ids, x, labels = batch
    rows = ids + _VOCABULARY * jnp.arange(_FIELDS)
    hot = (rows[:, :, None] == jnp.arange(_FIELDS * _VOCABULARY)).astype(jnp.float32)
    looked_up = hot @ params["tables"]
    for layer in params["bottom"]:
        x = activation(apply_dense(layer, x), traits)
    vectors = jnp.concatenate([x[:, None], looked_up], axis=1)
    products = vectors @ vectors.transpose(0, 2, 1)
    lower, upper = jnp.triu_indices(_FIELDS + 1, 1)
    x = jnp.concatenate([x, products[:, lower, upper]], axis=1)
    return tasks.binary_log_loss(_apply_layers(params["top"], x, traits)[:, 0], labels)


_SIGNAL = 32


def _signals(key: jax.Array) -> Data:
    """Noisy sums of three waves, and the waves without the noise."""
    keys = jax.random.split(key, 6)
    where = jnp.arange(_SIGNAL) / _SIGNAL
    frequency = jax.random.uniform(keys[0], (3,), minval=0.5, maxval=4.0)
    phase = jax.random.uniform(keys[1], (_EXAMPLES, 3, 1), maxval=2 * jnp.pi)
    size = jax.random.normal(keys[2], (_EXAMPLES, 3, 1))
    waves = size * jnp.sin(2 * jnp.pi * frequency[:, None] * where + phase)
    clean = waves.sum(1) * log_uniform(keys[3], 0.3, 3.0)
    level = log_uniform(keys[4], 0.03, 0.5) * jnp.std(clean)
    traits, noise = jax.random.split(keys[5])
    noisy = clean + level * jax.random.normal(noise, clean.shape)
    unit = jnp.mean(jnp.abs(clean - jnp.mean(clean)))
    return Data((noisy, clean), sample_traits(traits), unit)


def _autoencoder_init(key: jax.Array, traits: Traits) -> PyTree:
    return _layers(key, (_SIGNAL, 32, 16, 32, _SIGNAL), traits)


def _autoencoder_loss(params: PyTree, batch: PyTree, traits: Traits) -> jax.Array:
    x, clean = batch
    return jnp.mean(jnp.abs(_apply_layers(params, x, traits) - clean))


SHALLOW = perceptron("perceptron", (32,))
DEEP = perceptron("deep_perceptron", (32, 32, 32))
EMBEDDING = Family("embedding", _clicks, _embedding_init, _embedding_loss)
AUTOENCODER = Family("autoencoder", _signals, _autoencoder_init, _autoencoder_loss)
