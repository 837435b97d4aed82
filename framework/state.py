"""The state of a training run, and the metrics of an update.

Boundary: data only; ``update`` makes both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.framework.types import PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """State of a training run: saved by checkpoints, donated by each update.

    Attributes:
        step: int32 scalar, number of updates made.
        params: trainable parameters.
        model_state: non-trainable variables (batch-norm statistics); ``{}`` without any.
        opt_state: state of the optimizer.
        key: PRNG key of the run; update ``t`` draws from ``fold_in(key, t)``.
    """

    step: jax.Array
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    key: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepMetrics:
    """Metrics of one update in one array: the host waits for it and reads it once.

    Attributes:
        values: (n,) in the order of the names.
        names: of the metrics.
        signal: (3,) int32, what the hosts agree on, see ``hosts``; None for a host alone.
    """

    values: jax.Array
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    signal: jax.Array | None = None

    @classmethod
    def of(cls, metrics: Mapping[str, jax.Array]) -> StepMetrics:
        """Scalars by name, stacked."""
        values = jnp.stack(list(metrics.values())) if metrics else jnp.zeros(0)
        return cls(values, tuple(metrics))

    def __getitem__(self, name: str) -> jax.Array:
        """The scalar of a metric.

        Raises:
            ValueError: there is no such metric.
        """
        return self.values[self.names.index(name)]

    def read(self) -> dict[str, float]:
        """The numbers by name, on the host; waits for them."""
        return dict(zip(self.names, np.asarray(self.values).tolist(), strict=True))
