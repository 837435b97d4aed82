"""Callbacks observe a run and may ask it to stop.

Boundary: numbers in, a stop reason out; sinks of the numbers (MLflow, a terminal) are arguments.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from timetrial.framework.budget import StopReason
from timetrial.framework.records import Row, RunResult, Tracker
from timetrial.framework.types import Direction, Metrics

if TYPE_CHECKING:  # they load JAX
    from timetrial.framework.memory import Memory
    from timetrial.framework.state import TrainState


@dataclasses.dataclass(frozen=True)
class StepInfo:
    """Numbers of a run at one moment.

    Attributes:
        step: updates made.
        train_seconds: charged seconds so far.
        used: share of the budget used; 1 is all of it.
        issued: updates issued: ``step``, or ``step + 1`` while the next one runs.
        metrics: ``loss`` and ``grad_norm`` of the last update; empty outside ``on_step_end``.
        ending: stop reason already decided before this evaluation or pause, else None.
        stalled_updates: updates so far that began on an idle device.
        finite_params: False at an evaluation of parameters with NaN or infinite numbers.
    """

    step: int
    train_seconds: float
    used: float
    issued: int
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ending: StopReason | None = None
    stalled_updates: int = 0
    finite_params: bool = True


class Callback:
    """Optional hooks; a StopReason returned by a hook ends the run."""

    def on_fit_start(self, info: StepInfo) -> None:
        """Called once, before the first evaluation."""

    def step_inputs(self, info: StepInfo) -> Mapping[str, float]:
        """Inputs of the next update; the names never change."""
        return {}

    def on_step_end(self, info: StepInfo) -> StopReason | None:
        """Called once per finished update, in order. Timed: no I/O, no device arrays."""
        return None

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> StopReason | None:
        """Called after each evaluation. The clock is paused, so I/O is not charged."""
        return None

    def pause_due(self, info: StepInfo) -> bool:
        """True to pause the run after this update. Timed, called once per update: no I/O."""
        return False

    def on_pause(self, info: StepInfo, state: TrainState, last: bool) -> None:
        """Called when the run stands still and ``state`` is whole. The clock is paused.

        That is after an evaluation, after an update when ``pause_due``, and at the end.

        Args:
            info: the moment; ``info.ending`` is the reason if the run is over.
            state: the state, valid during the call only.
            last: True when no update follows in this process: the run is over or interrupted.
        """

    def on_fit_end(self, result: RunResult | None) -> None:
        """Called exactly once; ``result`` is None after an exception."""

    def state(self) -> Mapping[str, Any]:
        """What a resumed run needs of this callback, as JSON data; saved with a checkpoint."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes over a saved ``state``, before the run continues."""


class FeedRemainingFraction(Callback):
    """Gives every update ``remaining_fraction``: the share of the budget left, from 1 to 0."""

    def step_inputs(self, info: StepInfo) -> Mapping[str, float]:
        return {"remaining_fraction": max(0.0, 1.0 - info.used)}


