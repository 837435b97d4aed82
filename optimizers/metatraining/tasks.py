"""Tasks of meta-training: data, a model, a loss, and the normalised score of a loss.

Boundary: types, and the parts that families share (batches, reparametrisation, scores); the
families themselves are in ``dense``, ``images`` and ``graphs``. All data are synthetic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any

CAP = 3.0
"""Normalised losses are cut here; one that is not finite counts as this much."""

_FLOOR = 0.02


class Data(NamedTuple):
    """The data of one task.

    Attributes:
        examples: tree of arrays with a leading axis of examples, in random order.
        traits: tree of scalars that differ between tasks of one family (activation, gain, ...).
        unit: loss of a constant prediction (the mean or the base rate); losses are divided by it.
    """

    examples: PyTree
    traits: PyTree
    unit: jax.Array


class Task(NamedTuple):
    """One task: its data, and the factor by which its stored parameters are divided."""

    data: Data
    rescaling: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """Tasks of equal shapes, so that one program serves all; data and traits differ.

    Attributes:
        name: as in metrics and messages.
        sample: maps a key to the data of a task.
        init: maps a key and traits to the parameters of the model.
        loss: maps parameters, a batch of examples and traits to the scalar loss.
        batch_size: examples per inner step.
        largest_rescaling: largest factor of reparametrisation, >= 1; the smallest is its inverse.
        share_rescaled: share of the tasks that are reparametrised, in [0, 1].
    """

    name: str
    sample: Callable[[jax.Array], Data]
    init: Callable[[jax.Array, PyTree], PyTree]
    loss: Callable[[PyTree, PyTree, PyTree], jax.Array]
    batch_size: int = 32
    largest_rescaling: float = 3.0
    share_rescaled: float = 0.5

    def task(self, key: jax.Array) -> Task:
        """A task, reparametrised or not.

        The stored parameters of a reparametrised task are divided by a factor, log-uniform between
        the inverse of the largest factor and that factor: the same function with other scales of
        parameters and gradients (Metz et al., "Practical Tradeoffs between Memory, Compute, and
        Performance in Learned Optimizers", 2022, https://arxiv.org/abs/2203.11860).
        """
        key, coin, factor = jax.random.split(key, 3)
        exponent = jax.random.uniform(factor, minval=-1.0, maxval=1.0)
        drawn = jax.random.bernoulli(coin, self.share_rescaled)
        scale = jnp.where(drawn, self.largest_rescaling**exponent, 1.0)
        return Task(self.sample(key), scale)

    def initial(self, task: Task, key: jax.Array) -> PyTree:
        """Stored parameters before the first step."""
        params = self.init(key, task.data.traits)
        return jax.tree.map(lambda x: x / task.rescaling, params)

    def objective(self, params: PyTree, examples: PyTree, task: Task) -> jax.Array:
        """Loss of stored parameters on some examples."""
        actual = jax.tree.map(lambda x: x * task.rescaling, params)
        return self.loss(actual, examples, task.data.traits)

    def batch(self, task: Task, key: jax.Array) -> PyTree:
        """Consecutive examples from a random place on; the order of all examples is random."""
        count = jax.tree.leaves(task.data.examples)[0].shape[0]
        first = jax.random.randint(key, (), 0, count - self.batch_size + 1)
        return jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, first, self.batch_size), task.data.examples
        )

    def shapes(self) -> PyTree:
        """Shapes and types of the parameters."""
        key = jax.random.key(0)
        return jax.eval_shape(lambda k: self.initial(self.task(k), k), key)


def score(loss: jax.Array, task: Task) -> jax.Array:
    """Score of a loss, the scale that meta-training sums; 0 is a constant prediction.

    It is ``log((r + 0.02) / 1.02)`` of the ratio r of the loss to that of a constant prediction,
    cut at 3. Halving a small loss counts as much as halving a large one, down to 2 %, and one
    divergence does not outweigh everything else.
    """
    ratio = loss / task.data.unit
    ratio = jnp.where(jnp.isfinite(ratio), jnp.minimum(ratio, CAP), CAP)
    return jnp.log((ratio + _FLOOR) / (1.0 + _FLOOR))


def log_uniform(key: jax.Array, low: float, high: float) -> jax.Array:
    """A scalar whose logarithm is uniform."""
    return jnp.exp(jax.random.uniform(key, minval=jnp.log(low), maxval=jnp.log(high)))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of (batch, classes) logits with (batch,) labels."""
    logs = jax.nn.log_softmax(logits)
    hot = labels[:, None] == jnp.arange(logits.shape[1])
    return -jnp.mean(jnp.sum(jnp.where(hot, logs, 0.0), axis=1))


def binary_log_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean log loss of logits and labels in {0, 1} of equal shape."""
    return jnp.mean(jax.nn.softplus(logits) - labels * logits)


def label_entropy(labels: jax.Array, classes: int) -> jax.Array:
    """Loss of the best constant prediction of (n,) labels."""
    share = jnp.mean(labels[:, None] == jnp.arange(classes), axis=0)
    return -jnp.sum(share * jnp.log(jnp.maximum(share, 1e-6)))


def binary_entropy(labels: jax.Array) -> jax.Array:
    """Loss of the best constant prediction of (n,) or, by column, (n, k) labels in {0, 1}."""
    share = jnp.clip(jnp.mean(labels, axis=0), 0.01, 0.99)
    return jnp.mean(-share * jnp.log(share) - (1 - share) * jnp.log(1 - share))


def dense(key: jax.Array, inputs: int, outputs: int, gain: jax.Array | float = 1.0) -> PyTree:
    """Parameters of a linear layer: normal weights of variance gain^2 / inputs, zero bias."""
    weight = jax.random.normal(key, (inputs, outputs)) * gain / jnp.sqrt(float(inputs))
    return {"w": weight, "b": jnp.zeros(outputs)}


def apply_dense(layer: PyTree, x: jax.Array) -> jax.Array:
    """A linear layer on the last axis."""
    y: jax.Array = x @ layer["w"] + layer["b"]
    return y
