"""The program of an optimizer that makes whole updates by itself.

Boundary: as ``step``, but the updates are the optimizer's own, on one device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.framework.devices import Devices
from timetrial.framework.entries import Optimizer
from timetrial.framework.errors import ConfigError
from timetrial.framework.state import StepMetrics, TrainState
from timetrial.framework.step import Point, Program, key_data
from timetrial.framework.types import Metrics
from timetrial.framework.update import Inputs
from timetrial.framework.workload import Batch, Workload


class WholeStepProgram(Program):
    """The functions of one (workload, optimizer), whose updates the optimizer makes.

    An update ends before the next one begins. ``compile`` makes two updates and one preparation of
    an evaluation on a copy of the state, so that what the optimizer compiles is not charged to
    its first updates.

    Raises:
        ConfigError: there are several devices, or microbatches.
    """

    waits = True

    def __init__(
        self,
        workload: Workload,
        optimizer: Optimizer,
        devices: Devices | None = None,
        microbatches: int = 1,
    ) -> None:
        super().__init__(workload, optimizer, devices, microbatches)
        if self.devices.count > 1 or microbatches > 1:
            raise ConfigError(
                "train: expected devices=1 and microbatches=1 for an optimizer that makes whole "
                f"updates, got {self.devices.count} devices, {microbatches} microbatches"
            )
        assert optimizer.step is not None
        self._step = optimizer.step
        self._no_metrics = StepMetrics.of({})  # made once: an array costs each update time

    def init(self, seed: int) -> TrainState:
        params, model_state, key = self._init_model(*key_data(seed))
        mine, its = jax.tree.map(jnp.copy, (params, model_state))
        opt_state = self._step.init(mine, its, key)
        step = jax.device_put(np.zeros((), np.int32), self.devices.whole)
        return TrainState(step, params, model_state, opt_state, key)

    def compile(self, state: TrainState, inputs: Inputs) -> None:
        if self._train_step is None:
            self.devices.check(self.workload.batch_spec(), "training batch")
            batch = self.devices.place(self.workload.train_batch(0, 0))
            warm = _copied(state)
            for _ in range(2):  # the second one gets its arrays from the first one, not from us
                warm, _ = self._updated(warm, batch, {})
            jax.block_until_ready(_arrays(self._step.eval_point(warm)))
            self._train_step = self._updated
        super().compile(dataclasses.replace(state, opt_state=_arrays(state.opt_state)), inputs)

    def _updated(
        self, state: TrainState, batch: Batch, inputs: Inputs
    ) -> tuple[TrainState, StepMetrics]:
        new = self._step.update(state, batch)
        jax.block_until_ready(_arrays(new))
        return new, self._no_metrics

    def eval_point(self, state: TrainState) -> Point:
        return self._step.eval_point(
            _copied(state) if self.optimizer.evaluates_elsewhere else state
        )

    def evaluate(
        self,
        state: TrainState,
        stopped: Callable[[], bool] = lambda: False,
        point: Point | None = None,
    ) -> Metrics | None:
        metrics = super().evaluate(state, stopped, point)
        if metrics is not None:
            self._step.evaluated(int(state.step), metrics)
        return metrics


def _copied(state: TrainState) -> TrainState:
    """The state with arrays of its own, so that they may be donated."""

    def copy(leaf: Any) -> Any:
        return jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf

    copied: TrainState = jax.tree.map(copy, state)
    return copied


def _arrays(tree: Any) -> list[jax.Array]:
    """The arrays of a tree that may hold functions and Python values, too."""
    return [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
