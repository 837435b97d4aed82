"""The family of small graph networks: messages over the edges of random graphs, several labels.

Boundary: synthetic graphs of six nodes; ``tasks`` defines a family.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from timetrial.optimizers.metatraining import tasks
from timetrial.optimizers.metatraining.dense import Traits, activation, sample_traits
from timetrial.optimizers.metatraining.images import normalise
from timetrial.optimizers.metatraining.tasks import Data, Family, apply_dense, dense, log_uniform

PyTree = Any

_NODES, _KINDS, _WIDTH, _ROUNDS, _LABELS, _EXAMPLES = 6, 8, 16, 2, 4, 1024


def _molecules(key: jax.Array) -> Data:
    """Random graphs of nodes of several kinds; counts of kinds and of bonds give the labels."""
    keys = jax.random.split(key, 6)
    kinds = jax.random.randint(keys[0], (_EXAMPLES, _NODES), 0, _KINDS)
    density = jax.random.uniform(keys[1], minval=0.15, maxval=0.5)
    half = jnp.triu(jax.random.uniform(keys[2], (_EXAMPLES, _NODES, _NODES)) < density, 1)
    edges = (half | half.transpose(0, 2, 1)).astype(jnp.float32)
    nodes = (kinds[..., None] == jnp.arange(_KINDS)).astype(jnp.float32)
    bonds = jnp.einsum("nik,nij,njl->nkl", nodes, edges, nodes)
    counts = jnp.concatenate([nodes.sum(1), bonds.reshape(_EXAMPLES, -1) / 2.0], axis=1)
    counts = (counts - counts.mean(0)) / (counts.std(0) + 1e-3)
    weights = jax.random.normal(keys[3], (counts.shape[1], _LABELS)) / jnp.sqrt(counts.shape[1])
    sharpness, coin, traits = jax.random.split(keys[4], 3)
    logits = counts @ weights * log_uniform(sharpness, 1.5, 8.0)
    logits = logits + jax.random.normal(keys[5], (_LABELS,))
    labels = jax.random.bernoulli(coin, jax.nn.sigmoid(logits)).astype(jnp.float32)
    return Data((nodes, edges, labels), sample_traits(traits), tasks.binary_entropy(labels))


def _init(key: jax.Array, traits: Traits) -> PyTree:
    keys = iter(jax.random.split(key, 2 + 4 * _ROUNDS))

    def layer(inputs: int, outputs: int) -> PyTree:
        return dense(next(keys), inputs, outputs, traits.gain)

    def one_round() -> PyTree:
        return {
            "sender": layer(_WIDTH, _WIDTH),
            "receiver": layer(_WIDTH, _WIDTH),
            "node": layer(2 * _WIDTH, _WIDTH),
            "norm": {"scale": jnp.ones(_WIDTH), "bias": jnp.zeros(_WIDTH)},
        }

    return {
        "embedding": layer(_KINDS, _WIDTH),
        "rounds": [one_round() for _ in range(_ROUNDS)],
        "head": layer(_WIDTH, _LABELS),
    }


def _loss(params: PyTree, batch: PyTree, traits: Traits) -> jax.Array:
    """Rounds of messages, each with layer norm, then the mean of the nodes."""
    nodes, edges, labels = batch
    x = apply_dense(params["embedding"], nodes)
    for layer in params["rounds"]:
        sent = apply_dense(layer["sender"], x)[:, None, :, :]
        received = apply_dense(layer["receiver"], x)[:, :, None, :]
        messages = (activation(sent + received, traits) * edges[..., None]).sum(2)
        x = activation(apply_dense(layer["node"], jnp.concatenate([x, messages], -1)), traits)
        x = normalise(x, (-1,)) * layer["norm"]["scale"] + layer["norm"]["bias"]
    return tasks.binary_log_loss(apply_dense(params["head"], x.mean(1)), labels)


GRAPH = Family("graph", _molecules, _init, _loss, batch_size=12)
