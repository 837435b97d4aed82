"""Validation: final losses of whole inner runs on fixed tasks.

Pure: functions of meta-parameters; the caller keeps the best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.metatraining.families import FAMILIES
from timetrial.optimizers.metatraining.rules import MakeRule
from timetrial.optimizers.metatraining.tasks import score
from timetrial.optimizers.metatraining.unroll import final_loss, fresh, unroll

PyTree = Any
Losses = np.ndarray[Any, np.dtype[np.float32]]

VALIDATION_SEED, TEST_SEED = 20_221_117, 20_231_027
"""Seeds of the tasks that select weights and of those that report; training uses neither."""


class Validation:
    """Runs an update rule on the fixed tasks; compiles once per family.

    Args:
        make_rule: maps an array or a tree of arrays to an update rule.
        families: names of the families.
        tasks: tasks per family, >= 1.
        horizons: inner steps of the runs.
        seed: which set of tasks.
    """

    def __init__(
        self,
        make_rule: MakeRule,
        families: tuple[str, ...],
        tasks: int,
        horizons: tuple[int, ...],
        seed: int = VALIDATION_SEED,
    ) -> None:
        self._families = families
        self._horizons = horizons
        self._keys = {
            name: jax.random.split(
                jax.random.fold_in(jax.random.key(seed), list(FAMILIES).index(name)), tasks
            )
            for name in families
        }
        self._programs = {name: jax.jit(_program(name, make_rule)) for name in families}

    def losses(self, argument: PyTree, name: str) -> tuple[Losses, Losses]:
        """Final losses of a family's tasks.

        Args:
            argument: the argument of ``make_rule``.
            name: of the family.

        Returns:
            Final losses on all examples, divided by the loss of a constant prediction, and their
            scores, each (horizons, tasks); losses are infinite where training diverged.
        """
        program, keys = self._programs[name], self._keys[name]
        found = [program(argument, keys, jnp.int32(steps)) for steps in self._horizons]
        ratios, scores = zip(*found, strict=True)
        return np.stack(ratios), np.stack(scores)


def _program(name: str, make_rule: MakeRule) -> Callable[..., tuple[jax.Array, jax.Array]]:
    family = FAMILIES[name]

    def run(argument: PyTree, keys: jax.Array, steps: jax.Array) -> tuple[jax.Array, jax.Array]:
        rule = make_rule(argument)

        def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            for_task, for_params, for_batches = jax.random.split(key, 3)
            task = family.task(for_task)
            lane = fresh(rule, family.initial(task, for_params), steps)
            zero = jnp.zeros((), jnp.int32)
            lane, _ = unroll(family, rule, task, lane, for_batches, zero, steps, steps)
            loss = final_loss(family, task, lane)
            return loss / task.data.unit, score(loss, task)

        ratios, scores = jax.vmap(one)(keys)
        return ratios, scores

    return run
