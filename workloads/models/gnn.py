"""Graph network for multi-label graph classification, with its loss, as AlgoPerf trains it.

Boundary: pure functions and a flax module; no padding or batching of molecules.

Sources: Battaglia et al., "Relational inductive biases, deep learning, and graph networks" (2018),
https://arxiv.org/abs/1806.01261 (the full GN block). Names, shapes and initialisation: Dahl et al.,
"Benchmarking Neural Network Training Algorithms" (2023), https://arxiv.org/abs/2306.07179,
workload ``ogbg`` of https://github.com/mlcommons/algorithmic-efficiency, names as of mid-2023.
AlgoPerf later renamed ``Dense_0`` to ``node_embedding`` and ``Dense_1`` to ``edge_embedding``: its
``Dense_k`` is ``Dense_{k+2}`` here. Shapes and everything else are the same.
"""

# mypy: allow-subclassing-any, allow-untyped-decorators
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

Graphs = Mapping[str, jax.Array]
"""Several graphs in one set of arrays, padded to fixed shapes; see ``GNN.__call__``."""


_Rows = tuple[jax.Array, jax.Array | None]
"""Values (M, width) and the rows of them to take (N,); None: all of them, M = N."""


class Dense(nn.Module):
    """Dense layer over the concatenation of rows of several arrays; parameters as flax's.

    Rows are multiplied before they are taken: a node has several edges, so this multiplies fewer
    rows than the concatenation has, and the concatenation is never made.
    """

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, *inputs: _Rows) -> jax.Array:
        """Maps parts whose rows make arrays (N, width) to (N, features)."""
        widths = [values.shape[-1] for values, _ in inputs]
        shape = (sum(widths), self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        total = self.param("bias", nn.initializers.zeros, (self.features,))
        parts = jnp.split(kernel, np.cumsum(widths)[:-1])
        for (values, rows), part in zip(inputs, parts, strict=True):
            product = values.astype(self.dtype) @ part
            if rows is not None:
                product = product.at[rows].get(mode="promise_in_bounds")
            total = total + product  # in float32
        result: jax.Array = total.astype(self.dtype)
        return result


def _concatenated(features: int, dtype: DTypeLike) -> Callable[..., jax.Array]:
    """What ``Dense`` computes, in one product of the concatenation."""

    def layer(*inputs: _Rows) -> jax.Array:
        arrays = [values if rows is None else values[rows] for values, rows in inputs]
        x = jnp.concatenate([values.astype(dtype) for values in arrays], axis=-1)
        y: jax.Array = nn.Dense(features, dtype=dtype)(x)
        return y

    return layer


def _mlp(
    inputs: Sequence[_Rows],
    widths: Sequence[int],
    dropout: Callable[..., jax.Array],
    dtype: DTypeLike,
    *,
    fast: bool,
) -> jax.Array:
    """Dense layer, layer norm, ReLU and dropout per width; adds layers to the calling module."""
    first: Callable[..., Any] = Dense if fast else _concatenated
    x: jax.Array = first(widths[0], dtype)(*inputs)
    x = dropout(nn.relu(nn.LayerNorm(dtype=dtype)(x)))
    for width in widths[1:]:
        x = dropout(nn.relu(nn.LayerNorm(dtype=dtype)(nn.Dense(width, dtype=dtype)(x))))
    return x


class GNN(nn.Module):
    """Graph network; see ``make_model`` for the settings and ``__call__`` for the shapes."""

    latent_dim: int
    hidden_dims: tuple[int, ...]
    num_message_passing_steps: int
    num_outputs: int
    dropout_rate: float
    dtype: DTypeLike = jnp.float32
    fast: bool = False

    @nn.compact
    def __call__(self, graphs: Graphs, *, train: bool) -> jax.Array:
        """Returns the logits of every graph.

        Args:
            graphs: a mapping with at least these arrays; others are ignored. It holds G graphs with
                N nodes and E directed edges in total, padding included. Nodes and edges are
                ordered by graph. Padding belongs to one more graph at the end, so that
                ``n_node`` sums to N and ``n_edge`` to E.

                - ``nodes`` (N, node features), ``edges`` (E, edge features): floats;
                - ``senders``, ``receivers`` (E,): end nodes of an edge, integers in [0, N);
                - ``n_node``, ``n_edge`` (G,): number of nodes and edges of each graph.
            train: apply dropout (needs ``rngs={"dropout": key}`` when the rate is not 0).

        Returns:
            Logits (G, num_outputs) float32; those of padding graphs are meaningless.
        """
        senders, receivers = graphs["senders"], graphs["receivers"]
        num_nodes, num_graphs = graphs["nodes"].shape[0], graphs["n_node"].shape[0]
        graph_of_node = _graph_of(graphs["n_node"], num_nodes)
        graph_of_edge = _graph_of(graphs["n_edge"], senders.shape[0])
        # One module for all places; masks still differ, because every call draws a new key.
        dropout = nn.Dropout(self.dropout_rate, deterministic=not train)

        def update(*inputs: _Rows) -> jax.Array:
            return _mlp(inputs, self.hidden_dims, dropout, self.dtype, fast=self.fast)

        def sums(values: jax.Array, segment: jax.Array, total: int, by_graph: bool) -> jax.Array:
            wide = values.astype(jnp.float32)  # sums of many terms
            return jax.ops.segment_sum(wide, segment, total, indices_are_sorted=by_graph)

        nodes = nn.Dense(self.latent_dim, dtype=self.dtype)(graphs["nodes"])
        edges = nn.Dense(self.latent_dim, dtype=self.dtype)(graphs["edges"])
        context = jnp.zeros((num_graphs, self.num_outputs), nodes.dtype)
        for _ in range(self.num_message_passing_steps):
            edges = update(
                (edges, None), (nodes, senders), (nodes, receivers), (context, graph_of_edge)
            )
            sent = sums(edges, senders, num_nodes, by_graph=False)
            received = sums(edges, receivers, num_nodes, by_graph=False)
            nodes = update((nodes, None), (sent, None), (received, None), (context, graph_of_node))
            of_nodes = sums(nodes, graph_of_node, num_graphs, by_graph=True)
            of_edges = sums(edges, graph_of_edge, num_graphs, by_graph=True)
            context = update((of_nodes, None), (of_edges, None), (context, None))
        logits: jax.Array = nn.Dense(self.num_outputs, dtype=self.dtype)(context)
        return logits.astype(jnp.float32)


def _graph_of(counts: jax.Array, total: int) -> jax.Array:
    """Graph index of each of ``total`` items; graph g has ``counts[g]`` items."""
    return jnp.repeat(jnp.arange(counts.shape[0]), counts, total_repeat_length=total)


def make_model(
    *,
    latent_dim: int = 256,
    hidden_dims: Sequence[int] = (256,),
    num_message_passing_steps: int = 5,
    num_outputs: int = 128,
    dropout_rate: float = 0.1,
    dtype: DTypeLike = jnp.float32,
    fast: bool = False,
) -> nn.Module:
    """Builds a graph network; the defaults are AlgoPerf's OGBG model (3,554,176 parameters).

    Call it as ``model.apply(variables, graphs, train=..., rngs={"dropout": key})``. Every message
    passing step updates edges, then nodes, then the context vector of the graph, by one MLP each,
    without residuals. The context starts as ``num_outputs`` zeros; a dense layer maps it to logits.

    Args:
        latent_dim: width of the embeddings of nodes and edges.
        hidden_dims: widths of the layers of every update MLP.
        num_message_passing_steps: number of steps, each with its own parameters.
        num_outputs: number of labels of a graph.
        dropout_rate: dropout probability after each layer of an MLP, in [0, 1).
        dtype: type of the layers; parameters, sums over nodes and edges, and logits are float32.
        fast: multiply nodes and contexts by their part of a kernel before edges take them. The
            same function with about half of the products, up to rounding.

    Raises:
        ValueError: a size is not positive, ``hidden_dims`` is empty, or the rate is outside [0, 1).
    """
    hidden_dims = tuple(hidden_dims)
    if not hidden_dims or min(hidden_dims) < 1:
        raise ValueError(f"hidden_dims: expected one or more numbers >= 1, got {hidden_dims}")
    for name, value in (
        ("latent_dim", latent_dim),
        ("num_message_passing_steps", num_message_passing_steps),
        ("num_outputs", num_outputs),
    ):
        if value < 1:
            raise ValueError(f"{name}: expected a number >= 1, got {value}")
    if not 0 <= dropout_rate < 1:
        raise ValueError(f"dropout_rate: expected a number in [0, 1), got {dropout_rate}")
    sizes = (latent_dim, hidden_dims, num_message_passing_steps, num_outputs)
    return GNN(*sizes, dropout_rate, dtype, fast)


def masked_binary_cross_entropy(
    logits: jax.Array, labels: jax.Array, weights: jax.Array, label_smoothing: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Sums of binary cross-entropies and of weights over the labels of each graph.

    The loss of a batch is ``jnp.sum(losses) / jnp.sum(counts)``: all existing labels have equal
    weight, in whichever graph.

    Args:
        logits: (..., T).
        labels: 0 or 1, (..., T); any value, NaN included, where the weight is 0.
        weights: (..., T), 1 for an existing label, 0 for a missing label or padding.
        label_smoothing: share ``a`` in [0, 1]; targets are ``(1 - a) * label + a / T``.

    Returns:
        ``(losses, counts)``, both (...).
    """
    # Masked before use and after: the gradient of 0 * NaN is NaN.
    targets = jnp.where(weights > 0, labels, 0)
    targets = (1 - label_smoothing) * targets + label_smoothing / logits.shape[-1]
    losses = targets * jax.nn.softplus(-logits) + (1 - targets) * jax.nn.softplus(logits)
    losses = jnp.where(weights > 0, losses * weights, 0)
    return jnp.sum(losses, axis=-1), jnp.sum(weights, axis=-1)
