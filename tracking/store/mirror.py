"""Mirrors journals into an MLflow store, during a run and afterwards.

Boundary: reads journals and the process ids of this host; store failures stop no run. A run counts
as sent once the store has everything: rows, tags, parameters, summary and artifacts.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from timetrial.framework.callbacks import Callback, StepInfo
from timetrial.framework.errors import UserError
from timetrial.framework.state import TrainState
from timetrial.framework.types import Metrics, Status
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import process_is_gone
from timetrial.tracking.record.evaluations_file import evaluations_in
from timetrial.tracking.record.journal import (
    End,
    Journal,
    JournalContents,
    read_journal,
    rows_between,
)
from timetrial.tracking.record.tracker import now_ms
from timetrial.tracking.store.claim import Claim
from timetrial.tracking.store.connection import REST_FACTOR, Part
from timetrial.tracking.store.errors import OutageError, store_errors
from timetrial.tracking.store.listing import all_runs
from timetrial.tracking.store.opening import Store
from timetrial.tracking.store.pending import identity_of, outline
from timetrial.tracking.store.writer import RunWriter, points_of, sole_run

_log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 15.0
"""Longest time of requests at an evaluation; what is left is sent at a later one."""

SLOW_SECONDS: Final = 1.0
"""After longer requests at an evaluation the store is left alone for nine times as long."""

CLOSE_SECONDS: Final = 60.0
"""Longest time of requests at the end of a run."""


class Mirror(Callback):
    """Sends one journal to a store: at evaluations, and the rest at the end.

    A failure gives one warning per outage of the store and a later retry. The journal keeps
    everything. Until ``close``, other processes leave the journal to this one.

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
        self._flush_seconds = flush_seconds
        self._until = until
        self._next_flush = 0.0
        self._claim = Claim(path)
        self._generation = store.connection.generation
        self._start(read_journal(path, evaluations_only=True))

    def _start(self, contents: JournalContents) -> None:
        """Begins with the first row."""
        old = self.path.parent.name == "spool"
        id_tag = schema.OLD_JOURNAL_ID if old else schema.JOURNAL_ID
        self._writer = RunWriter(self._store, contents, self.path.name, id_tag)
        self._offset = 0
        self._last_step: int | None = None

    @property
    def run_id(self) -> str | None:
        """Id of the run in the store; None before the first successful request."""
        return self._writer.run_id

    @property
    def is_claimed(self) -> bool:
        """False when another process sends this journal."""
        return self._claim.held

    def on_fit_start(self, info: StepInfo) -> None:
        """Waits for requests of another thread: the seconds of training begin."""
        self._store.connection.settle()

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> None:
        self.flush()

    def flush(self) -> None:
        """Sends new rows at most every ``flush_seconds``; never raises."""
        began = time.monotonic()
        if began < self._next_flush:
            return

        until = self._until() if self._until else None
        error = self._attempt(lambda: self._send_rows(until), seconds=FLUSH_SECONDS)
        if error is None:
            self._attempt(self._writer.configuration, "artifacts", seconds=FLUSH_SECONDS)
        ended = time.monotonic()
        rest = REST_FACTOR * (ended - began) if ended - began > SLOW_SECONDS else 0.0
        self._next_flush = ended + max(self._flush_seconds, rest)

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Sends the rest; a failure gives a warning, unless the store failed before. Never raises.

        For a killed run with a checkpoint, rows behind the checkpoint are not sent.

        Returns:
            True when the store has all rows and artifacts to send.
        """
        try:
            return self.send(self._until, seconds) is None
        finally:
            self._claim.release()

    def send(
        self,
        resumable_at: Callable[[], int | None] | None = None,
        seconds: float = math.inf,
    ) -> UserError | None:
        """Sends the whole journal; marks it as sent once an ended run is complete in the store.

        Args:
            resumable_at: returns the offset of the checkpoint from which a killed or failed run may
                resume, or None. Only rows before it are sent then, and the journal is not marked
                as sent.
            seconds: after this time no further request is made.

        Returns:
            The reason why something is not sent, or None.
        """
        try:
            contents = read_journal(self.path, evaluations_only=True)
        except UserError as damage:
            return damage
        end = contents.end
        until = resumable_at() if resumable_at is not None and may_resume(contents) else None
        if end is not None and until is not None and (until or end.status == Status.KILLED):
            offset, pause = until, end
            return self._attempt(lambda: self._pause(pause, offset), seconds=seconds, urgent=True)
        error = self._attempt(lambda: self._send_rows_and_end(end), seconds=seconds, urgent=True)
        if error is not None:
            return error
        send = lambda: self._send_files(contents)  # noqa: E731
        return self._attempt(send, "artifacts", seconds=seconds, urgent=True)

    def pause(self, end: End, until: int) -> UserError | None:
        """Sends the rows before a checkpoint and ends the run in the store, for now.

        Returns:
            The reason why something is not sent, or None.
        """
        return self._attempt(lambda: self._pause(end, until), urgent=True)

    def _attempt(
        self,
        send: Callable[[], object],
        part: Part = "runs",
        *,
        seconds: float = math.inf,
        urgent: bool = False,
    ) -> UserError | None:
        """Sends, unless the store is left alone; returns what went wrong."""

        def action() -> None:
            with store_errors(self._store.uri):
                send()

        connection = self._store.connection
        try:
            return connection.attempt(action, part=part, seconds=seconds, urgent=urgent)
        except UserError as error:  # such as a deleted experiment
            connection.failed(error, 0.0, part)
            return error

    def _send_rows_and_end(self, end: End | None) -> None:
        self._send_rows(None)
        if end is not None:
            self._writer.end(end, self._last_step or 0)

    def _send_files(self, contents: JournalContents) -> None:
        if contents.end is None:
            self._writer.configuration()
        else:
            self._writer.files(contents.end, evaluations_in(contents.rows))
            self._mark_as_sent(contents)

    def _pause(self, end: End, until: int) -> None:
        if self._writer.status() != end.status:  # else it was paused before
            self._send_rows(until)
            self._writer.pause(end)

    def release(self) -> None:
        """Leaves the journal to other processes."""
        self._claim.release()

    def _send_rows(self, until: int | None) -> None:
        """Sends the unsent rows up to an offset; all again to a store that was made anew."""
        _ = self._store.client
        if self._generation != self._store.connection.generation:
            if self._writer.run_id is not None:
                self._start(read_journal(self.path, evaluations_only=True))
            self._generation = self._store.connection.generation
        until = None if until is None else max(until, self._offset)
        rows, offset = rows_between(self.path, self._offset, until)
        self._writer.metrics(points_of(rows, self._last_step))
        self._last_step = rows[-1].step if rows else self._last_step
        self._offset = offset

    def _mark_as_sent(self, contents: JournalContents) -> None:
        experiment = self._store.experiment(contents.header.experiment)
        if experiment is None:
            raise OutageError(f"tracking store {self._store.name}: the experiment is gone")
        name, identity = self._store.name, identity_of(experiment)
        said = outline(self.path).sent.get(name)
        if said is not None and said.experiment == identity:
            return
        journal = Journal(self.path)
        try:
            journal.sent(name, str(self._writer.run_id), identity)
        finally:
            journal.close()


def may_resume(contents: JournalContents) -> bool:
    """True for a run whose process died, that was interrupted or that failed."""
    if contents.end is None:
        return process_is_gone(contents.tags)
    return contents.end.status != Status.FINISHED and schema.STOP_REASON not in contents.end.tags


def close_running(store: Store, experiment_ids: Sequence[str]) -> list[str]:
    """Marks the running runs of dead processes on this host as ``KILLED`` in the store.

    Returns:
        The ids of these runs.

    Raises:
        OutageError: the store fails.
    """
    closed = []
    with store_errors(store.uri):
        running = f"attributes.status = '{Status.RUNNING}'"
        for run in list(all_runs(store, experiment_ids, running)):
            if not process_is_gone(run.data.tags):
                continue
            tag = schema.JOURNAL_ID
            if tag in run.data.tags:  # deletes copies that the store made late
                kept = sole_run(store, run.info.experiment_id, tag, run.data.tags[tag])
                if kept is None or kept.info.run_id != run.info.run_id:
                    continue
            store.client.set_terminated(run.info.run_id, Status.KILLED, now_ms())
            closed.append(str(run.info.run_id))
    return closed


def close_superseded(
    store: Store, experiment: str, config_hash: str, own: str, successor: str
) -> None:
    """Marks the unfinished attempts at a run as ``KILLED``, with a tag of who makes it now.

    An outage of the store is no obstacle: the attempts stay as they are.

    Args:
        store: the store.
        experiment: experiment of the run.
        config_hash: identity of its configuration.
        own: file name of the journal that the new attempt continues; "" for none.
        successor: who makes the run now.
    """

    def close() -> None:
        found = store.experiment(experiment)
        if found is None:
            return
        wanted = f"tags.`{schema.CONFIG_HASH}` = '{config_hash}'"
        for run in list(all_runs(store, found.experiment_id, wanted)):
            status, tags = run.info.status, run.data.tags
            if status not in (Status.RUNNING, Status.KILLED) or tags.get(schema.JOURNAL) == own:
                continue
            if schema.STOP_REASON in tags or schema.SUPERSEDED_BY in tags:
                continue
            store.client.set_tag(run.info.run_id, schema.SUPERSEDED_BY, successor)
            if status == Status.RUNNING:
                store.client.set_terminated(run.info.run_id, Status.KILLED, now_ms())

    store.connection.attempt(close, urgent=True)


def end_dead(path: Path) -> None:
    """Ends the journal of a killed run, 1 ms after its last row."""
    journal = Journal(path)
    try:
        journal.end(ending_of(read_journal(path, evaluations_only=True)))
    finally:
        journal.close()


def ending_of(contents: JournalContents) -> End:
    """The end of a run; for one without an end, that of a killed run, 1 ms after its last row."""
    last_ms = contents.rows[-1].timestamp_ms if contents.rows else contents.started_ms
    return contents.end or End(Status.KILLED, last_ms + 1, {}, {})
