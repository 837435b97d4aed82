"""Gradients of a batch, in one piece or added up over microbatches.

Boundary: pure functions of arrays; the optimizer is not involved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from timetrial.framework.types import PyTree
from timetrial.framework.workload import Batch, Workload

Gradients = tuple[tuple[jax.Array, PyTree], PyTree]
"""``((loss, model_state), grads)``, as ``jax.value_and_grad`` returns them."""


def loss_and_gradients(workload: Workload, microbatches: int) -> Callable[..., Gradients]:
    """Returns ``(params, model_state, batch, key) -> ((loss, model_state), grads)``.

    With several microbatches, losses and gradients are means over them, weighted by
    ``Workload.weight``. They equal those of the whole batch where the loss is a weighted mean over
    examples. Batch norm is the exception, its means and variances are those of a microbatch, and so
    is dropout, whose masks are others.

    Microbatch i has the rows i, i + n, i + 2n, ...: each device then keeps its own rows.

    Args:
        workload: training problem.
        microbatches: n, number of microbatches, >= 1; it divides the rows of a batch.
    """
    whole = jax.value_and_grad(workload.loss, has_aux=True)
    if microbatches == 1:
        return whole

    def parts(values: jax.Array) -> jax.Array:
        apart = values.reshape(-1, microbatches, *values.shape[1:])
        return jnp.swapaxes(apart, 0, 1)

    def accumulated(params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array) -> Gradients:
        def add(carry: Any, part: tuple[jax.Array, Batch]) -> tuple[Any, None]:
            sums, total, model_state = carry
            index, rows = part
            own = jax.random.fold_in(key, index)
            (loss, model_state), grads = whole(params, model_state, rows, own)
            weight = jnp.asarray(workload.weight(rows), jnp.float32)

            def weighted(sum_: jax.Array, value: jax.Array) -> jax.Array:
                # A microbatch without weight has no loss: 0 / 0.
                return sum_ + jnp.where(weight > 0, weight * value, 0).astype(sum_.dtype)

            sums = jax.tree.map(weighted, sums, (loss, grads))
            return (sums, total + weight, model_state), None

        zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
        each = jax.tree.map(lambda values: parts(jnp.asarray(values)), dict(batch))
        start = (zeros, jnp.zeros(()), model_state)
        index = jnp.arange(microbatches)
        (sums, total, model_state), _ = jax.lax.scan(add, start, (index, each))
        loss, grads = jax.tree.map(lambda x: x / total.astype(x.dtype), sums)
        return (loss, model_state), grads

    return accumulated
