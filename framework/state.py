"""The state of a training run.

Boundary: data only; ``step`` makes and updates it.
"""

from __future__ import annotations

import dataclasses

import jax

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
