"""Click prediction: the cross-entropy of a yes or no.

Boundary: loss and metric only; model and data belong to each workload.

Follows AlgoPerf's workload ``criteo1tb`` (Dahl et al., "Benchmarking Neural Network Training
Algorithms", 2023, https://arxiv.org/abs/2306.07179).
"""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from timetrial.framework.types import Direction, PyTree
from timetrial.framework.workload import Batch, Sums, Workload
from timetrial.workloads.models import dlrm


class ClickPrediction(Workload):
    """Workloads that predict a yes or no; the deciding metric is the cross-entropy on validation.

    Batches: ``x`` (N, columns) float32, numbers first, then ids; ``y`` (N,) float32, 0 or 1;
    evaluation batches also have ``weight`` (N,).

    Attributes:
        model: takes ``x``, ``train`` and the random numbers ``dropout``; gives logits (N, 1).
        columns: number of columns of ``x``.
    """

    metric: ClassVar[str] = "loss"
    direction: ClassVar[Direction] = Direction.MINIMIZE
    model: nn.Module
    columns: int

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        return self.model.init(key, jnp.zeros((1, self.columns)), train=False)["params"], {}

    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        rngs = {"dropout": key}
        logits = self.model.apply({"params": params}, batch["x"], train=True, rngs=rngs)
        losses = dlrm.binary_cross_entropy(logits, jnp.asarray(batch["y"]))
        return jnp.mean(losses), model_state

    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        logits = self.model.apply({"params": params}, batch["x"], train=False)
        losses = dlrm.binary_cross_entropy(logits, jnp.asarray(batch["y"]))
        weight = jnp.asarray(batch["weight"])
        return {"loss": (jnp.sum(losses * weight), jnp.sum(weight))}, {}
