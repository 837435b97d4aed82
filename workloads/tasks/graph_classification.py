"""Multi-label classification of graphs: cross-entropy of known labels, mean average precision.

Boundary: loss and metrics only; model and data belong to each workload.

Follows AlgoPerf's workload ``ogbg`` (Dahl et al., "Benchmarking Neural Network Training
Algorithms", 2023, https://arxiv.org/abs/2306.07179).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from timetrial.framework.roles import last_layer
from timetrial.framework.types import Direction, PyTree
from timetrial.framework.workload import Batch, Sums, Workload
from timetrial.workloads.models import gnn
from timetrial.workloads.tasks import metrics


class GraphClassification(Workload):
    """Workloads that label graphs; the deciding metric is mean average precision on validation.

    Batches: graphs packed by ``data.molecules.pack``, with labels ``y`` and ``weight``, both
    (N, tasks); or several packs along a first axis, where ``logits`` takes them. All known labels
    have equal weight, in training and in evaluation.

    Attributes:
        model: takes a batch, ``train`` and the random numbers ``dropout``; gives logits (N, tasks).
        label_smoothing: share of the training target moved towards its mean, in [0, 1).
    """

    metric: ClassVar[str] = "mean_average_precision"
    direction: ClassVar[Direction] = Direction.MAXIMIZE
    model: nn.Module
    label_smoothing: float

    def logits(self, params: PyTree, graphs: Batch, key: jax.Array | None = None) -> jax.Array:
        """Logits of every graph; ``key`` is the source of dropout, None in evaluation."""
        rngs = {} if key is None else {"dropout": key}
        found: jax.Array = self.model.apply(
            {"params": params}, graphs, train=key is not None, rngs=rngs
        )
        return found

    def roles(self, params: PyTree) -> PyTree:
        return last_layer(super().roles(params), "Dense")

    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        logits = self.logits(params, batch, key)
        losses, counts = gnn.masked_binary_cross_entropy(
            logits, jnp.asarray(batch["y"]), jnp.asarray(batch["weight"]), self.label_smoothing
        )
        return jnp.sum(losses) / jnp.sum(counts), model_state

    def weight(self, batch: Batch) -> jax.Array:
        return jnp.sum(jnp.asarray(batch["weight"]))

    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        logits = self.logits(params, batch)
        labels, weight = jnp.asarray(batch["y"]), jnp.asarray(batch["weight"])
        losses, counts = gnn.masked_binary_cross_entropy(logits, labels, weight)
        sums = {"loss": (jnp.sum(losses), jnp.sum(counts))}
        return sums, {"logits": logits, "y": labels, "weight": weight}

    def finish(self, outputs: Sequence[PyTree]) -> dict[str, float]:
        logits, labels, weights = (
            np.concatenate([_by_graph(batch[name]) for batch in outputs])
            for name in ("logits", "y", "weight")
        )
        return {self.metric: metrics.mean_average_precision(logits, labels, weights)}


def _by_graph(values: ArrayLike) -> np.ndarray:
    """Values (..., tasks) as (graphs, tasks)."""
    array = np.asarray(values)
    return array.reshape(-1, array.shape[-1])
