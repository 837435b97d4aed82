"""Wall time of a race by phases, without and with compiled programs on disk.

Boundary: runs ``timetrial bench`` in processes of their own; reads the journals that they leave.

    make bench-race                                        # suite quick, twice
    python -m benchmarks.race suite=quick seeds=[0] optimizers=[adam,velo]

Both races are made from nothing, in a temporary directory; the second one finds the compiled
programs of the first. Installing the package is not included. The phases sum to the wall time:

- start-up: imports, the plan, opening the store, until the first run begins;
- set-up: workloads and their data, initial parameters, and what belongs to no other account;
- compile, train (with waits for batches), eval, log (with checkpoints): the accounts of the clock;
- between: from the end of a run to the start of the next one, mostly MLflow;
- report: scores, tables and plots, until the process ends.

CPU seconds are those of all threads of the process. Training and evaluation do the same work in
both races, so their spread says how steady the machine was.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.machine import spread, watched
from timetrial.framework.compiled_files import JAX_DIRECTORY, OWN_DIRECTORY
from timetrial.framework.machine import own_cpu_seconds
from timetrial.tracking.record.journal import End, journals_in, read_journal

PHASES: Final = (
    "start-up",
    "set-up",
    "compile",
    "train",
    "eval",
    "log",
    "between",
    "report",
)
_ACCOUNTS: Final = {
    "compile": ("compile",),
    "train": ("train",),
    "eval": ("eval",),
    "log": ("log", "checkpoint"),
}
"""Accounts of each phase. ``train`` includes the wait for data; all others are set-up."""


@dataclasses.dataclass(frozen=True)
class Race:
    """One race.

    Attributes:
        began, ended: start and end of its process, in seconds since 1970.
        cpu_seconds: CPU seconds of its process.
        ends: ends of its runs as recorded, in order.
    """

    began: float
    ended: float
    cpu_seconds: float
    ends: Sequence[End]

    @property
    def wall_seconds(self) -> float:
        """Wall time of the process."""
        return self.ended - self.began


def wall_phases(race: Race) -> dict[str, float]:
    """Wall seconds by phase; they sum to the wall time of the process."""
    found = dict.fromkeys(PHASES, 0.0)
    at, phase = race.began, "start-up"
    for end in race.ends:
        ended, wall = end.timestamp_ms / 1000, end.summary["time/wall_seconds"]
        found[phase] += ended - wall - at
        for name, seconds in _of_run(end.summary, "_seconds").items():
            found[name] += seconds
        at, phase = ended, "between"
    found["report"] = race.ended - at
    return found


def cpu_phases(race: Race) -> dict[str, float]:
    """CPU seconds by phase of the runs; what the runs did not use is under ``rest``."""
    found = dict.fromkeys([*_ACCOUNTS, "set-up"], 0.0)
    for end in race.ends:
        for name, seconds in _of_run(end.summary, "_cpu_seconds").items():
            found[name] += seconds
    return {**found, "rest": race.cpu_seconds - sum(found.values())}


def _of_run(summary: Mapping[str, float], suffix: str) -> dict[str, float]:
    """Seconds of one run by phase; the rest of its wall time is set-up."""
    found = {
        phase: sum(summary.get(f"time/{account}{suffix}", 0.0) for account in accounts)
        for phase, accounts in _ACCOUNTS.items()
    }
    if suffix == "_seconds":
        rest = summary["time/wall_seconds"] - sum(found.values())
    else:
        rest = summary.get(f"time/other{suffix}", 0.0)
    return {**found, "set-up": rest}


def raced(words: Sequence[str], root: Path, compiled: Path) -> Race:
    """Makes one race in a process of its own.

    Raises:
        SystemExit: it failed; the message has the end of its output.
    """
    environment = {**os.environ, OWN_DIRECTORY: str(compiled)}
    environment.pop(JAX_DIRECTORY, None)
    command = [sys.executable, "-m", "timetrial", "bench", *words, f"tracking.root={root}"]
    cpu, began = own_cpu_seconds(), time.time()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    ended, used = time.time(), own_cpu_seconds() - cpu
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    found = [read_journal(path).end for path in journals_in(root)]
    ends = [end for end in found if end is not None and "time/wall_seconds" in end.summary]
    return Race(began, ended, used, sorted(ends, key=lambda end: end.timestamp_ms))


def table(races: Mapping[str, Race]) -> str:
    """Wall and CPU seconds by phase, a pair of columns for each race."""
    walls = {name: wall_phases(race) for name, race in races.items()}
    cpus = {name: cpu_phases(race) for name, race in races.items()}
    lines = [
        f"{'phase':10}" + "".join(f"{name + ', s':>12}{'share':>7}{'CPU s':>9}" for name in races)
    ]
    for phase in (*PHASES, "total"):
        line = f"{phase:10}"
        for name, race in races.items():
            whole = race.wall_seconds
            wall = whole if phase == "total" else walls[name][phase]
            cpu = race.cpu_seconds if phase == "total" else cpus[name].get(phase)
            text = "" if cpu is None else f"{cpu:.1f}"
            line += f"{wall:12.1f}{wall / whole:7.0%}{text:>9}"
        lines.append(line)
    rest = "".join(f"{'':19}{found['rest']:9.1f}" for found in cpus.values())
    lines.append(f"{'':10}{rest}   start-up, between, report")
    same = spread([found["train"] + found["eval"] for found in walls.values()])
    steady = spread([found["train"] + found["eval"] for found in cpus.values()])
    lines.append(f"spread of train + eval, the same work: wall {same:.1%}, CPU {steady:.1%}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the phases of two races; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.race", description="Wall time of a race by phases."
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="as of timetrial bench")
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with watched() as machine:
            races = {
                name: raced(options.words, directory / name, directory / "compiled")
                for name in ("cold", "warm")
            }
    runs = len(races["cold"].ends)
    print(f"timetrial bench {' '.join(options.words)}: {runs} runs, twice".replace(" :", ":"))
    print(table(races))
    print(machine.text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
