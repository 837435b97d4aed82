"""Data of one run: its evaluations, its result, its record as read back.

Boundary: data only; ``tracking`` writes and reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from timetrial.framework.budget import StopReason
from timetrial.framework.clock import charged
from timetrial.framework.types import Condition, Direction, Status

if TYPE_CHECKING:  # they load JAX, which readers of records do not need
    from timetrial.framework.memory import Memory
    from timetrial.framework.state import TrainState


@dataclasses.dataclass(frozen=True)
class Row:
    """Metrics at one moment of a run; a row of evaluated metrics is an evaluation.

    Attributes:
        step: updates made.
        train_seconds: charged seconds so far.
        metrics: value by name, for example ``"validation/accuracy"`` or ``"batch/loss"``; may be
            nan or inf.
        timestamp_ms: time of recording, in ms since 1970; 0 before it is recorded.
    """

    step: int
    train_seconds: float
    metrics: Mapping[str, float]
    timestamp_ms: int = 0


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The result of ``Trainer.fit``.

    Attributes:
        reason: reason for the end of the run.
        step: updates made.
        seconds: seconds by account (``train``, ``data_wait``, ``eval``, ``log``, ``compile``, ...);
            they sum to the wall time of the run.
        evaluations: all evaluations, in order.
        state: state after the last update.
        stalled_updates: updates that began on an idle device, because their batch came late.
        doubt: why the charged seconds are not credible, as a sentence; "" if they are.
        memory: memory of one device that the run needed; None if unknown.
        not_finite: what made the run diverge, as in ``callbacks.StopIfDiverged``; "" otherwise.
        compile_sources: where the executables came from, as in ``compilation.Source``; none where
            nothing was compiled.
    """

    reason: StopReason
    step: int
    seconds: Mapping[str, float]
    evaluations: Sequence[Row]
    state: TrainState
    stalled_updates: int = 0
    doubt: str = ""
    memory: Memory | None = None
    not_finite: str = ""
    compile_sources: tuple[str, ...] = ()

    @property
    def train_seconds(self) -> float:
        """Charged seconds: updates, and the wait for their batches."""
        return charged(self.seconds)


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One recorded run as read from a tracking store: the only input of scoring.

    Attributes:
        run_id: identity of the run in its store.
        workload, optimizer: registry name and label. The label distinguishes variants
            (``velo[embedded]``).
        seed: seed of the run.
        condition: kind of the budget.
        budget: limit of the budget, in steps or seconds.
        metric, direction: deciding metric of the workload and its direction.
        status: status of the run.
        reason: name of the ``StopReason``, or ``""`` when there is none.
        step, train_seconds: updates and charged seconds in total.
        evaluations: in order of step.
        config: flat configuration, as strings.
        tags: all other recorded facts about the run.
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
    """Records the numbers of one run; ``tracking`` implements it."""

    def log(self, rows: Sequence[Row]) -> None:
        """Records rows. The clock is paused meanwhile."""
