"""Reads runs from journals.

Boundary: local files only; damaged journals become problems, not errors.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Status
from timetrial.tracking.read.sources import Problem, Source, check, make_record
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import process_is_gone
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.evaluations_file import evaluations_in
from timetrial.tracking.record.journal import (
    JournalContents,
    first_facts,
    journals_in,
    read_journal,
    read_without_rows,
)

_Version = tuple[int, int, int]
_starts: Final[dict[Path, tuple[_Version, tuple[str | None, str | None]]]] = {}
"""Version of each file whose first line this process read, and the facts in that line."""


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
    paths: Sequence[Path],
    experiment: str | None = None,
    *,
    configs: Collection[str] | None = None,
    rows: bool = True,
) -> tuple[list[JournaledRun], list[Problem]]:
    """The runs of journals in order of start, and unreadable journals as problems.

    Of journals that other experiments or configurations start with, only the first line is read,
    once per process.

    Args:
        paths: the journals.
        experiment: experiment to read; None reads all.
        configs: ``config_hash`` of the runs to read; None reads all.
        rows: False reads no rows: the records have no evaluations, five times as fast.
    """
    runs: list[JournaledRun] = []
    problems: list[Problem] = []
    for path in paths:
        if _is_of_another(path, experiment, configs):
            continue
        try:
            contents = (
                read_journal(path, evaluations_only=True) if rows else read_without_rows(path)
            )
            runs.append(JournaledRun(path, contents.started_ms, contents, _record(contents)))
        except (TrackingError, ValueError) as error:
            problems.append(Problem(path.name, str(error), lost=True))
    return sorted(runs, key=lambda run: (run.started_ms, run.path.name)), problems


def _read(path: Path) -> JournalContents:
    return read_journal(path, evaluations_only=True)


def _is_of_another(path: Path, experiment: str | None, configs: Collection[str] | None) -> bool:
    """True when the first line of a journal names another experiment or configuration."""
    if experiment is None and configs is None:
        return False
    named, config = _start(path)
    if experiment is not None and named not in (experiment, None):
        return True
    return configs is not None and config is not None and config not in configs


def _start(path: Path) -> tuple[str | None, str | None]:
    """Experiment and ``config_hash`` in the first line of a journal; None where it is damaged."""
    try:
        status = os.stat(path)
    except OSError:
        return None, None
    version = status.st_ino, status.st_mtime_ns, status.st_size
    known = _starts.get(path)
    if known is None or known[0] != version:
        known = _starts[path] = version, first_facts(path, schema.CONFIG_HASH)
    return known[1]


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
