"""Records one run: first into its spool file, from there in batches into MLflow.

Boundary: writes only; never called inside timed code. A store that fails does not stop a run:
the spool keeps everything, and ``tracking.store.mirror`` brings it into a store later.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from timetrial.framework.records import Row
from timetrial.framework.types import Status
from timetrial.tracking.record import schema
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.evaluations_file import Evaluations
from timetrial.tracking.record.journal import End, RunHeader, Spool
from timetrial.tracking.store.opening import Store, store_errors
from timetrial.tracking.store.writer import RunWriter, points_of

if TYPE_CHECKING:
    from mlflow.entities import Metric

_log = logging.getLogger(__name__)

RETRY_SECONDS = 60.0  # after a failure a store is left alone for so long
STATUSES = (Status.FINISHED, Status.FAILED, Status.KILLED)


class MlflowTracker:
    """The ``framework.records.Tracker`` of one run in an MLflow store.

    Args:
        store: where the run goes.
        identity: who the run is; its tags hold at least ``schema.REQUIRED_TAGS``.
        flush_seconds: what was logged reaches MLflow at most this much later, while rows come.

    Attributes:
        spool_path: the run's spool file.

    Raises:
        TrackingError: a required tag is missing, or the spool file cannot be written.
    """

    def __init__(self, store: Store, identity: RunHeader, *, flush_seconds: float = 5.0) -> None:
        missing = [tag for tag in schema.REQUIRED_TAGS if tag not in identity.tags]
        if missing:
            raise TrackingError(
                f"tags of a run: expected all of {', '.join(schema.REQUIRED_TAGS)}; "
                f"missing: {', '.join(missing)}"
            )
        spool_id = uuid.uuid4().hex
        file_name = re.sub(r"[^\w.\-]+", "_", identity.run_name)[:100]
        self.spool_path = store.spool_directory / f"{file_name}-{spool_id}.jsonl"
        self._spool = Spool(self.spool_path)
        self._writer = RunWriter(store, self.spool_path, spool_id, now_ms(), identity)
        self._spool.start(spool_id, self._writer.started_ms, identity)
        self._store = store
        self._flush_seconds = flush_seconds
        self._unsent: list[Metric] = []
        self._last_step: int | None = None
        self._evaluations = Evaluations()
        self._last_ms = self._writer.started_ms
        self._next_flush = 0.0
        self._failing = False
        self._finished = False
        self._flush()  # the run shows in MLflow from the start

    @property
    def run_id(self) -> str | None:
        """The run's id in MLflow; ``None`` while MLflow could not be told of it."""
        return self._writer.run_id

    def log(self, rows: Sequence[Row]) -> None:
        """Appends rows to the spool and, now and then, sends.

        Raises:
            TrackingError: the spool file cannot be written; earlier rows are kept.
        """
        timed = []
        for row in rows:
            self._last_ms = max(self._last_ms + 1, now_ms())
            numbers = {key: float(value) for key, value in row.metrics.items()}
            timed.append(Row(int(row.step), float(row.train_seconds), numbers, self._last_ms))
        self._spool.rows(timed)
        self._unsent += points_of(timed, self._last_step)
        self._last_step = timed[-1].step if timed else self._last_step
        self._evaluations.add(timed)
        if time.monotonic() >= self._next_flush:
            self._flush()

    def finish(self, status: str, tags: Mapping[str, str], summary: Mapping[str, float]) -> None:
        """Ends the run; what MLflow would not take stays in the spool, and a warning says so.

        Raises:
            TrackingError: the spool file cannot be written.
            ValueError: an unknown status.
            RuntimeError: the run has ended before.
        """
        if status not in STATUSES:
            raise ValueError(f"status of a run: expected one of {STATUSES}, got {status!r}")
        if self._finished:
            raise RuntimeError(f"run {self._writer.identity.run_name}: finished twice")
        self._finished = True
        self._last_ms = max(self._last_ms + 1, now_ms())
        end = End(status, self._last_ms, dict(tags), dict(summary))
        try:
            try:
                self._spool.end(end)
            finally:
                self._flush(end)
            if not self._failing:
                self._spool.sent(self._store.uri)
        finally:
            self._spool.close()

    def _flush(self, end: End | None = None) -> None:
        """Sends what is unsent; keeps it, and warns once, when the store fails."""
        try:
            with store_errors(self._store.uri):
                self._writer.metrics(self._unsent)
                if end is not None:
                    self._writer.end(end, self._last_step or 0, self._evaluations.in_order())
        except TrackingError as error:
            if end is not None:
                _log.warning(
                    "%s. The run is complete in its spool file; bring it into MLflow with: "
                    "timetrial replay --file %s",
                    error,
                    self.spool_path,
                )
            elif not self._failing:
                _log.warning("%s. The run goes on and is kept in %s", error, self.spool_path)
            self._failing = True
            self._next_flush = time.monotonic() + max(self._flush_seconds, RETRY_SECONDS)
        else:
            self._failing = False
            self._next_flush = time.monotonic() + self._flush_seconds


def now_ms() -> int:
    """Wall-clock time in ms since 1970, as MLflow counts."""
    return time.time_ns() // 1_000_000
