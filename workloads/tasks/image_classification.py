"""Image classification: cross-entropy and top-1 accuracy.

Boundary: loss and metrics only; model, data and augmentation belong to each workload.

Follows AlgoPerf's workload ``imagenet_resnet`` (Dahl et al., "Benchmarking Neural Network Training
Algorithms", 2023, https://arxiv.org/abs/2306.07179).
"""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from timetrial.framework.roles import last_layer
from timetrial.framework.types import Direction, PyTree
from timetrial.framework.workload import Batch, Sums, Workload
from timetrial.workloads.models import resnet


class ImageClassification(Workload):
    """Workloads that classify images; the deciding metric is top-1 accuracy on validation.

    Batches: ``x`` (N, H, W, C) float32; ``y`` (N,) int32; evaluation batches also ``weight`` (N,).

    Attributes:
        model: takes ``x`` and ``train``; gives logits (N, classes); keeps ``batch_stats``.
        image_shape: (H, W, C).
        label_smoothing: share of the training target spread evenly over all classes, in [0, 1).
    """

    metric: ClassVar[str] = "accuracy"
    direction: ClassVar[Direction] = Direction.MAXIMIZE
    model: nn.Module
    image_shape: tuple[int, int, int]
    label_smoothing: float

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        variables = self.model.init(key, jnp.zeros((1, *self.image_shape)), train=False)
        return variables["params"], {"batch_stats": variables["batch_stats"]}

    def roles(self, params: PyTree) -> PyTree:
        return last_layer(super().roles(params), "Dense")

    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        logits, model_state = self.model.apply(
            {"params": params, **model_state}, batch["x"], train=True, mutable=["batch_stats"]
        )
        losses = resnet.softmax_cross_entropy(logits, jnp.asarray(batch["y"]), self.label_smoothing)
        return jnp.mean(losses), model_state

    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        logits = self.model.apply({"params": params, **model_state}, batch["x"], train=False)
        labels, weight = jnp.asarray(batch["y"]), jnp.asarray(batch["weight"])
        losses = resnet.softmax_cross_entropy(logits, labels)
        correct = resnet.top1_correct(logits, labels)
        count = jnp.sum(weight)
        sums = {
            "loss": (jnp.sum(losses * weight), count),
            "accuracy": (jnp.sum(correct * weight), count),
        }
        return sums, {}
