"""Cost of the training loop: ``Trainer.fit`` with all default callbacks over a bare loop.

Both run the same compiled update on the same batches, alternately, so that changes of the machine's
speed affect both. The result is the median over the pairs of the ratio of wall time per step, on
the workload with the shortest steps: 2,000 steps with an evaluation before and after them (goal: at
most 1.01), and 200 steps with an evaluation every 50 (goal: at most 1.03). All pairs are printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from benchmarks.machine import watched
from timetrial.bench.experiment import default_callbacks, fit, header, saving
from timetrial.bench.suite import load_run
from timetrial.bench.workshop import Workshop, prepare
from timetrial.framework.callbacks import Watch
from timetrial.framework.checkpoint import Checkpoints
from timetrial.framework.clock import Clock
from timetrial.framework.config import RunConfig
from timetrial.framework.meter import Meter
from timetrial.framework.step import Program
from timetrial.framework.types import Status
from timetrial.tracking.store.opening import Store, open_store
from timetrial.tracking.store.recording import start_recording

LONG = (2000, 2000, 1.01)
EVALUATED = (200, 50, 1.03)
"""Steps, steps between evaluations, and largest ratio that reaches the goal."""


def bare_loop(program: Program, config: RunConfig, steps: int) -> float:
    """Seconds per step of ``for batch: state = step(state, batch)``."""
    fed = {"remaining_fraction": np.asarray(1.0, np.float32)}
    state = program.init(config.seed)
    jax.block_until_ready(state)
    started = time.perf_counter()
    for step in range(steps):
        batch = program.workload.train_batch(config.seed, step)
        state, _ = program.train_step(state, batch, fed)
    jax.block_until_ready(state)
    return (time.perf_counter() - started) / steps


def tracked(workshop: Workshop, config: RunConfig, steps: int, store: Store) -> float:
    """Charged seconds per step of ``Trainer.fit`` with tracking and progress."""
    setup = prepare(config, workshop, None, None)
    recording = start_recording(store, header(config, setup, workshop, {}), resumable=True)
    watch = Watch(lambda info: None, lambda info, metrics: None)
    clock = Clock(meter=Meter())
    callbacks = default_callbacks(setup, recording, watch, clock.meter)
    checkpoints = Checkpoints(store.root / "checkpoints" / recording.run_id, "")
    callbacks += [saving(setup, checkpoints, clock, recording, callbacks), recording.mirror]
    result = fit(setup, callbacks, clock)
    recording.finish(Status.FINISHED, {}, {})
    return result.train_seconds / steps


def compare(
    overrides: Sequence[str], steps: int, every: int, repeats: int
) -> Mapping[str, list[float]]:
    """Milliseconds per step of both loops, one number per repeat, interleaved.

    Args:
        overrides: the run, as ``key=value`` words.
        steps: number of steps.
        every: steps between evaluations, made by ``fit`` alone and not charged.
        repeats: number of pairs.
    """
    config = load_run([*overrides, f"budget.steps={steps}"])
    workshop = Workshop()
    program = workshop.program(config)
    program.workload.eval_every_steps = every
    found: dict[str, list[float]] = {"bare": [], "fit": []}
    with tempfile.TemporaryDirectory() as directory:
        store = open_store(f"sqlite:///{directory}/mlflow.db", root=Path(directory))
        tracked(workshop, config, steps, store)  # compiles, and warms everything up
        for repeat in range(repeats):
            order = ("bare", "fit") if repeat % 2 == 0 else ("fit", "bare")
            for which in order:
                seconds = (
                    bare_loop(program, config, steps)
                    if which == "bare"
                    else tracked(workshop, config, steps, store)
                )
                found[which].append(seconds * 1e3)
    return found


def measured(names: Sequence[str], steps: int, every: int, repeats: int, goal: float) -> bool:
    """Prints all pairs and the median of their ratios; True if it reaches the goal."""
    found = compare(names, steps, every, repeats)
    ratios = [f / b for f, b in zip(found["fit"], found["bare"], strict=True)]
    ratio = statistics.median(ratios)
    print(f"{' '.join(names)}: {steps} steps, an evaluation every {every}, {repeats} pairs")
    print(f"  bare loop    {statistics.median(found['bare']):8.3f} ms per step (median)")
    print(f"  Trainer.fit  {statistics.median(found['fit']):8.3f} ms per step (median)")
    print(f"  all pairs    {' '.join(f'{each:.3f}' for each in sorted(ratios))}")
    print(f"  ratio        {ratio:8.3f} (median), goal {goal:.2f}", flush=True)
    return ratio <= goal


def main() -> None:
    """Prints the ratios; exits with 1 if one is above its goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="flights_dlrm")
    parser.add_argument("--optimizer", default="heavy_ball")
    parser.add_argument("--repeats", type=int, default=15, help="pairs (default: 15)")
    options = parser.parse_args()
    names = [f"workload={options.workload}", f"optimizer={options.optimizer}"]
    with watched() as machine:
        good = [
            measured(names, steps, every, options.repeats, goal)
            for steps, every, goal in (LONG, EVALUATED)
        ]
    print(machine.text)
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