@dataclasses.dataclass(frozen=True)
class StopAtTarget(Callback):
    """Stops once an evaluated metric reaches the target.

    Attributes:
        metric: name as evaluated, for example ``"validation/accuracy"``.
        target: value to reach.
        direction: direction of the metric.
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
    """Stops when a loss, a gradient, a parameter or an evaluated metric is NaN or infinite.

    Loss and gradient are checked after every update: both are among its metrics. The gradient by
    its norm over all parameters, which is infinite in float32 from about 1.8e19 on. Such a
    gradient ends the run, whether the optimizer would clip it, skip it or use it. Parameters are
    checked at every evaluation, those that no loss depends on too. Nothing waits for the device
    on this account.

    Attributes:
        found: what was not finite first: ``loss``, ``gradient``, ``parameters`` or
            ``metric NAME``; "" while all is.
    """

    def __init__(self) -> None:
        self.found = ""

    def on_step_end(self, info: StepInfo) -> StopReason | None:
        values = {"loss": "loss", "gradient": "grad_norm"}
        return self._judged(
            [what for what, name in values.items() if not _finite(info.metrics, name)]
        )

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> StopReason | None:
        bad = [f"metric {name}" for name in metrics if not _finite(metrics, name)]
        return self._judged([*([] if info.finite_params else ["parameters"]), *bad])

    def state(self) -> Mapping[str, Any]:
        return {"found": self.found}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.found = str(state["found"])

    def _judged(self, bad: Sequence[str]) -> StopReason | None:
        self.found = self.found or next(iter(bad), "")
        return StopReason.DIVERGED if bad else None


def _finite(metrics: Mapping[str, float], name: str) -> bool:
    return math.isfinite(metrics.get(name, 0.0))


class Hopeless(Protocol):
    """Decides whether a run is pruned."""

    def __call__(self, info: StepInfo, value: float) -> bool:
        """True for a hopeless run. The clock is paused, so I/O is not charged."""

    def state(self) -> Mapping[str, Any]:
        """As of ``Callback``."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """As of ``Callback``."""


class Prune(Callback):
    """Stops a hopeless run at an evaluation, unless another stop reason is already decided.

    Args:
        metric: name as evaluated, for example ``"validation/accuracy"``.
        hopeless: decides from the moment and the value of ``metric``.
    """

    def __init__(self, metric: str, hopeless: Hopeless) -> None:
        self._metric = metric
        self._hopeless = hopeless

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> StopReason | None:
        if info.ending is not None or not self._hopeless(info, metrics[self._metric]):
            return None
        return StopReason.PRUNED

    def state(self) -> Mapping[str, Any]:
        return self._hopeless.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self._hopeless.restore(state)


class CheckMemory(Callback):
    """Ends a run that cannot fit into memory before its first update, and shows a large need.

    Args:
        memory: returns the need, None if unknown; called after compilation.
        note: shows a line.
    """

    def __init__(self, memory: Callable[[], Memory | None], note: Callable[[str], None]) -> None:
        self._memory = memory
        self._note = note

    def on_fit_start(self, info: StepInfo) -> None:
        memory = self._memory()
        if memory is not None:
            memory.check()
            if memory.noteworthy:
                self._note(str(memory))


class Track(Callback):
    """Sends every number of the run to a tracker while the clock is paused.

    Args:
        tracker: destination of the numbers.
        machine: returns further metrics for the row of an evaluation: the state of the machine.
    """

    def __init__(self, tracker: Tracker, machine: Callable[[], Mapping[str, float]] = dict) -> None:
        self._tracker = tracker
        self._machine = machine
        self._rows: list[Row] = []

    def on_step_end(self, info: StepInfo) -> StopReason | None:
        named = {f"batch/{name}": value for name, value in info.metrics.items()}
        self._rows.append(Row(info.step, info.train_seconds, named))
        return None

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> StopReason | None:
        self._rows.append(Row(info.step, info.train_seconds, {**metrics, **self._machine()}))
        self._flush()
        return None

    def on_pause(self, info: StepInfo, state: TrainState, last: bool) -> None:
        self._flush()

    def on_fit_end(self, result: RunResult | None) -> None:
        self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._tracker.log(rows)


class Watch(Callback):
    """Reports the progress of a run.

    Args:
        on_step: called after each update. Timed: no I/O.
        on_eval: called with the metrics of each evaluation. The clock is paused, so it may print.
        on_note: called before the first evaluation with lines to show.
    """

    def __init__(
        self,
        on_step: Callable[[StepInfo], None],
        on_eval: Callable[[StepInfo, Metrics], None],
        on_note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.note = on_note
        self._on_step = on_step
        self._on_eval = on_eval

    def on_step_end(self, info: StepInfo) -> StopReason | None:
        self._on_step(info)
        return None

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> StopReason | None:
        self._on_eval(info, metrics)
        return None
