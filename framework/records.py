"""What a run leaves behind: evaluations, its result, its record as read back.

Boundary: data only; writing and reading are for ``tracking``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from timetrial.framework.budget import StopReason
from timetrial.framework.types import Direction, TrainState


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics at one moment of a run.

    Attributes:
        step: updates made.
        train_seconds: seconds charged so far.
        metrics: value by ``"<split>/<metric>"``, for example ``"validation/accuracy"``.
    """

    step: int
    train_seconds: float
    metrics: Mapping[str, float]


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
    evaluations: Sequence[Evaluation]
    state: TrainState


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One recorded run as read back from a tracking store: the only input of scoring.

    Attributes:
        run_id: identity in the store it came from.
        workload, optimizer: registry names; ``optimizer`` is the label to show, which tells
            variants apart (``velo[embedded]``).
        seed: the run's seed.
        condition: ``"step"`` or ``"time"``.
        budget: limit of the budget, in steps or seconds.
        metric, direction: the workload's deciding metric and its direction.
        status: ``FINISHED``, ``FAILED``, ``KILLED`` or ``RUNNING``.
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
    condition: str
    budget: float
    metric: str
    direction: Direction
    status: str
    reason: str
    step: int
    train_seconds: float
    evaluations: Sequence[Evaluation]
    config: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Tracker(Protocol):
    """Where the numbers of one run go. Implementations live in ``tracking``."""

    def log(self, rows: Sequence[tuple[int, float, Mapping[str, float]]]) -> None:
        """Records rows ``(step, train_seconds, metrics)``; called while the clock is paused."""

    def finish(self, status: str, tags: Mapping[str, str], summary: Mapping[str, float]) -> None:
        """Ends the run with ``status`` (``FINISHED``, ``FAILED``, ``KILLED``), exactly once."""
