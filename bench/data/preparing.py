"""``timetrial data prepare``: says what a data set needs, then prepares it.

Boundary: text and progress; ``workloads.data.preparing`` writes the files.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import TextColumn

from timetrial.bench.progress import PLAIN_LINE_EVERY_SECONDS, duration, growing_bar
from timetrial.framework.errors import UserError
from timetrial.framework.machine import usable_cores
from timetrial.workloads.data.catalogue import DataSet, free_space, size_text
from timetrial.workloads.data.libraries import require_libraries
from timetrial.workloads.data.preparing import Workshop

SAMPLE_FACTOR: Final = 3
"""Disk space of a prepared sample, at most, over that of its raw files."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What to prepare, and how.

    Attributes:
        data: the data set.
        root: root of the prepared data sets.
        source: directory of the raw files; None only says what is needed.
        processes: worker processes; None for one per core.
        skip_bad: largest number of bad records to leave out of each directory.
        sample: the raw files are a small sample.
    """

    data: DataSet
    root: Path
    source: Path | None
    processes: int | None = None
    skip_bad: int = 0
    sample: bool = False

    @property
    def workers(self) -> int:
        """Number of worker processes."""
        return self.processes or len(usable_cores())


def needs(request: Request) -> str:
    """What the preparation needs, in lines."""
    data = request.data
    lines = {
        "raw files": f"{data.raw_text}; about {size_text(data.raw_bytes)}",
        "from": data.where,
        "licence": data.licence,
    }
    free = f"in {request.root} ({size_text(free_space(request.root))} free)"
    if request.sample:
        lines["disk"] = f"at most {SAMPLE_FACTOR} times the raw files of the sample, {free}"
    else:
        seconds = 3600 * data.cpu_hours
        lines["disk"] = f"{size_text(data.bytes)} {free}"
        lines["time"] = (
            f"about {duration(seconds)} of one core, "
            f"{duration(seconds / request.workers)} with {request.workers} workers"
        )
    text = "\n".join(f"  {name:<10} {line}" for name, line in lines.items())
    return f"{data.workload}: {data.title}\n{text}"


def prepare(request: Request) -> int:
    """Prepares a data set; returns the exit code.

    Raises:
        UserError: the extra ``[data]`` or raw files are missing, there is too little disk space, or
            there are too many bad records.
    """
    data, root, source = request.data, request.root, request.source
    print(needs(request), flush=True)
    if data.is_prepared(root):
        print(f"prepared already; timetrial data verify {data.workload} checks it")
        return 0
    require_libraries(f"data prepare {data.workload}")
    if source is None:
        raise UserError("--source: expected the directory of the raw files, got none")
    found = data.check_source(source)
    data.check_space(root, SAMPLE_FACTOR * found if request.sample else data.bytes)
    print(f"  found      {size_text(found)} of raw files in {source}\n", flush=True)
    for name, step in data.steps.items():
        with work_bar(name) as progress:
            shop = Workshop(root, name, request.workers, request.skip_bad, progress)
            step(shop, source, sample=request.sample)
    print(_done(data, root))
    return 0


def _done(data: DataSet, root: Path) -> str:
    """What was prepared, and each bad record that was left out."""
    counts = ", ".join(f"{split} {n:,}" for split, n in data.examples(root).items())
    lines = [f"prepared: {counts} {data.unit}; {size_text(data.size(root))} in {root}"]
    for manifest in data.manifests(root):
        lines += [f"  left out: {bad.place}: {bad.rule}" for bad in manifest.skipped]
    return "\n".join([*lines, f"next: timetrial data verify {data.workload}"])


class Estimate:
    """The time left of some work, from the pace since the first report.

    Work that an earlier attempt did is there at the first report, so it does not count.
    """

    def __init__(self) -> None:
        self._total = -1
        self._first = 0
        self._started = 0.0

    def left(self, done: int, total: int) -> float | None:
        """Seconds left; None while unknown. Another total starts anew."""
        now = time.monotonic()
        if total != self._total or done < self._first:
            self._total, self._first, self._started = total, done, now
        if done <= self._first or now <= self._started:
            return None
        return (total - done) * (now - self._started) / (done - self._first)


@contextmanager
def work_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Shows work in bytes; yields a function of (done, total).

    A bar on a terminal; elsewhere a line, at most every minute.
    """
    console = Console(file=sys.stderr, highlight=False)
    estimate = Estimate()
    last = time.monotonic()
    with Bars(
        TextColumn("{task.description}", markup=False),
        growing_bar(),
        TextColumn("{task.percentage:>3.0f}% {task.fields[text]}", markup=False),
        console=console,
        transient=True,
        expand=True,
        disable=not console.is_terminal,
    ) as bars:
        task = bars.add_task(title, total=None, text="")

        def show(done: int, total: int) -> None:
            nonlocal last
            left = estimate.left(done, total)
            text = f"of {size_text(total)}" + ("" if left is None else f", {duration(left)} left")
            bars.update(task, completed=done, total=total, text=text)
            now = time.monotonic()
            if not console.is_terminal and total and now - last > PLAIN_LINE_EVERY_SECONDS:
                last = now
                line = f"{title}: {done / total:.0%} {text}"
                console.print(line, soft_wrap=True, markup=False)

        yield show
