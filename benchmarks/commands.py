"""Time of the commands that answer at once: help, lists, completion, and ``timetrial`` alone.

Each command runs in a fresh process, one after the other in rounds, so that changes of the
machine's speed affect all. The result is the median over the rounds: CPU seconds of the
process, which load on the machine hardly changes, and wall seconds, which need an idle machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.machine import watched

COMMANDS = ("", "--help", "list", "list optimizers", "list workloads", "list suites")
"""Words after ``timetrial``; completion is added to them."""

COMPLETED = "timetrial train optimizer="

GOAL_SECONDS = 0.3


def once(words: str, environment: dict[str, str]) -> tuple[float, float]:
    """CPU and wall seconds of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    command = [sys.executable, "-m", "timetrial", *words.split()]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def completing() -> dict[str, str]:
    """The variables with which a shell asks for completion of ``COMPLETED``."""
    return {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "COMP_LINE": COMPLETED,
        "COMP_POINT": str(len(COMPLETED)),
        "_ARGCOMPLETE_STDOUT_FILENAME": os.devnull,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(arguments)
    cases = {words or "(nothing)": (words, dict(os.environ)) for words in COMMANDS}
    cases["completion"] = ("", completing())
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    with watched() as machine:
        for _ in range(options.rounds):
            for name, (words, environment) in cases.items():
                times[name].append(once(words, environment))
    print(machine.text)
    print(f"median of {options.rounds} rounds (range); goal {GOAL_SECONDS} s of wall time, idle")
    for name, found in times.items():
        cpu, wall = zip(*found, strict=True)
        print(
            f"{name:<16} CPU {statistics.median(cpu):.3f} s ({min(cpu):.3f} to {max(cpu):.3f})  "
            f"wall {statistics.median(wall):.3f} s"
        )


if __name__ == "__main__":
    main()
