"""Inner training: some steps of one lane on its task.

Pure: functions of one lane's arrays; the caller vectorises over lanes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from timetrial.optimizers.metatraining.rules import Rule
from timetrial.optimizers.metatraining.tasks import Family, Task, score

PyTree = Any


class Lane(NamedTuple):
    """One inner training in progress.

    Attributes:
        params: parameters of the model, as stored (see ``tasks``).
        rule: state of the update rule.
        frozen: whether a loss was not finite; such a lane scores the cap until its next task.
    """

    params: PyTree
    rule: PyTree
    frozen: jax.Array


def fresh(rule: Rule, params: PyTree, num_steps: jax.Array) -> Lane:
    """A lane before its first step."""
    return Lane(params, rule.init(params, num_steps), jnp.zeros((), bool))


def unroll(
    family: Family,
    rule: Rule,
    task: Task,
    lane: Lane,
    key: jax.Array,
    first: jax.Array,
    steps: int | jax.Array,
    num_steps: jax.Array,
) -> tuple[Lane, jax.Array]:
    """Makes inner steps.

    Args:
        family: of the task.
        rule: the update rule.
        task: the task to train.
        lane: state after ``first`` steps.
        key: of the order of the examples; the same for the whole run.
        first: steps made before.
        steps: steps to make; may be traced.
        num_steps: steps of the run in all.

    Returns:
        The new state, and the weighted mean of the scores of the batch losses. Late steps count up
        to seven times as much as early ones: final losses matter most, early ones vary most.
    """

    def body(i: jax.Array, carry: tuple[Lane, jax.Array]) -> tuple[Lane, jax.Array]:
        lane, total = carry
        step = first + i
        examples = family.batch(task, jax.random.fold_in(key, step))
        loss, grads = jax.value_and_grad(family.objective)(lane.params, examples, task)
        params, state = rule.update(lane.params, lane.rule, grads, loss, step, num_steps)
        frozen = lane.frozen | ~jnp.isfinite(loss)
        seen = score(jnp.where(frozen, jnp.inf, loss), task)
        weight = 0.25 + 1.5 * jnp.minimum(step / num_steps, 1.0)
        return Lane(params, state, frozen), total + weight * seen

    lane, total = jax.lax.fori_loop(0, steps, body, (lane, jnp.zeros(())))
    return lane, total / steps


def final_loss(family: Family, task: Task, lane: Lane) -> jax.Array:
    """The loss on all examples of the task; infinite in a frozen lane."""
    loss = family.objective(lane.params, task.data.examples, task)
    return jnp.where(lane.frozen, jnp.inf, loss)
