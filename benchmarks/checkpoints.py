"""Cost of checkpoints: how long a save holds up a run, and its share of a mini run.

Boundary: prints a table; writes into a temporary directory.

    python -m benchmarks.checkpoints [--largest MIB]

The last column is the former format, one msgpack file made in memory: it held up the run for all of
its time. The lines below are whole runs of suite quick: seconds and CPU seconds of the account
``checkpoint``, in percent of the run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import serialization

from timetrial.bench import suite as suites
from timetrial.bench.experiment import run
from timetrial.bench.resuming import run_directory
from timetrial.bench.workshop import Workshop
from timetrial.framework.checkpoint import Checkpoints, Saved
from timetrial.framework.files import write_atomically
from timetrial.framework.state import TrainState
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.store.opening import open_store

REPEATS = 5
ARRAYS = 60
"""Arrays of parameters; each has two averages, as with Adam."""


def states(largest_mib: int) -> Iterator[tuple[str, TrainState]]:
    """States of growing size, with equally many arrays."""
    for mib in (1, 10, 100, 1000, 10_000):
        if mib <= largest_mib:
            size = mib * 2**20 // (4 * 3 * ARRAYS)
            keys = jax.random.split(jax.random.key(0), ARRAYS)  # random numbers: not compressible
            params = {f"w{i}": jax.random.normal(key, (size,)) for i, key in enumerate(keys)}
            averages = jax.tree.map(jnp.copy, (params, params))
            key = jax.random.key(0)
            yield f"{mib} MiB", TrainState(jnp.int32(1), params, {}, averages, key)


def measure(state: TrainState, directory: Path) -> tuple[float, float, float, float, float]:
    """Median seconds: holding up, whole, CPU, reading back; and those of one msgpack file."""
    checkpoints = Checkpoints(directory / "run", "x")
    held, whole, cpu = [], [], []
    for _ in range(REPEATS):
        began, used = time.perf_counter(), time.process_time()
        checkpoints.save(state, Saved(1, {}))
        held.append(time.perf_counter() - began)
        checkpoints.wait()
        whole.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    checkpoints.close()
    began = time.perf_counter()
    loaded = checkpoints.latest()
    assert loaded is not None
    jax.block_until_ready(loaded.state(state).params)
    read = time.perf_counter() - began
    began = time.perf_counter()
    tree = jax.device_get((state.params, state.opt_state))
    content = serialization.msgpack_serialize({"leaves": dict(enumerate(jax.tree.leaves(tree)))})
    write_atomically(directory / "old", content)
    old = time.perf_counter() - began
    (directory / "old").unlink()
    return (*map(statistics.median, (held, whole, cpu)), read, old)


def mini_runs(directory: Path) -> None:
    """Prints the share of checkpoints in runs of suite quick, one optimizer a workload."""
    words = ["seeds=[0]", "conditions=[step]", "optimizers=[adam,velo]"]
    suite, tracking = suites.load_suite([*words, f"tracking.root={directory}"])
    store, workshop = open_store(root=directory), Workshop()
    for workload in suite.workloads:
        for config in suites.plan(suite, tracking, workload):
            run(config, store, workshop, directory=run_directory(config))
    for record in load_runs(store, tracking.experiment):
        metrics = store.client.get_run(record.run_id).data.metrics
        wall = metrics["time/wall_seconds"]
        seconds = metrics.get("time/checkpoint_seconds", 0.0)
        cpu = metrics.get("time/checkpoint_cpu_seconds", 0.0)
        size = sum(f.stat().st_size for f in (directory / record.tags["checkpoints"]).rglob("*"))
        print(
            f"{record.workload:24}{record.optimizer:16}{wall:7.2f} s  "
            f"{100 * seconds / wall:6.2f} %  {100 * cpu / wall:6.2f} % CPU  {size / 2**20:6.1f} MiB"
        )


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=1000, help="largest state in MiB")
    options = parser.parse_args()
    print(f"{'state':12}{'held up':>12}{'whole':>12}{'CPU':>12}{'read':>12}{'msgpack':>12}")
    with tempfile.TemporaryDirectory() as directory:
        for name, state in states(options.largest):
            times = measure(state, Path(directory))
            print(f"{name:12}" + "".join(f"{1e3 * each:9.1f} ms" for each in times), flush=True)
    with tempfile.TemporaryDirectory() as directory:
        mini_runs(Path(directory))


if __name__ == "__main__":
    main()
