"""Builds run records and lists what is wrong with each.

Pure: builds and checks ``RunRecord`` values. The other modules of ``tracking.read`` read files and
stores and return a ``Source``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Condition, Direction, Status
from timetrial.tracking.record import schema


@dataclasses.dataclass(frozen=True)
class Problem:
    """A problem with one run of a source.

    Attributes:
        run: id or path of the run in the source.
        text: description in one line.
        lost: True when the run is unreadable and not among the records.
    """

    run: str
    text: str
    lost: bool = False

    def __str__(self) -> str:
        return f"{self.run}: {self.text}{' (left out)' if self.lost else ''}"


@dataclasses.dataclass(frozen=True)
class Source:
    """Runs read from a directory, file or store.

    Attributes:
        records: readable runs, complete or not.
        problems: problems of single runs; empty without any.
    """

    records: Sequence[RunRecord]
    problems: Sequence[Problem]


def make_record(
    run_id: str,
    tags: Mapping[str, str],
    config: Mapping[str, str],
    status: Status,
    evaluations: Sequence[Row],
    end: tuple[int, float],
) -> RunRecord:
    """The record of one run from its tags, configuration and evaluations.

    Args:
        run_id: identity of the run in its source.
        tags: tags of the run, with all of ``schema.REQUIRED_TAGS``.
        config: flat configuration.
        status: status of the run.
        evaluations: evaluations in order of step; values that are not finite become nan.
        end: updates and charged seconds in total.

    Raises:
        ValueError: a required tag is missing or invalid.
    """
    missing = missing_tags(tags)
    if missing:
        raise ValueError(f"no tag {', '.join(missing)}")
    return RunRecord(
        run_id=run_id,
        workload=tags[schema.WORKLOAD],
        optimizer=tags[schema.OPTIMIZER],
        seed=int(tags[schema.SEED]),
        condition=Condition(tags[schema.CONDITION]),
        budget=float(tags[schema.BUDGET]),
        metric=tags[schema.METRIC],
        direction=Direction(tags[schema.DIRECTION]),
        status=status,
        reason=tags.get(schema.STOP_REASON, ""),
        step=end[0],
        train_seconds=end[1],
        evaluations=_finite_or_nan(evaluations),
        config=dict(config),
        tags=dict(tags),
    )


def missing_tags(tags: Mapping[str, str]) -> list[str]:
    """Required tags that are missing; empty for runs recorded by timetrial."""
    return [tag for tag in schema.REQUIRED_TAGS if tag not in tags]


def is_about_runs(tags: Mapping[str, str]) -> bool:
    """True for the summary of a study or the report of a suite."""
    return any(tag in tags for tag in schema.ABOUT_RUNS)


def journal_id(tags: Mapping[str, str]) -> str:
    """Identity of the journal, from the tags in MLflow; "" without a journal."""
    return tags.get(schema.JOURNAL_ID) or tags.get(schema.OLD_JOURNAL_ID, "")


def check(record: RunRecord) -> list[Problem]:
    """Lists what is incomplete in a run; a diverged run is complete."""
    return [Problem(record.run_id, text) for text in _complaints(record)]


def _complaints(record: RunRecord) -> Iterator[str]:
    ended_by_itself = record.reason in ("COMPLETE", "TARGET", "DIVERGED")
    if record.status != Status.FINISHED:
        yield f"status {record.status}, after {record.step} steps"
    if not record.evaluations:
        yield "no evaluations"
        return
    keys = {key for row in record.evaluations for key in row.metrics}
    if not any(key.endswith(f"/{record.metric}") for key in keys):
        yield f"the deciding metric {record.metric} was never evaluated"
    steps = [row.step for row in record.evaluations]
    if any(late <= early for early, late in itertools.pairwise(steps)):
        yield "evaluations out of order or repeated, as after a resume"
    if any(not math.isfinite(row.train_seconds) for row in record.evaluations):
        yield "evaluations without a time"
    used = record.train_seconds if record.condition == Condition.TIME else record.step
    if record.status == Status.FINISHED and not ended_by_itself and used < record.budget:
        yield f"ended after {used:g} of {record.budget:g} {record.condition.unit}"


def _finite_or_nan(evaluations: Iterable[Row]) -> list[Row]:
    """The evaluations with nan for every value that is not finite, as in MLflow."""
    return [
        row
        if all(map(math.isfinite, row.metrics.values()))
        else dataclasses.replace(
            row, metrics={k: v if math.isfinite(v) else math.nan for k, v in row.metrics.items()}
        )
        for row in evaluations
    ]
