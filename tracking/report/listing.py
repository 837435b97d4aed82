"""All runs of a race, recorded or missing, with their outcomes.

Pure: from recorded and planned runs to a list.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Final

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Status
from timetrial.tracking.report.cells import count
from timetrial.tracking.scores.targets import CONDITIONS, counts, diverged, trials

_OUTCOMES: Final = ("finished", "diverged", "failed", "killed", "pruned", "running", "missing")

Planned = Sequence[tuple[str, str, int, Condition]]
"""Runs that a suite asks for, as ``(workload, optimizer, seed, condition)``."""


@dataclasses.dataclass(frozen=True)
class ListedRun:
    """One run of the list; ``record`` is None for a missing run.

    Attributes:
        workload, optimizer, seed, condition: which run of the plan.
        outcome: ``finished``, ``diverged``, ``failed``, ``killed``, ``pruned``, ``running`` or
            ``missing``.
        counted: True when scores and means use the run.
        record: the run.
    """

    workload: str
    optimizer: str
    seed: int
    condition: Condition
    outcome: str
    counted: bool
    record: RunRecord | None


def listed_runs(records: Sequence[RunRecord], planned: Planned | None = None) -> list[ListedRun]:
    """All recorded runs and the missing ones of the plan, sorted.

    Without a plan, every optimizer is expected on every workload with every seed that occurs in
    the condition.
    """
    counted = {
        (run.condition, run.run_id)
        for condition in CONDITIONS
        for run in trials(records, condition=condition)
    }
    found = [
        ListedRun(r.workload, r.optimizer, r.seed, r.condition, outcome(r), is_in, r)
        for r in records
        for is_in in [(r.condition, r.run_id) in counted]
    ]
    there = {(run.workload, run.optimizer, run.seed, run.condition) for run in found}
    expected = _product(records) if planned is None else set(planned)
    found += [ListedRun(*key, "missing", False, None) for key in expected - there]
    return sorted(found, key=_place)


def outcome(record: RunRecord) -> str:
    """Outcome of a run in one word."""
    if diverged(record):
        return "diverged"
    if record.status == Status.FINISHED and not counts(record):
        return "pruned" if record.reason == "PRUNED" else "killed"
    return record.status.lower()


def outcome_counts(listed: Sequence[ListedRun]) -> str:
    """Number of runs, in all and by outcome."""
    number = Counter(run.outcome for run in listed)
    parts = [f"{number[name]} {name}" for name in _OUTCOMES if number[name]]
    return f"{count(len(listed), 'run')}: {', '.join(parts)}." if parts else "No runs."


def _product(records: Sequence[RunRecord]) -> set[tuple[str, str, int, Condition]]:
    expected = set()
    for condition in CONDITIONS:
        here = [record for record in records if record.condition == condition]
        expected |= {
            (workload, optimizer, seed, condition)
            for workload in {record.workload for record in here}
            for optimizer in {record.optimizer for record in here}
            for seed in {record.seed for record in here}
        }
    return expected


def _place(run: ListedRun) -> tuple[int, str, str, int, str]:
    run_id = run.record.run_id if run.record else ""
    return (CONDITIONS.index(run.condition), run.workload, run.optimizer, run.seed, run_id)
