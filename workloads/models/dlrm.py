"""DLRM for click-like prediction from dense and categorical columns, with its loss.

Boundary: pure functions and a flax module; no preprocessing of columns.

Sources: Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation
Systems" (2019), https://arxiv.org/abs/1906.00091. Names, shapes and initialisation: Dahl et al.,
"Benchmarking Neural Network Training Algorithms" (2023), https://arxiv.org/abs/2306.07179,
workload ``criteo1tb`` (``DLRMsmall``) of https://github.com/mlcommons/algorithmic-efficiency.
"""

# mypy: allow-subclassing-any, allow-untyped-decorators
from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

NUM_DENSE = 13
"""Columns of numbers."""

NUM_IDS = 26
"""Columns of categories."""


class DLRM(nn.Module):
    """Recommendation model; see ``make_model`` for the settings, ``__call__`` for the shapes."""

    vocab_size: int
    mlp_bottom_dims: tuple[int, ...]
    mlp_top_dims: tuple[int, ...]
    embed_dim: int
    dropout_rate: float
    dtype: DTypeLike = jnp.float32
    fast: bool = False

    @nn.compact
    def __call__(self, dense: jax.Array, ids: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits.

        Args:
            dense: numbers (N, 13) float32.
            ids: ids of categories (N, 26) int32, >= 0. All columns share one embedding table; the
                row is the id modulo ``vocab_size``.
            train: apply dropout (needs ``rngs={"dropout": key}`` when the rate is not 0).

        Returns:
            Logits (N, mlp_top_dims[-1]) float32.
        """
        for width in self.mlp_bottom_dims:
            dense = nn.relu(self._dense(width, nn.initializers.glorot_uniform())(dense))
        table = self.param(
            "embedding_table",
            nn.initializers.uniform(1 / math.sqrt(self.vocab_size)),
            (self.vocab_size, self.embed_dim),
        )
        # A bottom output wider than the embedding is split into several features.
        rows = table[ids % self.vocab_size].astype(dense.dtype)
        features = jnp.concatenate((dense.reshape(len(ids), -1, self.embed_dim), rows), axis=1)
        dots = (_pairwise_dots_fast if self.fast else _pairwise_dots)(features)
        x = jnp.concatenate((dense, dots), axis=-1)
        for layer, width in enumerate(self.mlp_top_dims):
            stddev = math.sqrt(2 / (x.shape[-1] + width))
            x = self._dense(width, nn.initializers.normal(stddev))(x)
            if layer < len(self.mlp_top_dims) - 1:
                x = nn.relu(x)
            if layer == len(self.mlp_top_dims) - 2:
                x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return x.astype(jnp.float32)

    def _dense(self, width: int, kernel_init: nn.initializers.Initializer) -> nn.Module:
        bias_init = nn.initializers.normal(1 / math.sqrt(width))
        return nn.Dense(width, dtype=self.dtype, kernel_init=kernel_init, bias_init=bias_init)


def _pairwise_dots(features: jax.Array) -> jax.Array:
    """Dot products of all pairs of features, self-pairs included: (N, F, D) to (N, F(F+1)/2)."""
    num = features.shape[1]
    dots = jnp.einsum("nid,njd->nij", features, features)
    rows, columns = np.triu_indices(num)
    return dots.reshape(-1, num * num)[:, rows * num + columns]


@jax.custom_vjp
def _pairwise_dots_fast(features: jax.Array) -> jax.Array:
    """As ``_pairwise_dots``, with a gradient of one product instead of two and a scatter.

    With S the matrix of all dot products X X' and G the gradient of its upper triangle, the
    gradient of X is (G + G') X. Entry (i, j) of G + G' is the gradient of pair {i, j}, twice that
    on the diagonal: a gather.
    """
    return _pairwise_dots(features)


def _forward(features: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _pairwise_dots(features), features


def _backward(features: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    num = features.shape[1]
    rows, columns = np.triu_indices(num)
    pair = np.zeros((num, num), np.int32)
    pair[rows, columns] = pair[columns, rows] = np.arange(len(rows))
    symmetric = gradient[:, pair.reshape(-1)].reshape(-1, num, num)
    symmetric *= 1 + jnp.eye(num, dtype=gradient.dtype)
    return (jnp.einsum("nij,njd->nid", symmetric, features),)


_pairwise_dots_fast.defvjp(_forward, _backward)


def make_model(
    *,
    vocab_size: int = 4_194_304,
    mlp_bottom_dims: Sequence[int] = (512, 256, 128),
    mlp_top_dims: Sequence[int] = (1024, 1024, 512, 256, 1),
    embed_dim: int = 128,
    dropout_rate: float = 0.0,
    dtype: DTypeLike = jnp.float32,
    fast: bool = False,
) -> nn.Module:
    """Builds a DLRM; the defaults are AlgoPerf's Criteo model (539,267,457 parameters).

    Call it as ``model.apply(variables, dense, ids, train=..., rngs={"dropout": key})``.

    Args:
        vocab_size: rows of the embedding table, shared by all categorical columns.
        mlp_bottom_dims: widths of the layers over the numbers; the last is a multiple of
            ``embed_dim``. Each slice of ``embed_dim`` values is one feature beside the embeddings.
        mlp_top_dims: widths of the layers over the dot products; the last is the number of logits.
        embed_dim: width of an embedding.
        dropout_rate: dropout probability before the last layer, in [0, 1).
        dtype: type of the computation; parameters and logits are float32.
        fast: gradient of the dot products by one product of matrices, without a scatter. The same
            function in less time, up to rounding.

    Raises:
        ValueError: a size is not positive or inconsistent, or the rate is outside [0, 1).
    """
    bottom, top = tuple(mlp_bottom_dims), tuple(mlp_top_dims)
    for name, widths in (("mlp_bottom_dims", bottom), ("mlp_top_dims", top)):
        if not widths or min(widths) < 1:
            raise ValueError(f"{name}: expected one or more numbers >= 1, got {widths}")
    for name, value in (("vocab_size", vocab_size), ("embed_dim", embed_dim)):
        if value < 1:
            raise ValueError(f"{name}: expected a number >= 1, got {value}")
    if bottom[-1] % embed_dim:
        raise ValueError(
            f"mlp_bottom_dims: expected the last to be a multiple of embed_dim={embed_dim}, "
            f"got {bottom}"
        )
    if not 0 <= dropout_rate < 1:
        raise ValueError(f"dropout_rate: expected a number in [0, 1), got {dropout_rate}")
    return DLRM(vocab_size, bottom, top, embed_dim, dropout_rate, dtype, fast)


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Binary cross-entropy of every example, in nats; its mean is the deciding metric.

    Args:
        logits: (N, 1) or (N,).
        labels: 0 or 1, (N, 1) or (N,).

    Returns:
        Losses (N,).
    """
    z, y = logits.reshape(-1), labels.reshape(-1)
    # Two terms instead of softplus(z) - y z: exact also for confident correct predictions.
    return y * jax.nn.softplus(-z) + (1 - y) * jax.nn.softplus(z)
