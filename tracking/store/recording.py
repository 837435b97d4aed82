"""The record of one run: its journal and the mirror of it in MLflow.

Boundary: joins tracker and mirror; ``record.tracker`` appends and ``store.mirror`` sends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from timetrial.framework.callbacks import Callback
from timetrial.framework.records import Row
from timetrial.framework.signals import held
from timetrial.framework.types import Status
from timetrial.tracking.record.journal import RunHeader
from timetrial.tracking.record.tracker import JournalTracker, resume_run, start_run
from timetrial.tracking.store.connection import BRIEF_SECONDS
from timetrial.tracking.store.mirror import Mirror
from timetrial.tracking.store.opening import Store
from timetrial.tracking.store.sqlite_file import sqlite_path


class Recording:
    """Records one run; from the start it shows in MLflow.

    Args:
        store: destination of the run.
        tracker: tracker of the run's journal.
        resumable: True when the run has checkpoints. MLflow then receives only rows before the
            last one, because a resumed run repeats the others.
        flush_seconds: minimum seconds between two requests to MLflow.
        aside: make the requests before the training and after the end in a thread, beside other
            work; for a store in a file of this machine.

    Attributes:
        path: the journal.
        run_id: identity of the journal.
        earlier: evaluations before the checkpoint of a resumed run.
        mirror: callback that sends new rows; comes after the checkpoint's.
    """

    def __init__(
        self,
        store: Store,
        tracker: JournalTracker,
        *,
        resumable: bool = False,
        flush_seconds: float = 5.0,
        aside: bool = False,
    ) -> None:
        self.path = tracker.path
        self.run_id = tracker.run_id
        self.earlier = tracker.earlier
        self._tracker = tracker
        until = (lambda: tracker.saved_offset) if resumable else None
        self.mirror = Mirror(store, tracker.path, flush_seconds=flush_seconds, until=until)
        self._connection = store.connection if aside and sqlite_path(store.uri) else None
        if self._connection is not None:
            self._connection.later(self.mirror.flush)
        else:
            self.mirror.flush()

    @property
    def offset(self) -> int:
        """Size of the journal in bytes, without the line of its end."""
        return self._tracker.offset

    def sync(self) -> None:
        """Waits until the journal is on the disk."""
        self._tracker.sync()

    def log(self, rows: Sequence[Row]) -> None:
        """Appends rows to the journal."""
        self._tracker.log(rows)

    def saved(self, offset: int) -> None:
        """Notes that a checkpoint holds the run up to an offset of the journal."""
        self._tracker.saved(offset)

    def end(
        self,
        status: Status,
        tags: Mapping[str, str],
        summary: Mapping[str, float],
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Writes the end into the journal; does nothing if it is there already."""
        if not self._tracker.ended:
            self._tracker.finish(status, tags, summary, files)

    def send(self) -> None:
        """Sends the rest of an ended journal; after a second signal in short time, or not at all.

        Raises:
            Interrupted: the second signal.
        """
        if self._connection is not None:
            self._connection.later(self.mirror.close)
            return
        try:
            self.mirror.close()
        except KeyboardInterrupt:
            with held():
                self.mirror.close(BRIEF_SECONDS)
            raise

    def finish(self, status: Status, tags: Mapping[str, str], summary: Mapping[str, float]) -> None:
        """Ends the journal and sends the rest of it."""
        self._tracker.finish(status, tags, summary)
        self.send()


class Unrecorded:
    """Takes the place of a ``Recording`` where another host records the run; keeps nothing."""

    def __init__(self) -> None:
        self.path, self.run_id, self.offset = Path(), "", 0
        self.earlier: Sequence[Row] = ()
        self.mirror = Callback()

    def log(self, rows: Sequence[Row]) -> None:
        """Drops the rows."""

    def sync(self) -> None:
        """Does nothing."""

    def saved(self, offset: int) -> None:
        """Does nothing."""

    def end(
        self,
        status: Status,
        tags: Mapping[str, str],
        summary: Mapping[str, float],
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Does nothing."""

    def send(self) -> None:
        """Does nothing."""


def start_recording(
    store: Store,
    header: RunHeader,
    *,
    resumable: bool = False,
    flush_seconds: float = 5.0,
    announce: Callable[[Path], None] = lambda path: None,
    aside: bool = False,
) -> Recording:
    """Starts the record of a new run; the arguments are those of ``start_run`` and ``Recording``.

    Raises:
        TrackingError: a required tag is missing, or the journal is not writable.
    """
    tracker = start_run(store.journals, header, announce)
    return Recording(store, tracker, resumable=resumable, flush_seconds=flush_seconds, aside=aside)


def resume_recording(
    store: Store, journal: str, offset: int, tags: Mapping[str, str], *, aside: bool = False
) -> Recording:
    """Continues the record of a run from a checkpoint.

    Args:
        store: destination of the run.
        journal: file name of its journal.
        offset: offset of the checkpoint in the journal, in bytes.
        tags: tags of the new process.
        aside: as for ``Recording``.

    Raises:
        TrackingError: the journal is missing, shorter than the offset, or not writable.
    """
    tracker = resume_run(store.journals / journal, offset, tags)
    return Recording(store, tracker, resumable=True, aside=aside)
