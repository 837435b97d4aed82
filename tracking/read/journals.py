"""Reads runs from journals.

Boundary: local files only; damaged journals become problems, not errors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Status
from timetrial.tracking.read.sources import Problem, Source, check, make_record
from timetrial.tracking.record.environment import process_is_gone
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.evaluations_file import evaluations_in
from timetrial.tracking.record.journal import (
    JournalContents,
    experiment_of,
    journals_in,
    read_journal,
)


@dataclasses.dataclass(frozen=True)
class JournaledRun:
    """One run of a journal.

    Attributes:
        path: the journal.
        started_ms: start of the run, in ms since 1970.
        contents: the journal without the rows of single updates.
        record: the run; its ``run_id`` is the identity of the journal.
    """

    path: Path
    started_ms: int
    contents: JournalContents
    record: RunRecord


def from_journals(directory: Path) -> Source:
    """The runs of all journals in a directory or below a tracking root, in order of start.

    Raises:
        TrackingError: the directory is missing or has no journal.
    """
    paths = [*sorted(directory.glob("*.jsonl")), *journals_in(directory)]
    if not paths:
        raise TrackingError(f"{directory}: expected a directory with journals (*.jsonl)")
    runs, problems = read_journals(paths)
    for run in runs:
        found = check(run.record)
        problems += [dataclasses.replace(problem, run=run.path.name) for problem in found]
    return Source([run.record for run in runs], problems)


def read_journals(
    paths: Sequence[Path], experiment: str | None = None
) -> tuple[list[JournaledRun], list[Problem]]:
    """The runs of journals in order of start, and unreadable journals as problems.

    Args:
        paths: the journals.
        experiment: experiment to read; None reads all.
    """
    runs: list[JournaledRun] = []
    problems: list[Problem] = []
    for path in paths:
        if experiment is not None and experiment_of(path) not in (experiment, None):
            continue
        try:
            contents = read_journal(path, evaluations_only=True)
            runs.append(JournaledRun(path, contents.started_ms, contents, _record(contents)))
        except (TrackingError, ValueError) as error:
            problems.append(Problem(path.name, str(error), lost=True))
    return sorted(runs, key=lambda run: (run.started_ms, run.path.name)), problems


def _record(contents: JournalContents) -> RunRecord:
    end = contents.end
    status = end.status if end else Status.RUNNING
    if end is None and process_is_gone(contents.tags):
        status = Status.KILLED
    last = max(contents.rows, key=lambda row: row.step, default=None)
    return make_record(
        contents.journal_id,
        contents.tags,
        contents.header.params,
        status,
        evaluations_in(contents.rows),
        (last.step, last.train_seconds) if last else (0, 0.0),
    )
