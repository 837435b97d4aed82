"""Mirrors journals into an MLflow store, during a run and afterwards.

Boundary: reads journals and the process ids of this host; store failures stop no run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from timetrial.framework.callbacks import Callback, StepInfo
from timetrial.framework.errors import StorageError
from timetrial.framework.types import Metrics, Status, TrainState
from timetrial.tracking.record import schema
from timetrial.tracking.record.aside import set_aside
from timetrial.tracking.record.environment import process_is_gone
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.evaluations_file import evaluations_in
from timetrial.tracking.record.journal import (
    End,
    Journal,
    JournalContents,
    journals_in,
    last_kind,
    read_journal,
    rows_between,
)
from timetrial.tracking.record.lines import read_lines
from timetrial.tracking.record.tracker import now_ms
from timetrial.tracking.store.listing import all_runs
from timetrial.tracking.store.opening import Store, store_errors
from timetrial.tracking.store.writer import RunWriter, points_of

_log = logging.getLogger(__name__)

RETRY_SECONDS = 60.0  # pause after a failure of the store


class Mirror(Callback):
    """Sends one journal to a store: at evaluations, and the rest at the end.

    A failure gives one warning and a later retry. The journal keeps everything.

    Args:
        store: destination of the run.
        path: the journal.
        flush_seconds: minimum seconds between two requests.
        until: returns the offset up to which rows are sent during the run. A resumed run repeats
            the rows behind its checkpoint. None sends everything.

    Attributes:
        path: the journal.
    """

    def __init__(
        self,
        store: Store,
        path: Path,
        *,
        flush_seconds: float = 5.0,
        until: Callable[[], int] | None = None,
    ) -> None:
        self.path = path
        self._store = store
        old = path.parent.name == "spool"
        id_tag = schema.OLD_JOURNAL_ID if old else schema.JOURNAL_ID
        contents = read_journal(path, evaluations_only=True)
        self._writer = RunWriter(store, contents, path.name, id_tag)
        self._flush_seconds = flush_seconds
        self._until = until
        self._offset = 0
        self._last_step: int | None = None
        self._next_flush = 0.0
        self._failing = False

    @property
    def run_id(self) -> str | None:
        """Id of the run in the store; None before the first successful request."""
        return self._writer.run_id

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> None:
        self.flush()

    def flush(self) -> None:
        """Sends new rows at most every ``flush_seconds``; never raises."""
        if time.monotonic() < self._next_flush:
            return
        try:
            with store_errors(self._store.uri):
                self._send_rows(self._until() if self._until else None)
        except TrackingError as error:
            if not self._failing:
                _log.warning("%s. The run continues; its journal is %s", error, self.path)
            self._failing = True
            self._next_flush = time.monotonic() + max(self._flush_seconds, RETRY_SECONDS)
        else:
            self._failing = False
            self._next_flush = time.monotonic() + self._flush_seconds

    def close(self) -> bool:
        """Sends the rest; a failure gives a warning with the command to send it later.

        For a killed run with a checkpoint, rows behind the checkpoint are not sent.

        Returns:
            True when the store has all rows and artifacts to send.
        """
        try:
            self.send(resumable=self._until is not None)
        except (TrackingError, StorageError) as error:
            _log.warning(
                "%s. The run is complete in its journal; send it with: timetrial sync --file %s",
                error,
                self.path,
            )
            return False
        return self._writer.complete

    def send(self, *, resumable: bool = False) -> str:
        """Sends the whole journal; marks it as sent once an ended run is complete in the store.

        Args:
            resumable: True when a killed run may resume from its checkpoint. Then only rows before
                the checkpoint are sent, and the journal is not marked as sent.

        Returns:
            The id of the run.

        Raises:
            TrackingError: the journal is unreadable, or the store fails.
        """
        contents = read_journal(self.path, evaluations_only=True)
        killed = contents.end is not None and contents.end.status == Status.KILLED
        until = self._until() if resumable and killed and self._until else None
        with store_errors(self._store.uri):
            self._send_rows(until)
            if contents.end is not None and until is not None:
                self._writer.pause(contents.end)
            elif contents.end is not None:
                evaluations = evaluations_in(contents.rows)
                self._writer.end(contents.end, self._last_step or 0, evaluations)
        run_id = str(self._writer.run_id)
        whole = contents.end is not None and until is None and self._writer.complete
        if whole and self._store.name not in contents.sent:
            journal = Journal(self.path)
            journal.sent(self._store.name, run_id)
            journal.close()
        return run_id

    def _send_rows(self, until: int | None) -> None:
        """Sends the unsent rows up to an offset."""
        rows, offset = rows_between(self.path, self._offset, until)
        self._writer.metrics(points_of(rows, self._last_step))
        self._last_step = rows[-1].step if rows else self._last_step
        self._offset = offset


def sync(store: Store, files: Sequence[Path] = ()) -> list[str]:
    """Sends journals to a store, without duplicates.

    Args:
        store: destination of the runs.
        files: journals to send; by default all unsent journals of ended runs below the store's
            root. Damaged ones among these are set aside with a warning.

    Returns:
        Ids of the runs.

    Raises:
        TrackingError: a given file is unreadable, or the store fails.
    """
    if files:
        return [Mirror(store, path).send() for path in files]
    return [Mirror(store, path).send() for path in _unsent(store)]


def _unsent(store: Store) -> Iterator[Path]:
    """Unsent journals of ended runs."""
    for path, contents in _journals(store, ended=True):
        known = store.name in contents.sent or "" in contents.sent.values()
        if contents.end is not None and not known:
            yield path


def _journals(store: Store, *, ended: bool) -> Iterator[tuple[Path, JournalContents]]:
    """Journals of runs that have ended, or not; damaged ones are set aside with a warning."""
    for path in journals_in(store.root):
        try:
            if (last_kind(path) in ("end", "sent")) is ended:
                yield path, read_journal(path, evaluations_only=True)
            elif ended:
                read_lines(path)  # names damaged journals without an end, too
        except TrackingError as error:
            _log.warning("%s; %s", error, set_aside(path, error))


def close_dead_runs(
    store: Store,
    experiment: str,
    keep: Callable[[Mapping[str, str]], bool] = lambda tags: False,
) -> list[str]:
    """Marks runs of dead processes on this host as ``KILLED``.

    Args:
        store: the store; journals below its root are closed and sent, runs without a journal are
            marked in MLflow.
        experiment: name of the experiment.
        keep: from the tags of a run, True when a checkpoint will resume it. Such a run is marked
            in MLflow only.

    Returns:
        MLflow ids of these runs.

    Raises:
        TrackingError: the store fails.
    """
    closed = [
        Mirror(store, _closed(path)).send()
        for path, tags in _dead_journals(store, experiment)
        if not keep(tags)
    ]
    with store_errors(store.uri):
        experiment_id = store.experiment_id(experiment)
        for run in list(all_runs(store, experiment_id, f"attributes.status = '{Status.RUNNING}'")):
            if process_is_gone(run.data.tags):
                store.client.set_terminated(run.info.run_id, Status.KILLED, now_ms())
                closed.append(str(run.info.run_id))
    return closed


def _dead_journals(store: Store, experiment: str) -> Iterator[tuple[Path, Mapping[str, str]]]:
    for path, contents in _journals(store, ended=False):
        if contents.header.experiment == experiment and process_is_gone(contents.tags):
            yield path, contents.tags


def _closed(path: Path) -> Path:
    """Ends the journal of a killed run, 1 ms after its last row."""
    contents = read_journal(path, evaluations_only=True)
    last_ms = contents.rows[-1].timestamp_ms if contents.rows else contents.started_ms
    journal = Journal(path)
    journal.end(End(Status.KILLED, last_ms + 1, {}, {}))
    journal.close()
    return path
