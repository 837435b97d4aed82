"""Callbacks: they watch a run and answer; they never change it.

Boundary: numbers in, an answer out. Where the numbers go (MLflow, a terminal) is injected.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from timetrial.framework.budget import StopReason
from timetrial.framework.records import Row, RunResult, Tracker
from timetrial.framework.types import Direction, Metrics, TrainState


@dataclasses.dataclass(frozen=True)
class StepInfo:
    """What a callback may know about the run at one moment: numbers only.

    Attributes:
        step: updates made.
        train_seconds: seconds charged for them.
        used: share of the budget used, 1 is all of it.
        issued: updates issued: ``step``, or one more while the next is under way.
        metrics: ``loss`` and ``grad_norm`` of the last of these updates; empty where none is known.
        ending: at an evaluation: why the run ends after it, where its updates have ended it.
    """

    step: int
    train_seconds: float
    used: float
    issued: int
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ending: StopReason | None = None


class Callback:
    """Five hooks, all optional; a hook that returns a StopReason ends the run."""

    def on_fit_start(self, info: StepInfo) -> None:
        """Called once, before the first evaluation."""

    def step_inputs(self, info: StepInfo) -> Mapping[str, float]:
        """Numbers to feed the next update; always the same names."""
        return {}

    def on_step_end(self, info: StepInfo) -> StopReason | None:
        """Called once per finished update, in order. Timed: no I/O, no device array."""
        return None

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> StopReason | None:
        """Called after each evaluation, the clock paused: any I/O is free."""
        return None

    def on_fit_end(self, result: RunResult | None) -> None:
        """Called exactly once, also after an exception: then ``result`` is None."""


class StopAtBudget(Callback):
    """Ends the run when its budget is used up."""

    def on_step_end(self, info: StepInfo) -> StopReason | None:
        return StopReason.BUDGET if info.used >= 1 else None


@dataclasses.dataclass(frozen=True)
class StopAtStep(Callback):
    """Ends the run when its optimizer has made all the updates that it was told of.

    Attributes:
        step: number of updates.
    """

    step: int

    def on_step_end(self, info: StepInfo) -> StopReason | None:
        return StopReason.COMPLETE if info.issued >= self.step else None


class FeedRemainingFraction(Callback):
    """Feeds every update ``remaining_fraction``: the share of the budget left, from 1 to 0."""

    def step_inputs(self, info: StepInfo) -> Mapping[str, float]:
        return {"remaining_fraction": max(0.0, 1.0 - info.used)}


@dataclasses.dataclass(frozen=True)
class StopAtTarget(Callback):
    """Ends the run once an evaluated metric is at the target or beyond it.

    Attributes:
        metric: name as evaluated, for example ``"validation/accuracy"``.
        target: the value to reach.
        direction: whether the metric is minimised or maximised.
    """

    metric: str
    target: float
    direction: Direction

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> StopReason | None:
        if self.metric not in metrics:
            raise ValueError(
                f"target metric: expected one of {', '.join(sorted(metrics))}, got {self.metric!r}"
            )
        return (
            StopReason.TARGET if self.direction.reached(metrics[self.metric], self.target) else None
        )


class StopIfDiverged(Callback):
    """Ends the run when the training loss, of a batch or evaluated, is NaN or infinite."""

    def on_step_end(self, info: StepInfo) -> StopReason | None:
        return None if math.isfinite(info.metrics.get("loss", 0.0)) else StopReason.DIVERGED

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> StopReason | None:
        return None if math.isfinite(metrics.get("train/loss", 0.0)) else StopReason.DIVERGED


class Prune(Callback):
    """Ends a run that is judged hopeless, at an evaluation; a run that has ended is not pruned.

    Args:
        metric: name as evaluated, for example ``"validation/accuracy"``.
        hopeless: judges by the moment and the value of ``metric``, the clock paused: any I/O.
    """

    def __init__(self, metric: str, hopeless: Callable[[StepInfo, float], bool]) -> None:
        self._metric = metric
        self._hopeless = hopeless

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> StopReason | None:
        if info.ending is not None or not self._hopeless(info, metrics[self._metric]):
            return None
        return StopReason.PRUNED


class Track(Callback):
    """Hands every number of the run to a tracker, only while the clock is paused."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._rows: list[Row] = []

    def on_step_end(self, info: StepInfo) -> StopReason | None:
        named = {f"batch/{name}": value for name, value in info.metrics.items()}
        self._rows.append(Row(info.step, info.train_seconds, named))
        return None

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> StopReason | None:
        self._rows.append(Row(info.step, info.train_seconds, metrics))
        self._flush()
        return None

    def on_fit_end(self, result: RunResult | None) -> None:
        self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._tracker.log(rows)


class Watch(Callback):
    """Reports the progress of a run.

    Args:
        on_step: must only take note, since it is called in timed code.
        on_eval: called with the metrics of each evaluation, the clock paused: may print.
    """

    def __init__(
        self,
        on_step: Callable[[StepInfo], None],
        on_eval: Callable[[StepInfo, Metrics], None],
    ) -> None:
        self._on_step = on_step
        self._on_eval = on_eval

    def on_step_end(self, info: StepInfo) -> StopReason | None:
        self._on_step(info)
        return None

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> StopReason | None:
        self._on_eval(info, metrics)
        return None
