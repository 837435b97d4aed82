"""What a run leaves behind: evaluations, its result, its record as read back.

Boundary: data only; writing and reading are for ``tracking``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from timetrial.framework.budget import StopReason
from timetrial.framework.types import Condition, Direction, Status, TrainState


@dataclasses.dataclass(frozen=True)
class Row:
    """Metrics at one moment of a run; an evaluation is a row of evaluated metrics.

    Attributes:
        step: updates made.
        train_seconds: seconds charged so far.
        metrics: value by name, for example ``"validation/accuracy"`` or ``"batch/loss"``; may be
            nan or inf.
        timestamp_ms: when it was recorded, in ms since 1970; 0 while it has not been.
    """

    step: int
    train_seconds: float
    metrics: Mapping[str, float]
    timestamp_ms: int = 0


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What ``Trainer.fit`` returns.

    Attributes:
        reason: why the run ended.
        step: updates made.
        seconds: seconds by account (``train``, ``eval``, ``log``, ``compile``, ...); they sum to
            the wall time of the run.
        evaluations: all evaluations, in order.
        state: the last state.
    """

    reason: StopReason
    step: int
    seconds: Mapping[str, float]
    evaluations: Sequence[Row]
    state: TrainState


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One recorded run as read back from a tracking store: the only input of scoring.

    Attributes:
        run_id: identity in the store it came from.
        workload, optimizer: registry names; ``optimizer`` is the label to show, which tells
            variants apart (``velo[embedded]``).
        seed: the run's seed.
        condition: kind of the budget.
        budget: limit of the budget, in steps or seconds.
        metric, direction: the workload's deciding metric and its direction.
        status: how it stands.
        reason: name of the ``StopReason``, or ``""`` when there is none.
        step, train_seconds: updates made and seconds charged in all.
        evaluations: in order of step.
        config: the flat configuration, as strings.
        tags: everything else that was recorded about the run.
    """

    run_id: str
    workload: str
    optimizer: str
    seed: int
    condition: Condition
    budget: float
    metric: str
    direction: Direction
    status: Status
    reason: str
    step: int
    train_seconds: float
    evaluations: Sequence[Row]
    config: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Tracker(Protocol):
    """Where the numbers of one run go. Implementations live in ``tracking``."""

    def log(self, rows: Sequence[Row]) -> None:
        """Records rows; called while the clock is paused."""

    def finish(self, status: Status, tags: Mapping[str, str], summary: Mapping[str, float]) -> None:
        """Ends the run with ``status`` (``FINISHED``, ``FAILED``, ``KILLED``), exactly once."""
