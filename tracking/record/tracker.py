"""Records one run in its journal.

Boundary: appends only, outside timed code; ``tracking.store.mirror`` sends journals to MLflow.

Evaluations and the end are on the disk when ``log`` and ``finish`` return. On a full disk both
wait for room (``framework.files``).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from timetrial.framework.files import draft_of, make_private_directory, wait_for_room
from timetrial.framework.paths import legal_name
from timetrial.framework.records import Row
from timetrial.framework.types import Status
from timetrial.tracking.record import schema
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.evaluations_file import evaluations_in, is_evaluation
from timetrial.tracking.record.journal import End, Journal, RunHeader, read_journal

ENDINGS: Final = (Status.FINISHED, Status.FAILED, Status.KILLED)


class JournalTracker:
    """The ``framework.records.Tracker`` of one run.

    Attributes:
        path: the journal.
        run_id: identity of the journal.
        earlier: evaluations before the checkpoint of a resumed run.
        saved_offset: offset of the last checkpoint in the journal, in bytes; 0 before the first.
        ended: True once the end is written.

    Raises:
        StorageError: the journal is not writable.
    """

    def __init__(
        self,
        journal: Journal,
        run_id: str,
        last_ms: int,
        earlier: Sequence[Row] = (),
        saved_offset: int = 0,
    ) -> None:
        self.path = journal.path
        self.run_id = run_id
        self.earlier = earlier
        self.saved_offset = saved_offset
        self.ended = False
        self._journal = journal
        self._last_ms = last_ms
        self._end_offset = 0

    @property
    def offset(self) -> int:
        """Size of the journal in bytes, without the line of its end."""
        return self._end_offset if self.ended else self._journal.offset

    def log(self, rows: Sequence[Row]) -> None:
        """Appends rows with the current time; times are strictly increasing.

        Raises:
            StorageError: the journal is not writable; earlier rows are kept.
        """
        self._journal.rows(
            [
                Row(
                    int(row.step),
                    float(row.train_seconds),
                    {key: float(value) for key, value in row.metrics.items()},
                    self._next_ms(),
                )
                for row in rows
            ]
        )
        if any(is_evaluation(row) for row in rows):
            self.sync()

    def sync(self) -> None:
        """Returns once the disk has all rows; a checkpoint may refer to ``offset`` then.

        Raises:
            StorageError: the disk fails.
        """
        if not self.ended:  # the end is on the disk already
            self._journal.sync()

    def saved(self, offset: int) -> None:
        """Notes that a checkpoint holds the run up to an offset of the journal."""
        self.saved_offset = offset

    def finish(
        self,
        status: Status,
        tags: Mapping[str, str],
        summary: Mapping[str, float],
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Ends the run.

        Raises:
            StorageError: the journal is not writable; it has no end then.
            ValueError: the status is unknown.
            RuntimeError: the run has already ended.
        """
        if status not in ENDINGS:
            raise ValueError(f"status: expected one of {', '.join(ENDINGS)}, got {status!r}")
        if self.ended:
            raise RuntimeError(f"{self.path}: finished twice")
        self._end_offset = self._journal.offset
        self.ended = True
        end = End(Status(status), self._next_ms(), dict(tags), dict(summary), dict(files or {}))
        try:
            self._journal.end(end)
            self._journal.sync()
        finally:
            self._journal.close()

    def _next_ms(self) -> int:
        self._last_ms = max(self._last_ms + 1, now_ms())
        return self._last_ms


def start_run(
    directory: Path, header: RunHeader, announce: Callable[[Path], None] = lambda path: None
) -> JournalTracker:
    """Starts the journal of a new run.

    Args:
        directory: directory of the journals; made if missing.
        header: description of the run, with all of ``schema.REQUIRED_TAGS``.
        announce: called with the path before the journal is there. A run killed at any moment then
            has no journal, or one that its next attempt knows.

    Raises:
        TrackingError: a required tag is missing.
        StorageError: the journal is not writable.
    """
    missing = [tag for tag in schema.REQUIRED_TAGS if tag not in header.tags]
    if missing:
        raise TrackingError(
            f"tags of a run: expected all of {', '.join(schema.REQUIRED_TAGS)}; "
            f"missing: {', '.join(missing)}"
        )
    journal_id = uuid.uuid4().hex
    name = legal_name(header.run_name)
    wait_for_room(lambda: make_private_directory(directory), directory, 1)
    # Renamed once it has its first line: an empty file is always a damaged journal.
    path = directory / f"{name}-{journal_id}.jsonl"
    journal = Journal(draft_of(path))
    started_ms = now_ms()
    journal.start(journal_id, started_ms, header)
    announce(path)
    journal.move(path)
    return JournalTracker(journal, journal_id, started_ms)


def resume_run(path: Path, offset: int, tags: Mapping[str, str]) -> JournalTracker:
    """Continues the journal of a run at the offset of its checkpoint.

    Args:
        path: the journal.
        offset: offset in bytes; everything behind it is removed, and repeated by the run.
        tags: tags of the new process; they replace those of the first one.

    Raises:
        TrackingError: the journal is missing, damaged or shorter than the offset.
        StorageError: it is not writable.
    """
    contents = read_journal(path, until=offset, evaluations_only=True)
    journal = Journal(path, cut_at=offset)
    journal.resume(tags)
    stamps = [contents.started_ms, *(row.timestamp_ms for row in contents.rows)]
    earlier = evaluations_in(contents.rows)
    return JournalTracker(journal, contents.journal_id, max(stamps), earlier, offset)


def now_ms() -> int:
    """Wall-clock time in ms since 1970, as in MLflow."""
    return time.time_ns() // 1_000_000
