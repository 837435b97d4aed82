"""Claims per second: processes that claim, renew and finish runs as fast as the database answers.

Boundary: real processes and a real database; makes no run.
"""

from __future__ import annotations

import collections
import dataclasses
import multiprocessing
import resource
import time
from multiprocessing.synchronize import Barrier

from timetrial.bench.launch.graph import Job
from timetrial.bench.launch.places import open_queue
from timetrial.bench.launch.tables import FINISHED
from timetrial.framework.config import Tracking

GOAL = 200.0
"""Least claims per second on PostgreSQL."""

SETTINGS = "workload:\n  name: flights_dlrm\n" + "#" * 700
"""A text as long as the settings of a run."""


@dataclasses.dataclass(frozen=True)
class Rate:
    """What some processes reached together.

    Attributes:
        claims: runs claimed, renewed and finished.
        wall_seconds: from the common start to the last end.
        cpu_seconds: of the processes, without those of a server.
    """

    claims: int
    wall_seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        """Claims per second of wall time; each with its renewal and its end."""
        return self.claims / self.wall_seconds


def jobs(number: int) -> list[Job]:
    """Runs without settings that mean anything."""
    return [Job(f"{n:016x}", f"run {n}", SETTINGS, n) for n in range(number)]


def measure(tracking: Tracking, runs: int, processes: int) -> Rate:
    """Lets processes claim all runs of a new queue.

    Raises:
        AssertionError: a run was claimed twice, or is lost.
    """
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with open_queue(tracking) as queue:
        queue.forget()
        queue.add(jobs(runs))
        start = context.Barrier(processes)
        workers = [
            context.Process(target=_hammer, args=(tracking, f"w{n}", start, results))
            for n in range(processes)
        ]
        for worker in workers:
            worker.start()
        found = [results.get() for _ in workers]
        for worker in workers:
            worker.join()
        counts = queue.counts()
        queue.forget()
    claimed = collections.Counter(digest for digests, *_ in found for digest in digests)
    assert len(claimed) == runs == counts[FINISHED], "runs are lost"
    assert max(claimed.values()) == 1, "runs were claimed twice"
    begins, ends, used = ([one[i] for one in found] for i in (1, 2, 3))
    return Rate(runs, max(ends) - min(begins), sum(used))


def _hammer(tracking: Tracking, name: str, start: Barrier, results: object) -> None:
    digests = []
    with open_queue(tracking) as queue:
        queue.counts()  # connected
        start.wait()
        before, begun = _cpu_seconds(), time.time()
        while (claim := queue.claim(name)) is not None:
            assert queue.renew(claim)
            assert queue.finish(claim)
            digests.append(claim.job.digest)
        results.put((digests, begun, time.time(), _cpu_seconds() - before))  # type: ignore[attr-defined]


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
