"""The trainer: one loop of updates and evaluations, with a clock and callbacks.

Boundary: order and timing only; no I/O, no judgement of metrics.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from timetrial.framework.budget import Budget, StopReason
from timetrial.framework.callbacks import Callback, StepInfo
from timetrial.framework.clock import TRAIN, Clock
from timetrial.framework.compilation import without_cache
from timetrial.framework.errors import Interrupted
from timetrial.framework.feed import Feed, is_ready
from timetrial.framework.hosts import Agreed, Team, read
from timetrial.framework.records import Row, RunResult
from timetrial.framework.state import StepMetrics, TrainState
from timetrial.framework.step import Point, Program
from timetrial.framework.update import Inputs


@dataclasses.dataclass(frozen=True)
class Earlier:
    """The earlier part of a resumed run; nothing for a new one.

    Attributes:
        evaluations: its evaluations; the result includes them.
        ending: the reason if the run is over already.
        stalled_updates: updates that began on an idle device.
    """

    evaluations: Sequence[Row] = ()
    ending: StopReason | None = None
    stalled_updates: int = 0


class Trainer:
    """Trains one workload with one optimizer until its budget is used up or a callback ends it.

    Args:
        program: compiled functions of the workload and the optimizer.
        budget: limit of the run.
        callbacks: called in this order; the first StopReason counts.
        seed: seed of the order of the batches.
        clock: clock of the run, already running.
        earlier: the earlier part of a resumed run.
        last_step: number of steps the optimizer is built for, where it has nothing to do after
            them; None has no end.
        signalled: returns the number of the signal (SIGTERM, ...) received, 0 without. The run is
            then interrupted after the update under way; all hosts after the same one.
    """

    def __init__(
        self,
        program: Program,
        budget: Budget,
        callbacks: Sequence[Callback],
        seed: int = 0,
        clock: Clock | None = None,
        earlier: Earlier = Earlier(),
        last_step: int | None = None,
        signalled: Callable[[], int] = lambda: 0,
    ) -> None:
        self.program = program
        self.workload = program.workload
        self.budget = budget
        self.callbacks = callbacks
        self.seed = seed
        self.clock = clock or Clock()
        self.last_step = last_step
        self._team = Team(program.devices, signalled)
        self._signalled = signalled
        self._signal = 0
        self._pause_due = False
        self._pausing = [c for c in callbacks if type(c).pause_due is not Callback.pause_due]
        self._earlier = earlier
        self._evaluations = list(earlier.evaluations)
        self._finished_at = self.clock.train_seconds
        self._recent_step_seconds: deque[float] = deque(maxlen=16)
        self._stalled_updates = earlier.stalled_updates

    def fit(self, state: TrainState) -> RunResult:
        """Trains from ``state`` and donates its buffers; evaluates first and last.

        A resumed run continues at the moment of its checkpoint: an evaluation made is not repeated,
        one that was due is made.

        Returns:
            Stop reason, evaluations, seconds by account and the last state.

        Raises:
            Interrupted: a signal came; the callbacks have been given the state.
        """
        result = None
        step = int(state.step)
        # Batches are made ahead during compilation and the first evaluation.
        feed = self.program.feed(self.seed, step)
        try:
            self._compile(state, step)
            with self.clock.charge("log"):
                for callback in self.callbacks:
                    callback.on_fit_start(self._info(step))
            reason = self._earlier.ending
            if self._starts_with_evaluation(step, reason):
                reason = self._evaluate(state, step, reason) or reason
            while reason is None:
                state, step, reason = self._train(state, step, feed)
                if not self._signal and (reason or self._evaluation_due(step)):
                    reason = self._evaluate(state, step, reason) or reason
                else:
                    self._pause(state, step, reason)
            self._pause(state, step, reason, last=True)
            seconds = self.clock.accounts()
            evaluations, stalled = tuple(self._evaluations), self._stalled_updates
            sources = tuple(sorted(self.program.sources))
            result = RunResult(
                reason, step, seconds, evaluations, state, stalled, compile_sources=sources
            )
            return result
        finally:
            with contextlib.ExitStack() as ending:  # calls every callback, even when one raises
                ending.callback(feed.close)
                for callback in reversed(self.callbacks):
                    ending.callback(callback.on_fit_end, result)

    def _compile(self, state: TrainState, step: int) -> None:
        """Compiles the program; charged seconds are those of a whole compilation."""
        charged = self.budget.charge_compile
        cache = without_cache() if charged else contextlib.nullcontext()
        with self.clock.charge(TRAIN if charged else "compile"), cache:
            self.program.compile(state, self._inputs(step))

    def _train(
        self, state: TrainState, step: int, feed: Feed
    ) -> tuple[TrainState, int, StopReason | None]:
        """Updates until an evaluation is due or a callback ends the run.

        Update t is issued while update t-1 still runs, so that the device is never idle. Then the
        loop waits for t-1, so that charged seconds cover finished updates only. Close to a mark of
        a time budget nothing is issued ahead, so the overshoot is at most one update.
        """
        reason: StopReason | None = None
        self._pause_due = False
        under_way: deque[tuple[int, StepMetrics]] = deque()
        with self.clock.charge(TRAIN):
            while True:
                batch = self.clock.take(feed)
                if under_way and not self.program.waits and is_ready(under_way[-1][1]):
                    self._stalled_updates += 1  # the device had nothing to do
                state, metrics = self.program.train_step(state, batch, self._inputs(step))
                step += 1
                under_way.append((step, metrics))
                while not (reason or self._pause_due) and len(under_way) > self._issued_ahead():
                    reason = self._finish(*under_way.popleft(), issued=step)
                if reason or self._pause_due or self._evaluation_due(step):
                    break
            for update in under_way:
                reason = first_reason([reason, self._finish(*update, issued=step)])
            self.clock.wait(state)
        return state, step, reason

    def _finish(self, step: int, metrics: StepMetrics, issued: int) -> StopReason | None:
        """Waits for update ``step`` and calls the callbacks."""
        before = self._finished_at
        self._finished_at = self.clock.wait(metrics)
        self._accept(None if metrics.signal is None else read(metrics.signal))
        self._recent_step_seconds.append(self._finished_at - before)
        info = StepInfo(
            step=step,
            train_seconds=self._finished_at,
            used=self.budget.used(issued, self._finished_at),
            issued=issued,
            metrics=metrics.read(),
        )
        found = [callback.on_step_end(info) for callback in self.callbacks]
        if self._signal or any(callback.pause_due(info) for callback in self._pausing):
            self._pause_due = True
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

    def _starts_with_evaluation(self, step: int, ending: StopReason | None) -> bool:
        """True for a new run, and for a resumed one whose next evaluation is due."""
        if not self._evaluations:
            return True
        made = self._evaluations[-1].step == step
        return not made and (ending is not None or self._evaluation_due(step))

    def _evaluation_due(self, step: int) -> bool:
        """True at the workload's cadence, at each mark of the budget and at the last step."""
        start = self._evaluations[-1]
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
        point = self._eval_point(state)
        with self.clock.charge("eval", after=state):
            self._accept(None if self._team.alone else self._team.agree(self.clock.train_seconds))
            evaluate, stopped = self.program.evaluate, self._stop_evaluating
            metrics = None if self._signal else evaluate(state, stopped, point)
        if metrics is None:
            self._pause(state, step, ending)  # raises
            return ending
        finite = self.program.finite_params
        info = dataclasses.replace(self._info(step), ending=ending, finite_params=finite)
        self._evaluations.append(Row(step, info.train_seconds, metrics))
        with self.clock.charge("log"):
            reason = first_reason(
                [callback.on_eval_end(info, metrics, state) for callback in self.callbacks]
            )
        if ending is None and reason is None:
            self._pause(state, step)
        return reason

    def _eval_point(self, state: TrainState) -> Point:
        """The parameters to evaluate; charged where they are not those of the training."""
        if not self.program.optimizer.evaluates_elsewhere:
            return self.program.eval_point(state)
        with self.clock.charge(TRAIN):
            point = self.program.eval_point(state)
            self._finished_at = self.clock.wait(point)
        return point

    def _stop_evaluating(self) -> bool:
        """True after a signal; several hosts first agree about it."""
        if self._team.alone:
            self._accept(None)
        return self._signal > 0

    def _pause(
        self,
        state: TrainState,
        step: int,
        ending: StopReason | None = None,
        *,
        last: bool = False,
    ) -> None:
        """Calls the callbacks with the whole state; ends the run after a signal.

        Raises:
            Interrupted: a signal came, and the run is not over.
        """
        if not last and self._team.alone:
            self._accept(None)
        info = dataclasses.replace(self._info(step), ending=ending)
        with self.clock.charge("log", after=state):
            for callback in self.callbacks:
                callback.on_pause(info, state, last or self._signal > 0)
        if self._signal and not last:
            raise Interrupted(self._signal)

    def _accept(self, agreed: Agreed | None) -> None:
        """Takes over the numbers of all hosts; of one host alone its own signal."""
        if agreed is None:
            self._signal = self._signal or self._signalled()
        else:
            self._finished_at = agreed.seconds
            self._signal = self._signal or agreed.ending

    def _info(self, step: int) -> StepInfo:
        seconds = self.clock.train_seconds if self._team.alone else self._finished_at
        used, stalled = self.budget.used(step, seconds), self._stalled_updates
        return StepInfo(step, seconds, used, issued=step, stalled_updates=stalled)

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
