"""What a race or study costs: hours, longest chain, wall time with several workers, money.

Pure: durations in, numbers and lines of text out.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
from collections.abc import Sequence

from timetrial.bench.lengths import ESTIMATED, UNKNOWN, Expected
from timetrial.bench.progress import duration


@dataclasses.dataclass(frozen=True)
class Planned:
    """A run that is planned.

    Attributes:
        expected: its wall time.
        after: positions of runs that must have ended first, each smaller than its own.
        is_recorded: it is recorded as finished already.
    """

    expected: Expected
    after: tuple[int, ...] = ()
    is_recorded: bool = False

    @property
    def seconds(self) -> float:
        """Expected wall time."""
        return self.expected.seconds


@dataclasses.dataclass(frozen=True)
class Crew:
    """The workers of a launcher.

    Attributes:
        launcher: its name.
        workers: number of workers, >= 1.
        gpus: GPUs of each worker; 0 on CPUs.
        one_machine: all workers share one machine.
    """

    launcher: str = "local"
    workers: int = 1
    gpus: int = 0
    one_machine: bool = True


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Runs divided among workers.

    Attributes:
        wall_seconds: time until the last run has ended.
        counts: runs of each worker.
    """

    wall_seconds: float
    counts: tuple[int, ...]


def longest_chain(runs: Sequence[Planned]) -> tuple[float, int]:
    """Seconds and number of runs of the longest chain of runs that wait for one another.

    It is the least wall time, whatever the number of workers.

    Args:
        runs: the runs in order.
    """
    best = (0.0, 0)
    ends: list[tuple[float, int]] = []
    for run in runs:
        seconds, count = max((ends[i] for i in run.after), default=(0.0, 0))
        ends.append((seconds + run.seconds, count + 1))
        best = max(best, ends[-1])
    return best


def schedule(runs: Sequence[Planned], workers: int) -> Schedule:
    """Divides runs among workers as the queue does: who is idle takes the first run that may begin.

    This is list scheduling: R. L. Graham, "Bounds for certain multiprocessing anomalies", Bell
    System Technical Journal 45 (1966), https://doi.org/10.1002/j.1538-7305.1966.tb01709.x.

    Args:
        runs: the runs in order.
        workers: number of workers, >= 1.
    """
    followers: dict[int, list[int]] = collections.defaultdict(list)
    waits = [len(set(run.after)) for run in runs]
    for position, run in enumerate(runs):
        for before in set(run.after):
            followers[before].append(position)
    ready = [position for position, number in enumerate(waits) if number == 0]
    idle = list(range(workers))
    running: list[tuple[float, int, int]] = []
    counts = [0] * workers
    now = 0.0
    while ready or running:
        while ready and idle:
            position, worker = heapq.heappop(ready), heapq.heappop(idle)
            counts[worker] += 1
            heapq.heappush(running, (now + runs[position].seconds, position, worker))
        now, position, worker = heapq.heappop(running)
        heapq.heappush(idle, worker)
        for follower in followers[position]:
            waits[follower] -= 1
            if waits[follower] == 0:
                heapq.heappush(ready, follower)
    return Schedule(now, tuple(counts))


def hours(runs: Sequence[Planned], crew: Crew) -> float:
    """GPU-hours of the runs where workers have GPUs, else machine-hours.

    A GPU counts while a run uses it. Of CPUs, each worker counts as a machine while it makes a run;
    workers of one machine together count as one until the last run has ended.
    """
    busy = sum(run.seconds for run in runs) / 3600
    if crew.gpus:
        return busy * crew.gpus
    return schedule(runs, crew.workers).wall_seconds / 3600 if crew.one_machine else busy


def cost_lines(
    runs: Sequence[Planned], crew: Crew, *, machine: str = "", price: float | None = None
) -> list[str]:
    """The costs in words.

    Args:
        runs: the runs in order.
        crew: the workers that make them.
        machine: machine of the suite's estimate, in words.
        price: money per GPU-hour, or per machine-hour on CPUs, in any currency; None if unknown.
    """
    unit = "GPU-hour" if crew.gpus else "machine-hour"
    spent, planned = hours(runs, crew), schedule(runs, crew.workers)
    chain, links = longest_chain(runs)
    share = f", {_count(crew.gpus, 'GPU')} each" if crew.gpus else ""
    lines = [
        _sources(runs, machine),
        f"cost: {_number(spent)} {unit}s; longest chain of waiting runs: {duration(chain)} "
        f"({_count(links, 'run')})",
        f"launcher {crew.launcher}, {_count(crew.workers, 'worker')}{share}: about "
        f"{duration(planned.wall_seconds)}; {_range(planned.counts)} per worker",
    ]
    if price is not None:
        lines.append(f"price: {spent * price:,.2f}, at {price:g} per {unit}")
    left = [run for run in runs if not run.is_recorded]
    if len(left) < len(runs):
        rest = duration(sum(run.seconds for run in left))
        done = len(runs) - len(left)
        lines.append(f"recorded already: {done} of {len(runs)} runs; the others take {rest}")
    return lines


def _sources(runs: Sequence[Planned], machine: str) -> str:
    """Where the expected seconds come from, by number of runs."""
    found = collections.Counter(run.expected.source for run in runs)
    words = {
        ESTIMATED: f"from {ESTIMATED}" + (f" ({machine})" if machine else ""),
        UNKNOWN: "unknown and counted as 0 s, until one such run is recorded",
    }
    parts = [f"{n} {words.get(source, f'from {source}')}" for source, n in found.items()]
    return f"time of a run: {', '.join(parts)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return _count(low, "run") if low == high else f"{low} to {_count(high, 'run')}"
