"""One update, and one refresh of batch-norm statistics, as pure functions.

Boundary: pure functions of arrays; ``step`` compiles them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial.framework import extra_inputs
from timetrial.framework.accumulation import loss_and_gradients
from timetrial.framework.state import StepMetrics, TrainState
from timetrial.framework.types import PyTree
from timetrial.framework.workload import Batch, Workload

Inputs = Mapping[str, np.ndarray]
"""Inputs of an update from callbacks, float32 scalars: ``{"remaining_fraction": 0.73}``."""

NORM_APART: Final = 2**20
"""Parameters from which on the norm of the gradient is computed apart from the optimizer."""

TrainStep = Callable[[TrainState, Batch, Inputs], tuple[TrainState, StepMetrics]]


def make_train_step(
    workload: Workload,
    tx: optax.GradientTransformation,
    microbatches: int = 1,
    takes: Sequence[str] | None = None,
) -> TrainStep:
    """Returns the pure function of one update: ``(state, batch, inputs) -> (state, metrics)``.

    The optimizer is called as ``tx.update(grads, opt_state, params, **extra)`` with the extra
    inputs that it takes, see ``extra_inputs``. The metrics are ``loss``, the mean training loss
    before the update, and ``grad_norm``, the Euclidean norm of its gradient over all parameters.
    """
    update = optax.with_extra_args_support(tx).update
    gradients = loss_and_gradients(workload, microbatches)

    def train_step(
        state: TrainState, batch: Batch, inputs: Inputs
    ) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(state.key, state.step)
        (loss, model_state), grads = gradients(state.params, state.model_state, batch, key)
        grads, norm = _with_norm(grads)

        def elsewhere(params: PyTree) -> tuple[jax.Array, PyTree]:
            (loss, _), grads = gradients(params, state.model_state, batch, key)
            return loss, grads

        available = {**extra_inputs.of_step(elsewhere, loss, grads), **inputs}
        extra = extra_inputs.taken(tx, takes, available)
        updates, opt_state = update(grads, state.opt_state, state.params, **extra)
        new = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=model_state,
            opt_state=opt_state,
            key=state.key,
        )
        return new, StepMetrics.of({"loss": loss, "grad_norm": norm})

    return train_step


def make_norm_refresh(workload: Workload, microbatches: int = 1) -> Callable[..., PyTree]:
    """Returns ``(params, model_state, batch, key, number) -> model_state``, in training mode.

    ``number`` is that of the batch, an int32 scalar.
    """
    gradients = loss_and_gradients(workload, microbatches)

    def refreshed(
        params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array, number: jax.Array
    ) -> PyTree:
        (_, new), _ = gradients(params, model_state, batch, jax.random.fold_in(key, number))
        return new  # the compiler leaves the gradient out

    return refreshed


def _with_norm(grads: PyTree) -> tuple[PyTree, jax.Array]:
    """The gradient and its Euclidean norm; of a large model computed apart from the optimizer.

    Otherwise XLA computes squares once for the norm and the optimizer, and stores them: 3 % of the
    CPU time of an update of a DLRM (docs/speed.md).
    """
    norm = optax.tree.norm(jax.tree.map(_not_half, grads))
    if sum(leaf.size for leaf in jax.tree.leaves(grads)) < NORM_APART:
        return grads, norm
    apart: tuple[PyTree, jax.Array] = jax.lax.optimization_barrier((grads, norm))
    return apart


def _not_half(leaf: jax.Array) -> jax.Array:
    """In float32 if half precision: squares of float16 are infinite from 256 on."""
    half = leaf.dtype in (jnp.float16, jnp.bfloat16)
    return leaf.astype(jnp.float32) if half else leaf


def all_finite(tree: PyTree) -> jax.Array:
    """Whether no number of a tree is NaN or infinite, a boolean scalar."""
    inexact = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(leaf)) for leaf in inexact], bool))
