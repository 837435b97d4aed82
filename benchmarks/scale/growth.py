"""How costs grow with the number of runs: planning, adding, claiming, status; memory.

Boundary: CPU time of this process, and memory; a server's own is not in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import time
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.machine import exponent
from benchmarks.scale.races import race_of
from timetrial.bench.launch.graph import graph
from timetrial.bench.launch.places import open_queue
from timetrial.bench.planning import planned_lengths

TURNS = 200
"""Claims, renewals and ends that are measured in a queue of each size."""

REPEATS = 5


def costs(runs: int, root: Path, database: str | None) -> tuple[int, dict[str, float]]:
    """CPU seconds of each operation in a queue of about this many runs, and their number.

    ``claim``, ``renew``, ``finish`` and ``take_back`` are those of ``TURNS`` calls.
    """
    suite, tracking = race_of(runs, root)
    tracking = dataclasses.replace(tracking, queue=database)
    used: dict[str, float] = {}
    with _timed(used, "graph"):
        jobs = graph(suite, tracking, dict.fromkeys(suite.workloads, 2.0))
    with _timed(used, "costs of --plan"):
        planned_lengths(suite, tracking)
    with open_queue(tracking) as queue:
        for _ in range(REPEATS):
            queue.forget()
            with _timed(used, "add"):
                queue.add(jobs, "plan")
            running = [queue.claim(f"w{n}") for n in range(min(500, len(jobs) // 2))]
            assert None not in running
            for name, call in (("counts", queue.counts), ("entries", queue.entries)):
                with _timed(used, name):
                    call()
            with _timed(used, "settle all"):
                queue.settle(job.digest for job in jobs)
        queue.forget()
        queue.add(jobs, "plan")
        for half in range(len(jobs) // 2):  # an old queue: half of it is over
            claim = queue.claim(f"old {half}")
            assert claim is not None
            assert queue.finish(claim)
        with _timed(used, "claim"):
            claims = [queue.claim("w") for _ in range(TURNS)]
        for name, act in (("renew", queue.renew), ("finish", queue.finish)):
            with _timed(used, name):
                assert all(claim is not None and act(claim) for claim in claims)
        queue.forget()
    return len(jobs), used


@contextlib.contextmanager
def _timed(used: dict[str, float], name: str) -> Iterator[None]:
    """Notes the CPU seconds of a block; of a repeated one the least."""
    began = time.process_time()
    yield
    seconds = time.process_time() - began
    used[name] = min(seconds, used.get(name, seconds))


def exponents(sizes: Sequence[int], costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Exponent b of cost = a * runs**b of each operation, by least squares of the logarithms."""
    return {name: exponent(sizes, [max(cost[name], 1e-9) for cost in costs]) for name in costs[0]}


def memory(runs: int, root: Path) -> tuple[int, float, float]:
    """Runs, peak of Python objects while they are planned and added, and of the process, in MiB."""
    suite, tracking = race_of(runs, root)
    tracemalloc.start()
    with open_queue(tracking) as queue:
        jobs = graph(suite, tracking, dict.fromkeys(suite.workloads, 2.0))
        queue.add(jobs, "plan")
        queue.entries()
        _, peak = tracemalloc.get_traced_memory()
        queue.forget()
    tracemalloc.stop()
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return len(jobs), peak / 2**20, whole
