"""The schedule of rules behind a learning rate, and AdamW under it for comparison.

Boundary: pure functions of one lane's arrays; the caller vectorises over lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from timetrial.optimizers.metatraining.rules import Rule

PyTree = Any

_WARM_UP = 0.05


def schedule(step: jax.Array, num_steps: jax.Array) -> jax.Array:
    """Share of the rate at a step: linear warm-up over 5 % of the steps, then a cosine to 0.

    Args:
        step: updates made before this one.
        num_steps: updates in all, >= 1.
    """
    done = (step.astype(jnp.float32) + 1.0) / num_steps.astype(jnp.float32)
    fallen = jnp.clip((done - _WARM_UP) / (1.0 - _WARM_UP), 0.0, 1.0)
    return jnp.minimum(1.0, done / _WARM_UP) * 0.5 * (1.0 + jnp.cos(jnp.pi * fallen))


class Moments(NamedTuple):
    """Averages of the gradients of some tensors and of their squares."""

    first: tuple[jax.Array, ...]
    second: tuple[jax.Array, ...]


def init_moments(params: Sequence[jax.Array]) -> Moments:
    """Zeros."""
    zeros = tuple(jnp.zeros_like(p) for p in params)
    return Moments(zeros, zeros)


def adam_directions(
    moments: Moments, grads: Sequence[jax.Array], step: jax.Array, beta2: float
) -> tuple[list[jax.Array], Moments]:
    """Adam's directions along the gradients, without rate (Kingma and Ba, 2014, arXiv:1412.6980).

    Args:
        moments: before the step.
        grads: of the same tensors.
        step: updates made before this one.
        beta2: decay of the second moment; that of the first is 0.9.
    """
    count = step.astype(jnp.float32) + 1.0
    first = tuple(0.9 * m + 0.1 * g for m, g in zip(moments.first, grads, strict=True))
    second = tuple(
        beta2 * v + (1.0 - beta2) * g * g for v, g in zip(moments.second, grads, strict=True)
    )
    m_scale, v_scale = 1.0 / (1.0 - 0.9**count), 1.0 / (1.0 - beta2**count)
    found = [
        m * m_scale / (jnp.sqrt(v * v_scale) + 1e-8) for m, v in zip(first, second, strict=True)
    ]
    return found, Moments(first, second)


def adamw_rule(learning_rate: jax.Array, weight_decay: jax.Array | float = 0.0) -> Rule:
    """AdamW under the schedule (Loshchilov and Hutter, 2017, arXiv:1711.05101); without decay Adam.

    Args:
        learning_rate: after the warm-up.
        weight_decay: multiplied by the rate, on all tensors.
    """

    def init(params: PyTree, num_steps: jax.Array) -> Moments:
        del num_steps
        return init_moments(jax.tree.leaves(params))

    def update(
        params: PyTree,
        state: Moments,
        grads: PyTree,
        loss: jax.Array,
        step: jax.Array,
        num_steps: jax.Array,
    ) -> tuple[PyTree, Moments]:
        del loss
        leaves, treedef = jax.tree.flatten(params)
        found, state = adam_directions(state, jax.tree.leaves(grads), step, 0.999)
        rate = learning_rate * schedule(step, num_steps)
        moved = [p - rate * (u + weight_decay * p) for p, u in zip(leaves, found, strict=True)]
        return jax.tree.unflatten(treedef, moved), state

    return Rule(init, update)
