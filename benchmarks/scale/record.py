"""The record of a simulated race: which runs are finished, in memory or in real journals.

Boundary: writes journals as a run does, with one evaluation each; sends nothing to MLflow.
"""

from __future__ import annotations

import collections

from timetrial.bench.launch.graph import Job
from timetrial.framework.records import Row
from timetrial.framework.types import Status
from timetrial.tracking.record import schema
from timetrial.tracking.record.journal import RunHeader
from timetrial.tracking.record.tracker import start_run
from timetrial.tracking.store.opening import Store


class Record:
    """Counts the finished records of every run.

    Args:
        experiment: experiment of the runs.
        store: where journals are written; None writes none.

    Attributes:
        finished: finished records by digest.
    """

    def __init__(self, experiment: str, store: Store | None = None) -> None:
        self.finished: collections.Counter[str] = collections.Counter()
        self._experiment, self._store = experiment, store

    def add(self, job: Job, status: Status, seconds: float) -> None:
        """Records an attempt at a run that took so many seconds."""
        if status == Status.FINISHED:
            self.finished[job.digest] += 1
        if self._store is None:
            return
        workload, optimizer, *_, seed = job.name.split()
        tags = {
            schema.WORKLOAD: workload,
            schema.OPTIMIZER: optimizer,
            schema.SEED: seed,
            schema.CONDITION: "step",
            schema.BUDGET: "100",
            schema.METRIC: "loss",
            schema.DIRECTION: "minimize",
            schema.CONFIG_HASH: job.digest,
            **job.tags,
        }
        tracker = start_run(self._store.journals, RunHeader(self._experiment, job.name, tags))
        tracker.log([Row(100, seconds, {"validation/loss": 1.0})])
        tracker.finish(status, {schema.STOP_REASON: "BUDGET"}, {schema.WALL_SECONDS: seconds})
