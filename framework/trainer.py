"""The trainer: one loop of updates and evaluations, with a clock and callbacks.

Boundary: order and timing only; no I/O, no judgement of metrics.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from timetrial.framework.budget import Budget, StopReason
from timetrial.framework.callbacks import Callback, StepInfo
from timetrial.framework.clock import TRAIN, Clock
from timetrial.framework.errors import Interrupted
from timetrial.framework.feed import Feed, is_ready
from timetrial.framework.hosts import SIGNAL, Agreed, Team, read
from timetrial.framework.records import Row, RunResult
from timetrial.framework.step import Inputs, Program
from timetrial.framework.types import TrainState


class Trainer:
    """Trains one workload with one optimizer until its budget is used up or a callback ends it.

    Args:
        program: compiled functions of the workload and the optimizer.
        budget: limit of the run.
        callbacks: called in this order; the first StopReason counts.
        seed: seed of the order of the batches.
        clock: clock of the run, already running.
        evaluations: evaluations of an earlier part of the run; the result includes them.
        last_step: number of steps the optimizer is built for, where it has nothing to do after
            them; None has no end.
        ending: on several hosts, returns the number of the signal (SIGTERM, ...) received, 0
            without; all hosts then end after the same update.
    """

    def __init__(
        self,
        program: Program,
        budget: Budget,
        callbacks: Sequence[Callback],
        seed: int = 0,
        clock: Clock | None = None,
        evaluations: Sequence[Row] = (),
        last_step: int | None = None,
        ending: Callable[[], int] = lambda: 0,
    ) -> None:
        self.program = program
        self.workload = program.workload
        self.budget = budget
        self.callbacks = callbacks
        self.seed = seed
        self.clock = clock or Clock()
        self.last_step = last_step
        self._team = Team(program.devices, ending)
        self._evaluations = list(evaluations)
        self._finished_at = self.clock.train_seconds
        self._recent_step_seconds: deque[float] = deque(maxlen=16)
        self._stalled_updates = 0

    def fit(self, state: TrainState) -> RunResult:
        """Trains from ``state`` and donates its buffers; evaluates first and last.

        Returns:
            Stop reason, evaluations, seconds by account and the last state.
        """
        result = None
        step = int(state.step)
        # Batches are made ahead during compilation and the first evaluation.
        feed = self.program.feed(self.seed, step)
        try:
            with self.clock.charge(TRAIN if self.budget.charge_compile else "compile"):
                self.program.compile(state, self._inputs(step))
            with self.clock.charge("log"):
                for callback in self.callbacks:
                    callback.on_fit_start(self._info(step))
            reason = self._evaluate(state, step)
            while reason is None:
                state, step, reason = self._train(state, step, feed)
                reason = self._evaluate(state, step, reason) or reason
            seconds = self.clock.accounts()
            evaluations, stalled = tuple(self._evaluations), self._stalled_updates
            result = RunResult(reason, step, seconds, evaluations, state, stalled)
            return result
        finally:
            with contextlib.ExitStack() as ending:  # calls every callback, even when one raises
                ending.callback(feed.close)
                for callback in reversed(self.callbacks):
                    ending.callback(callback.on_fit_end, result)

    def _train(
        self, state: TrainState, step: int, feed: Feed
    ) -> tuple[TrainState, int, StopReason | None]:
        """Updates until an evaluation is due or a callback ends the run.

        Update t is issued while update t-1 still runs, so that the device is never idle. Then the
        loop waits for t-1, so that charged seconds cover finished updates only. Close to a mark of
        a time budget nothing is issued ahead, so the overshoot is at most one update.
        """
        reason: StopReason | None = None
        start = self._info(step)
        under_way: deque[tuple[int, Mapping[str, jax.Array]]] = deque()
        with self.clock.charge(TRAIN):
            while True:
                batch = self.clock.take(feed)
                if under_way and is_ready(under_way[-1][1]):
                    self._stalled_updates += 1  # the device had nothing to do
                state, metrics = self.program.train_step(state, batch, self._inputs(step))
                step += 1
                under_way.append((step, metrics))
                while reason is None and len(under_way) > self._issued_ahead():
                    reason = self._finish(*under_way.popleft(), issued=step)
                if reason or self._evaluation_due(step, start):
                    break
            for update in under_way:
                reason = first_reason([reason, self._finish(*update, issued=step)])
            self.clock.wait(state)
        return state, step, reason

    def _finish(
        self, step: int, metrics: Mapping[str, jax.Array], issued: int
    ) -> StopReason | None:
        """Waits for update ``step`` and calls the callbacks."""
        before = self._finished_at
        self._finished_at = self.clock.wait(metrics)
        if SIGNAL in metrics:
            self._accept(read(metrics[SIGNAL]))
        self._recent_step_seconds.append(self._finished_at - before)
        info = StepInfo(
            step=step,
            train_seconds=self._finished_at,
            used=self.budget.used(issued, self._finished_at),
            issued=issued,
            metrics={
                name: np.asarray(value).item() for name, value in metrics.items() if name != SIGNAL
            },
        )
        found = [callback.on_step_end(info) for callback in self.callbacks]
        return first_reason([*found, self._end_of(issued, info.used)])

    def _end_of(self, issued: int, used: float) -> StopReason | None:
        """The reason to issue no further update, if there is one."""
        if self.last_step is not None and issued >= self.last_step:
            return StopReason.COMPLETE
        return StopReason.BUDGET if used >= 1 else None

    def _issued_ahead(self) -> int:
        """Updates that may be issued ahead: 1, or 0 close to a mark in seconds."""
        left = self.budget.seconds_to_mark(self._finished_at)
        if left == math.inf:
            return 1
        if not self._recent_step_seconds:
            return 0
        return 0 if left < 3 * max(self._recent_step_seconds) else 1

    def _evaluation_due(self, step: int, start: StepInfo) -> bool:
        """True at the workload's cadence, at each mark of the budget and at the last step."""
        every_steps = self.workload.eval_every_steps
        every_seconds = self.workload.eval_every_seconds
        seconds = self._finished_at
        passed = self.budget.marks_passed
        return (
            (every_steps is not None and step % every_steps == 0)
            or (every_seconds is not None and seconds - start.train_seconds >= every_seconds)
            or passed(step, seconds) > passed(start.step, start.train_seconds)
            or (self.last_step is not None and step >= self.last_step)
        )

    def _evaluate(
        self, state: TrainState, step: int, ending: StopReason | None = None
    ) -> StopReason | None:
        """Evaluates with the clock paused, then calls the callbacks."""
        with self.clock.charge("eval", after=state):
            if not self._team.alone:
                self._accept(self._team.agree(self.clock.train_seconds))
            metrics = self.program.evaluate(state)
        finite = self.program.finite_params
        info = dataclasses.replace(self._info(step), ending=ending, finite_params=finite)
        self._evaluations.append(Row(step, info.train_seconds, metrics))
        with self.clock.charge("log"):
            return first_reason(
                [callback.on_eval_end(info, metrics, state) for callback in self.callbacks]
            )

    def _accept(self, agreed: Agreed) -> None:
        """Takes over the numbers of all hosts.

        Raises:
            Interrupted: a host received a signal.
        """
        self._finished_at = agreed.seconds
        if agreed.ending:
            raise Interrupted(agreed.ending)

    def _info(self, step: int) -> StepInfo:
        seconds = self.clock.train_seconds if self._team.alone else self._finished_at
        return StepInfo(step, seconds, self.budget.used(step, seconds), issued=step)

    def _inputs(self, step: int) -> Inputs:
        """Inputs of the next update from the callbacks, float32 scalars; and the hosts' signal."""
        info = self._info(step)
        fed: dict[str, np.ndarray] = {}
        for callback in self.callbacks:
            for name, value in callback.step_inputs(info).items():
                fed[name] = np.asarray(value, np.float32)
        return {**fed, **self._team.inputs(self.clock.train_seconds)}


def first_reason(answers: Sequence[StopReason | None]) -> StopReason | None:
    """The first StopReason among the results of all callbacks, or None."""
    return next((answer for answer in answers if answer is not None), None)
