"""Image reconstruction: mean absolute error and SSIM.

Boundary: loss and metrics only; model, data and masks belong to each workload.

Follows AlgoPerf's workload ``fastmri`` (Dahl et al., "Benchmarking Neural Network Training
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
from timetrial.workloads.models import unet
from timetrial.workloads.tasks import metrics


class ImageReconstruction(Workload):
    """Workloads that reconstruct images; the deciding metric is SSIM on validation.

    Batches: ``x``, ``y`` (N, S, S), normalised, and ``mean``, ``std``, ``volume_max`` (N,), all
    float32; evaluation batches also have ``weight`` (N,).

    Attributes:
        model: takes ``x``, ``train`` and the random numbers ``dropout``; gives images (N, S, S).
        image_size: S, in pixels.
    """

    metric: ClassVar[str] = "ssim"
    direction: ClassVar[Direction] = Direction.MAXIMIZE
    model: nn.Module
    image_size: int

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        x = jnp.zeros((1, self.image_size, self.image_size))
        return self.model.init(key, x, train=False)["params"], {}

    def roles(self, params: PyTree) -> PyTree:
        return last_layer(super().roles(params), "Conv")

    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        rngs = {"dropout": key}
        outputs = self.model.apply({"params": params}, batch["x"], train=True, rngs=rngs)
        return jnp.mean(unet.l1_loss(outputs, jnp.asarray(batch["y"]))), model_state

    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        b = {name: jnp.asarray(values) for name, values in batch.items()}
        outputs = self.model.apply({"params": params}, b["x"], train=False)
        losses = unet.l1_loss(outputs, b["y"])
        ssim = metrics.ssim(outputs, b["y"], b["mean"], b["std"], b["volume_max"])
        weight = b["weight"]
        count = jnp.sum(weight)
        sums = {
            "loss": (jnp.sum(losses * weight), count),
            "ssim": (jnp.sum(ssim * weight), count),
        }
        return sums, {}
