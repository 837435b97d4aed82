"""Speed of the data pipelines: examples per CPU second, beside the need of one H100.

Raw files of realistic size are made in a temporary directory, prepared, and read as a training run
reads them. Every number is CPU time of one core, so that other processes disturb it little. The
need is the batch size over half the step time of one A100 (Rezk et al., "Is Scaling Learned
Optimizers Worth It?", 2023, https://arxiv.org/abs/2310.18191, Tables 4 and 5). Exits with 1 if a
goal is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.data_steps import STEPS, Sizes, Step, prepare_all
from timetrial.workloads.data.libraries import require_libraries

NEED = {"criteo1tb": 491_117, "fastmri": 141, "imagenet_resnet": 2_198, "ogbg": 5_513}
"""Examples per second that one H100 trains on."""

GOALS = {
    ("criteo1tb", "part"): 2_000_000,
    ("criteo1tb", "prepare"): 150_000,
    ("fastmri", "part"): 450,
    ("imagenet_resnet", "part"): 750,
    ("ogbg", "part"): 150_000,
}
"""Least examples per CPU second."""

FULL = Sizes(images=96, slices=24, graphs=24_000, rows=32_768, block_rows=16_384)
QUICK = Sizes(images=4, slices=2, graphs=100, rows=48, block_rows=16)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        workload: name of the workload.
        step: name of the step.
        rate: examples per CPU second.
        need: examples per second of one H100; None where it does not apply.
        goal: least rate; None without one.
    """

    workload: str
    step: str
    rate: float
    need: int | None
    goal: int | None

    @property
    def cores(self) -> float | None:
        """Cores that saturate one H100."""
        return None if self.need is None else self.need / self.rate

    @property
    def missed(self) -> bool:
        """Whether the rate is below the goal."""
        return self.goal is not None and self.rate < self.goal


def rate(step: Step, seconds: float, repeats: int) -> float:
    """Examples per CPU second of a step: the best of some repeats, after a warm-up.

    Args:
        step: what to measure.
        seconds: least CPU time of a repeat.
        repeats: number of repeats.
    """
    step.run(0)
    number, found = 1, []
    for _ in range(repeats):
        examples, started = 0, time.process_time()
        while (used := time.process_time() - started) < seconds:
            examples += step.run(number)
            number += 1
        found.append(examples / used)
    return max(found)


def measured(root: Path, sizes: Sizes, seconds: float, repeats: int) -> Iterable[Row]:
    """Prepares everything below ``root``, then measures every step."""
    for workload, speed in prepare_all(root, sizes).items():
        yield row(workload, "prepare", speed)
    for workload, make in STEPS.items():
        for step in make(root / "data", sizes):
            yield row(workload, step.name, rate(step, seconds, repeats))


def row(workload: str, step: str, speed: float) -> Row:
    """A line of the table with need and goal."""
    need = None if step == "prepare" else NEED[workload]
    return Row(workload, step, speed, need, GOALS.get((workload, step)))


def line(one: Row) -> str:
    """A line of the table as text."""
    cores = "" if one.cores is None else f"{one.cores:.2f}"
    need = "" if one.need is None else f"{one.need:,}"
    goal = "" if one.goal is None else f"{one.goal:,}{'  MISSED' if one.missed else ''}"
    return f"{one.workload:<16} {one.step:<16} {one.rate:>12,.0f} {need:>9} {cores:>6} {goal:>10}"


def main(arguments: list[str] | None = None, show: Callable[[str], object] = print) -> int:
    """Prints the table; returns 1 if a goal was missed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny input, no goals: seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON, too")
    parser.add_argument("--seconds", type=float, default=0.5, help="CPU seconds per repeat")
    parser.add_argument("--repeats", type=int, default=3, help="repeats per step (default: 3)")
    options = parser.parse_args(arguments)
    require_libraries("bench-data")
    sizes, seconds, repeats = FULL, options.seconds, options.repeats
    if options.quick:
        sizes, seconds, repeats = QUICK, 0.01, 1
    head = ("examples per CPU second", "need H100", "cores", "goal")
    show(f"{'':<22} {head[0]:>23} {head[1]:>9} {head[2]:>6} {head[3]:>10}")
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for one in measured(Path(directory), sizes, seconds, repeats):
            rows.append(one)
            show(line(one))
    if options.json is not None:
        table = [{**dataclasses.asdict(one), "cores": one.cores} for one in rows]
        options.json.write_text(json.dumps(table, indent=1) + "\n")
    missed = [one for one in rows if one.missed and not options.quick]
    show(f"{len(missed)} of {len(GOALS)} goals missed" if missed else "every goal reached")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
