"""Puts the runs of a suite into a queue, as soon as their time budgets are known.

Boundary: reads the record, adds to the queue; ``graph`` says which runs there are.
"""

from __future__ import annotations

import hashlib
import json

from timetrial.bench import suite as suites
from timetrial.bench.launch.graph import Job, graph
from timetrial.bench.launch.pool import Pool
from timetrial.bench.launch.queue import Queue
from timetrial.bench.launch.tables import FAILED, FINISHED
from timetrial.bench.planning import time_budget
from timetrial.bench.suite import Suite
from timetrial.framework import config as configuration
from timetrial.framework.config import Tracking
from timetrial.framework.types import Condition
from timetrial.tracking.read.runs import finished_configs
from timetrial.tracking.store.opening import Store


class Planner:
    """Adds what is known of a race to its queue.

    Args:
        suite: the suite.
        tracking: store and experiment of the runs.
        store: the store, open.
        queue: the queue.
        pool: pool of the runs with time budgets; None for any machine.
    """

    def __init__(
        self, suite: Suite, tracking: Tracking, store: Store, queue: Queue, pool: Pool | None = None
    ) -> None:
        self.suite = suite
        self._tracking, self._store, self._queue, self._pool = tracking, store, queue, pool
        self._pool_tag = "" if pool is None else pool.tag
        self._seconds: dict[str, float | None] = dict.fromkeys(suite.workloads)
        self._identity = ""
        self._ended = -1

    def plan(self, *, again: bool = False) -> bool:
        """Adds runs that became known since the last call; True if this call added any.

        It looks into the record only if a run has ended since then.

        Args:
            again: look even so.
        """
        counts = self._queue.counts()
        ended = counts[FINISHED] + counts[FAILED]
        if ended == self._ended and not again:
            return False
        self._ended = ended
        self._look_up_budgets()
        identity = self._plan_identity()
        if identity == self._identity:
            return False
        self._identity = identity
        with self._queue.lock():
            if self._queue.planned(identity):
                return False
            jobs = graph(self.suite, self._tracking, self._seconds, self._pool_tag)
            self._queue.add(jobs, identity)
            done = finished_configs(self._store, self._tracking.experiment)
            due = self._due_references()
            self._queue.settle(done - due)
            self._queue.reopen(due, self._pool_tag)
        return True

    def without_budget(self) -> list[str]:
        """Workloads whose reference run has set no time budget yet."""
        if Condition.TIME not in self.suite.conditions:
            return []
        return [name for name, seconds in self._seconds.items() if seconds is None]

    def is_due(self, job: Job) -> bool:
        """True for a reference run that no machine of the pool has made."""
        return job.digest in self._due_references()

    def _due_references(self) -> set[str]:
        """Reference runs that other machines may have made, but none of the pool."""
        if self._pool is None:
            return set()
        references = (
            suites.pacemaker(self.suite, self._tracking, name) for name in self.without_budget()
        )
        return {configuration.digest(reference) for reference in references}

    def _look_up_budgets(self) -> None:
        for workload in self.without_budget():
            self._seconds[workload] = time_budget(
                self.suite, self._tracking, workload, self._store, self._pool
            )

    def _plan_identity(self) -> str:
        """Identity of what the runs are planned from; the same on every machine."""
        suite = self.suite
        facts = [
            suite.name,
            suite.workloads,
            suite.optimizer_names(),
            suite.seeds,
            suite.conditions,
            sorted(self._seconds.items()),
            self._pool_tag,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
