"""One of two processes that make runs together: ``two_hosts.py INDEX PORT DIRECTORY``.

INDEX 2 is a process by itself, with two devices. Each prints what it sees, a JSON line per run.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from small import SmallDlrm
from tiny_cli import register

from timetrial.bench import experiment, hosts
from timetrial.bench.experiment import run
from timetrial.bench.suite import load_run
from timetrial.framework import callbacks as cb
from timetrial.framework import checkpoint
from timetrial.framework.clock import Clock
from timetrial.framework.devices import Devices
from timetrial.framework.errors import Interrupted, UserError
from timetrial.framework.hosts import Hosts, Team
from timetrial.framework.records import Row
from timetrial.framework.step import Program

INDEX, PORT, ROOT = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
TOGETHER = INDEX < 2
STEPS = ("budget.steps=16",)
LONG = ("budget.steps=20", "seed=1")
LOST = ("budget.steps=20", "seed=2", "tracking.checkpoint_minutes=1e-6")
Hook = Callable[[int], None]


def say(name: str, value: Any) -> None:
    print(json.dumps({name: value}), flush=True)


class Steps(cb.Callback):
    """Keeps the losses of the updates; calls a hook after each."""

    def __init__(self, hook: Hook) -> None:
        self.losses: dict[int, float] = {}
        self.hook = hook

    def on_step_end(self, info: cb.StepInfo) -> None:
        self.losses[info.step] = info.metrics["loss"]
        self.hook(info.step)


def shown(rows: Sequence[Row]) -> list[Any]:
    return [[row.step, dict(sorted(row.metrics.items()))] for row in rows]


def train(name: str, *words: str, hook: Hook = lambda step: None, root: Path = ROOT) -> None:
    """Makes one run as the command does, and says how it went."""
    config = load_run(["workload=tiny", "optimizer=adam", f"tracking.root={root}", *words])
    steps = Steps(hook)
    found: dict[str, Any] = {}

    def watched(*arguments: Any, **options: Any) -> Any:
        result = run(*arguments, callbacks=[steps], **options)
        found["evaluations"] = shown(result.evaluations)
        found["seconds"] = [row.train_seconds for row in result.evaluations]
        return result

    hosts.run = watched
    try:
        found["code"] = hosts.train_together(config)
    except Interrupted as stop:
        found["code"] = 128 + stop.number
    say(name, {**found, "losses": steps.losses})


def at(index: int, step: int, number: int) -> Hook:
    """Sends this process a signal after an update, on one host only."""

    def hook(now: int) -> None:
        if (INDEX, step) == (index, now):
            os.kill(os.getpid(), number)

    return hook


def divided_checkpoint() -> None:
    """A table divided between the processes goes into a checkpoint and comes back."""
    devices = Devices(jax.devices(), "always")
    program = Program(SmallDlrm(2**18), optax.adam(0.01), devices=devices)
    state = program.init(0)
    feed, fed = program.feed(0, 0), Team(devices).inputs(0.0)
    program.compile(state, fed)
    state, _ = program.train_step(state, next(feed), fed)
    checkpoints = checkpoint.Checkpoints(ROOT / "divided", "id")
    checkpoints.save(state, checkpoint.Saved(1, {}))
    checkpoints.close()
    Team(devices).agree(0.0)  # both are here: the files are written
    loaded = checkpoint.Checkpoints(ROOT / "divided", "id").latest()
    assert loaded is not None
    again = loaded.state(program.init(1))

    def same(a: Any, b: Any) -> bool:
        parts = zip(a.addressable_shards, b.addressable_shards, strict=True)
        return all(np.array_equal(data(x.data), data(y.data)) for x, y in parts)

    leaves = zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True)
    parts = [leaf.is_fully_replicated for leaf in jax.tree.leaves(state)]
    say("divided", {"same": all(same(a, b) for a, b in leaves), "parts": parts.count(False)})


def data(array: jax.Array) -> np.ndarray:
    keys = jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(array) if keys else array)


def disagreement() -> None:
    try:
        hosts.compare({"the settings": "same", "the data": f"of host {INDEX}"})
    except UserError as error:
        say("refused", str(error))


def main() -> None:
    register()
    if not TOGETHER:
        hosts.join(Hosts(f"127.0.0.1:{PORT}", 1, 0))
        train("continued", *LOST)
        for name, words in {"steps": STEPS, "interrupted": LONG}.items():
            train(name, *words, root=ROOT / "alone")
        return
    hosts.join(Hosts(f"127.0.0.1:{PORT}", 2, INDEX))
    train("steps", *STEPS)
    # The second process' clock runs 1.5 times as fast and started long before.
    skewed = functools.partial(Clock, lambda: (time.perf_counter() + 900 * INDEX) * (1 + INDEX / 2))
    experiment.Clock = skewed
    time_budget = ("budget.seconds=0.25", "workload.eval_every_steps=10")
    train("seconds", *time_budget, hook=lambda step: time.sleep(0.005 * INDEX))
    divided_checkpoint()
    disagreement()
    train("interrupted", *LONG, hook=at(1, 12, signal.SIGTERM))
    train("resumed", *LONG)
    train("lost", *LOST, hook=at(1, 12, signal.SIGKILL))


if __name__ == "__main__":
    main()
