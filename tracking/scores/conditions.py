"""Splits a run that served two budgets into one record per condition.

Pure: functions of ``RunRecord``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from timetrial.framework.budget import StopReason
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition
from timetrial.tracking.record import schema


def by_condition(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Splits each run that served a step and a time budget into one record per condition.

    An optimizer that does not use its budget makes the same updates under either condition. A suite
    therefore lets one run go on until both budgets are used up (``budget.also_seconds``). The
    record of the step condition ends at the last allowed update; that of the time condition ends
    at the first evaluation after the seconds are used up. Other records pass unchanged.
    """
    return [part for record in records for part in _parts(record)]


def time_budget(record: RunRecord) -> float | None:
    """Seconds of the time budget that a run under a step budget served as well, else None.

    A run that sets the time budget of its suite serves it with all its seconds.
    """
    if record.condition != Condition.STEP:
        return None
    if record.tags.get(schema.SETS_TIME_BUDGET) == "true":
        return record.train_seconds
    also = record.config.get("budget.also_seconds", "None")
    return None if also == "None" else float(also)


def _parts(record: RunRecord) -> list[RunRecord]:
    seconds = time_budget(record)
    if seconds is None:
        return [record]
    evaluations = record.evaluations
    steps_met = next((i for i, e in enumerate(evaluations) if e.step >= record.budget), None)
    time_met = next((i for i, e in enumerate(evaluations) if e.train_seconds >= seconds), None)
    return [
        _until(record, steps_met),
        _until(dataclasses.replace(record, condition=Condition.TIME, budget=seconds), time_met),
    ]


def _until(record: RunRecord, met: int | None) -> RunRecord:
    """The record up to the evaluation at which its budget was met; later ones are dropped."""
    if met is None:
        return record
    last = record.evaluations[met]
    return dataclasses.replace(
        record,
        reason=StopReason.BUDGET.name,
        step=last.step,
        train_seconds=last.train_seconds,
        evaluations=tuple(record.evaluations[: met + 1]),
        tags={**record.tags, schema.DIVERGED: "false"} if record.tags else record.tags,
    )
