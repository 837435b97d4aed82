"""Click prediction: the cross-entropy of a yes or no.

Boundary: loss and metric only; model and data belong to each workload.

Follows AlgoPerf's workload ``criteo1tb`` (Dahl et al., "Benchmarking Neural Network Training
Algorithms", 2023, https://arxiv.org/abs/2306.07179).
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from timetrial.framework.ranges import check
from timetrial.framework.roles import last_layer
from timetrial.framework.types import Direction, PyTree
from timetrial.framework.workload import Batch, Sums, Workload
from timetrial.workloads.models import dlrm


class ModelSettings(Protocol):
    """Settings of a workload that are those of its DLRM."""

    @property
    def mlp_top_dims(self) -> tuple[int, ...]:
        """Widths of the layers over the dot products."""


def check_model(settings: ModelSettings) -> None:
    """Checks the settings of a DLRM with one logit.

    Raises:
        ValueError: a value is out of range, or the last layer is wider.
    """
    check(settings, vocab_size=">= 1", embed_dim=">= 1", dropout_rate="[0, 1)")
    if settings.mlp_top_dims[-1:] != (1,):
        raise ValueError(
            f"mlp_top_dims: expected the last to be 1 (the logit), got {settings.mlp_top_dims}"
        )


class ClickPrediction(Workload):
    """Workloads that predict a yes or no; the deciding metric is the cross-entropy on validation.

    Batches: numbers ``dense`` (N, 13) float32; ``ids`` of categories (N, 26) int32; ``y`` (N,)
    float32, 0 or 1; evaluation batches also have ``weight`` (N,).

    Attributes:
        model: takes ``dense``, ``ids``, ``train`` and the random numbers ``dropout``; gives logits
            (N, 1).
    """

    metric: ClassVar[str] = "loss"
    direction: ClassVar[Direction] = Direction.MINIMIZE
    model: nn.Module

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        dense, ids = jnp.zeros((1, dlrm.NUM_DENSE)), jnp.zeros((1, dlrm.NUM_IDS), jnp.int32)
        return self.model.init(key, dense, ids, train=False)["params"], {}

    def roles(self, params: PyTree) -> PyTree:
        return last_layer(super().roles(params), "Dense")

    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        columns, rngs = (batch["dense"], batch["ids"]), {"dropout": key}
        logits = self.model.apply({"params": params}, *columns, train=True, rngs=rngs)
        losses = dlrm.binary_cross_entropy(logits, jnp.asarray(batch["y"]))
        return jnp.mean(losses), model_state

    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        columns = (batch["dense"], batch["ids"])
        logits = self.model.apply({"params": params}, *columns, train=False)
        losses = dlrm.binary_cross_entropy(logits, jnp.asarray(batch["y"]))
        weight = jnp.asarray(batch["weight"])
        return {"loss": (jnp.sum(losses * weight), jnp.sum(weight))}, {}
