"""The benchmark ``make bench-scale``: a dry race, claims per second, growth of costs.

Boundary: options in, printed numbers out; exit code 1 when a rule or a goal is broken.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.scale import growth, throughput
from benchmarks.scale.races import Durations, race_of
from benchmarks.scale.record import Record
from benchmarks.scale.simulation import BrokenRuleError, Simulation
from timetrial.bench.launch.places import open_queue
from timetrial.framework.config import Tracking
from timetrial.tracking.read.runs import finished_configs
from timetrial.tracking.store.opening import open_store

SIZES = (1250, 2500, 5000, 10_000)
PARTS = ("race", "claims", "growth", "memory")
LINEAR = 1.15
"""Largest exponent that counts as linear."""


def race(options: argparse.Namespace, root: Path) -> bool:
    """Makes the dry race; True if every rule holds."""
    suite, tracking = race_of(options.runs, root)
    tracking = dataclasses.replace(tracking, queue=options.database)
    store = open_store(root=root) if options.record else None
    record = Record(tracking.experiment, store)
    began, used = time.monotonic(), time.process_time()
    with open_queue(tracking) as queue:
        queue.forget()
        durations = Durations(options.seed, options.durations)
        parts = (options.gpus, durations, record, None, options.seed)
        simulation = Simulation(suite, tracking, queue.engine, *parts)
        try:
            simulation.run()
        except BrokenRuleError as error:
            print(f"BROKEN: {error}")
            return False
        finally:
            queue.forget()
    wall, used = time.monotonic() - began, time.process_time() - used
    happened = ", ".join(f"{name} {n}" for name, n in sorted(simulation.events.items()))
    print(
        f"race: {len(simulation.jobs)} runs on {options.gpus} workers, {simulation.now / 3600:.2f} "
        f"simulated hours in {used:.0f} s of CPU ({wall:.0f} s): none twice, none lost; {happened}"
    )
    if store is None:
        return True
    used = time.process_time()
    found = finished_configs(store, tracking.experiment)
    used = time.process_time() - used
    same = found == record.finished.keys()
    print(f"record: finished_configs reads {len(found)} runs in {used:.2f} s of CPU; equal: {same}")
    return same


def claims(options: argparse.Namespace, root: Path) -> bool:
    """Measures claims per second; True if the goal is reached, where there is one."""
    tracking = Tracking(root=str(root), experiment="scale-claims", queue=options.database)
    good = True
    for processes in (1, 2, 4, 8):
        rate = throughput.measure(tracking, options.claims, processes)
        print(
            f"claims: {processes} processes: {rate.per_second:.0f} per s, each with renewal and "
            f"end; {1000 * rate.cpu_seconds / rate.claims:.2f} ms of CPU per claim"
        )
        if options.database.startswith("postgresql") and processes > 1:
            good = good and rate.per_second >= throughput.GOAL
    return good


def grows(options: argparse.Namespace, root: Path) -> bool:
    """Measures how costs grow; True if all are linear."""
    sizes, costs = [], []
    for size in [size for size in SIZES if size <= options.runs]:
        number, cost = growth.costs(size, root, options.database)
        sizes.append(number)
        costs.append(cost)
        parts = [f"{name} {1000 * seconds:.1f}" for name, seconds in cost.items()]
        print(f"growth: {number} runs, ms of CPU: {', '.join(parts)}", flush=True)
    if len(sizes) < 2:
        return True
    found = growth.exponents(sizes, costs)
    print("growth: exponents: " + ", ".join(f"{name} {b:.2f}" for name, b in found.items()))
    return all(exponent <= LINEAR for exponent in found.values())


def remembers(options: argparse.Namespace, root: Path) -> bool:
    """Prints the driver's memory."""
    number, peak, whole = growth.memory(options.runs, root)
    print(
        f"memory: {number} runs planned, added and listed: {peak:.0f} MiB of Python objects, "
        f"{whole:.0f} MiB of the process in all"
    )
    return True


def main() -> None:
    """Prints the numbers; exits with 1 if a rule or a goal is broken."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--gpus", type=int, default=500, help="number of workers")
    parser.add_argument(
        "--database", default="sqlite", help="sqlite, a new file; or postgresql://USER@HOST/NAME"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of durations and of failures")
    parser.add_argument(
        "--durations", type=Path, metavar="ROOT", help="draw from the recorded runs of this root"
    )
    parser.add_argument("--record", action="store_true", help="write journals, read them back")
    parser.add_argument("--claims", type=int, default=2000, help="runs for claims per second")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    options = parser.parse_args()
    chosen = options.parts.split(",")
    parts: dict[str, Callable[[argparse.Namespace, Path], bool]] = dict(
        zip(PARTS, (race, claims, grows, remembers), strict=True)
    )
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"--parts: expected some of {', '.join(PARTS)}, got {', '.join(unknown)}")
    with tempfile.TemporaryDirectory() as directory:
        if options.database == "sqlite":
            options.database = f"sqlite:///{directory}/queue.db"
        good = True
        for name in PARTS:
            if name in chosen:
                good = parts[name](options, Path(directory) / name) and good
                print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
