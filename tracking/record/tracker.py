"""Records one run in its journal.

Boundary: appends only, never inside timed code; ``tracking.store.mirror`` sends journals to MLflow.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from timetrial.framework.records import Row
from timetrial.framework.types import Status
from timetrial.tracking.record import schema
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.journal import End, Journal, RunHeader, read_journal

ENDINGS: Final = (Status.FINISHED, Status.FAILED, Status.KILLED)


class JournalTracker:
    """The ``framework.records.Tracker`` of one run.

    Attributes:
        path: the journal.

    Raises:
        TrackingError: the journal cannot be written.
    """

    def __init__(self, journal: Journal, last_ms: int) -> None:
        self.path = journal.path
        self._journal = journal
        self._last_ms = last_ms
        self._ended = False

    @property
    def offset(self) -> int:
        """Size of the journal in bytes."""
        return self._journal.offset

    @property
    def last_row_offset(self) -> int:
        """Where the last logged row begins in the journal, in bytes."""
        return self._journal.last_row_offset

    def log(self, rows: Sequence[Row]) -> None:
        """Appends rows, stamped with the time of this moment; times rise strictly.

        Raises:
            TrackingError: the journal cannot be written; earlier rows are kept.
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

    def finish(self, status: Status, tags: Mapping[str, str], summary: Mapping[str, float]) -> None:
        """Ends the run.

        Raises:
            TrackingError: the journal cannot be written.
            ValueError: an unknown status.
            RuntimeError: the run has ended before.
        """
        if status not in ENDINGS:
            raise ValueError(f"status: expected one of {', '.join(ENDINGS)}, got {status!r}")
        if self._ended:
            raise RuntimeError(f"{self.path}: finished twice")
        self._ended = True
        try:
            self._journal.end(End(Status(status), self._next_ms(), dict(tags), dict(summary)))
        finally:
            self._journal.close()

    def _next_ms(self) -> int:
        self._last_ms = max(self._last_ms + 1, now_ms())
        return self._last_ms


def start_run(directory: Path, header: RunHeader) -> JournalTracker:
    """Starts the journal of a new run.

    Args:
        directory: of the journals; made if need be.
        header: its tags hold at least ``schema.REQUIRED_TAGS``.

    Raises:
        TrackingError: a required tag is missing, or the journal cannot be written.
    """
    missing = [tag for tag in schema.REQUIRED_TAGS if tag not in header.tags]
    if missing:
        raise TrackingError(
            f"tags of a run: expected all of {', '.join(schema.REQUIRED_TAGS)}; "
            f"missing: {', '.join(missing)}"
        )
    journal_id = uuid.uuid4().hex
    name = re.sub(r"[^\w.\-]+", "_", header.run_name)[:100]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrackingError(
            f"journals in {directory}: cannot be made ({error.strerror})"
        ) from error
    journal = Journal(directory / f"{name}-{journal_id}.jsonl")
    started_ms = now_ms()
    journal.start(journal_id, started_ms, header)
    return JournalTracker(journal, started_ms)


def resume_run(path: Path, offset: int, tags: Mapping[str, str]) -> JournalTracker:
    """Goes on in the journal of a run, from the offset that its checkpoint has stored.

    Args:
        path: the journal.
        offset: in bytes; what was written behind it is dropped, and made again by the run.
        tags: of the process that goes on; they replace those of the first one.

    Raises:
        TrackingError: the journal is missing, shorter than the offset, or cannot be written.
    """
    contents = read_journal(path, until=offset)
    journal = Journal(path, cut_at=offset)
    journal.resume(tags)
    stamps = [contents.started_ms, *(row.timestamp_ms for row in contents.rows)]
    return JournalTracker(journal, max(stamps))


def now_ms() -> int:
    """Wall-clock time in ms since 1970, as MLflow counts."""
    return time.time_ns() // 1_000_000
