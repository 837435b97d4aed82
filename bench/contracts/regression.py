"""Linear regression on a fixed data set: a workload that trains in microseconds.

Boundary: pure; used by the contract checks of optimizers, not by races.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.framework.types import Direction, PyTree, Split
from timetrial.framework.workload import Batch, Sums, Workload

DATA = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
TRUE = np.array([1.0, -2.0, 0.5], np.float32)


class Regression(Workload):
    """Fits 3 weights and a bias to 40 points; the loss is the squared error."""

    name = "tiny"
    metric = "loss"
    direction = Direction.MINIMIZE

    def __init__(
        self,
        *,
        step_hint: int = 20,
        eval_every_steps: int | None = 5,
        eval_every_seconds: float | None = None,
        batch_size: int = 4,
    ) -> None:
        self.step_hint = step_hint
        self.eval_every_steps = eval_every_steps
        self.eval_every_seconds = eval_every_seconds
        self._batch_size = batch_size

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        return {"w": jax.random.normal(key, (3,)), "b": jnp.zeros(())}, {"seen": jnp.zeros(())}

    def _losses(self, params: PyTree, batch: Batch) -> jax.Array:
        losses: jax.Array = (batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2
        return losses

    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        return jnp.mean(self._losses(params, batch)), {"seen": model_state["seen"] + 1}

    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        losses, weight = self._losses(params, batch), batch["weight"]
        return {"loss": (jnp.sum(losses * weight), jnp.sum(weight))}, {"first": losses[0]}

    def finish(self, outputs: Sequence[PyTree]) -> dict[str, float]:
        return {"batches": float(len(outputs))}

    def train_batch(self, seed: int, step: int) -> Batch:
        rows = np.random.default_rng((seed, step)).integers(0, len(DATA), self._batch_size)
        return {"x": DATA[rows], "y": DATA[rows] @ TRUE}

    def eval_batches(self, split: Split) -> Sequence[Batch]:
        start = {"train": 0, "validation": 10, "test": 20}[split]
        batches = []
        for rows, weights in (((0, 1, 2, 3), (1, 1, 1, 1)), ((4, 5, 0, 0), (1, 1, 0, 0))):
            x = DATA[start + np.array(rows)]
            batches.append({"x": x, "y": x @ TRUE, "weight": np.array(weights, np.float32)})
        return batches

    def datasets(self) -> Mapping[str, str]:
        return {"tiny": "0" * 64}
