"""Runs on 1, 2 and 8 devices, simulated on the CPU; prints what it finds as JSON.

A program of its own, because the number of devices is fixed when JAX starts.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)

import full_size
import jax
import jax.numpy as jnp
import numpy as np
import optax
import velo_theta
from small import AllFour, SmallDlrm, SmallUnet

from timetrial.framework import checkpoint
from timetrial.framework.devices import Devices
from timetrial.framework.errors import ConfigError
from timetrial.framework.state import TrainState
from timetrial.framework.step import Program
from timetrial.optimizers.velo import accumulators, inputs, mlp, velo
from timetrial.workloads import WORKLOADS

STEPS = 3
FED = {"remaining_fraction": np.ones((), np.float32)}
TABLE = 2**18
"""Rows of a table that may be divided: with 4 columns it has 2**20 elements."""


def optimizers() -> dict[str, optax.GradientTransformation]:
    theta = velo_theta.nested(velo_theta.theta_from_seed(7, 8, 4))
    return {
        "adam": optax.adam(0.01),
        "nadamw": optax.nadamw(0.01, weight_decay=0.01),
        "velo": velo(50, meta_params=theta),
    }


def trained(program: Program) -> tuple[list[float], Any]:
    """Losses of a few updates, and the last state."""
    state, feed = program.init(3), program.feed(3, 0)
    program.compile(state, FED)
    losses = []
    for _ in range(STEPS):
        state, metrics = program.train_step(state, next(feed), FED)
        losses.append(float(metrics["loss"]))
    return losses, state


def losses_of_all(counts: Sequence[int], names: Sequence[str]) -> dict[str, dict[int, list[float]]]:
    """Losses of the four models, in training and evaluated, by optimizer and devices."""
    found: dict[str, dict[int, list[float]]] = {name: {} for name in names}
    for count in counts:
        program = None
        for name in names:
            tx = optimizers()[name]
            if program is None:
                program = Program(AllFour(), tx, devices=Devices(jax.devices()[:count]))
            else:
                program = program.with_optimizer(tx)
            losses, state = trained(program)
            single = [float(loss) for _, loss in state.model_state.values()]
            evaluated = program.evaluate(state)
            found[name][count] = [*losses, *single, *(evaluated[k] for k in sorted(evaluated))]
    return found


def losses_of_one() -> dict[int, list[float]]:
    """Losses of a U-Net with Adam on 1 and 8 devices."""
    programs = {
        count: Program(SmallUnet(), optax.adam(0.01), devices=Devices(jax.devices()[:count]))
        for count in (1, 8)
    }
    return {count: trained(program)[0] for count, program in programs.items()}


def losses_of_full_size(counts: Sequence[int]) -> dict[str, dict[int, list[float]]]:
    """Losses of the full-size workloads, small models on small data, by workload and devices."""
    found: dict[str, dict[int, list[float]]] = {}
    for name, settings in full_size.SETTINGS.items():
        os.environ["TIMETRIAL_DATA"] = tempfile.mkdtemp()
        full_size.prepare(name, Path(os.environ["TIMETRIAL_DATA"]))
        size = max(8, int(settings["batch_size"]))
        sizes = {"batch_size": size, "eval_batch_size": 8, "parts": 8}
        entry = WORKLOADS[name]
        workload = entry.make(entry.settings(**{**settings, **sizes}))
        found[name] = {}
        for count in counts:
            program = Program(workload, optax.adam(0.01), devices=Devices(jax.devices()[:count]))
            losses, state = trained(program)
            evaluated = program.evaluate(state)
            found[name][count] = [*losses, *(evaluated[key] for key in sorted(evaluated))]
    return found


def gathered(text: str) -> list[int]:
    """Elements of the result of every all-gather in a compiled text."""
    shapes = re.findall(r"= \(?\w+\[([\d,]*)\]\S* all-gather", text)
    return [int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes]


def divided_table() -> dict[str, Any]:
    """VeLO on a table, whole on one device and divided among eight, in two microbatches.

    VeLO takes the path of a GPU, all tiles at once.
    """
    for module, name in ((accumulators, "over_tiles"), (inputs, "over_tiles"), (mlp, "at_once")):
        setattr(module, name, lambda function, state, inputs, **_: function(state, inputs))
    found: dict[str, Any] = {}
    for count, shard in ((1, "auto"), (8, "always")):
        devices = Devices(jax.devices()[:count], shard)
        tx = optimizers()["velo"]
        program = Program(SmallDlrm(TABLE), tx, devices=devices, microbatches=2)
        losses, state = trained(program)
        found[str(count)] = {
            "losses": losses,
            "gathered": gathered(program._train_step.as_text()),
            "whole": [leaf.size for leaf in jax.tree.leaves(state) if whole(leaf)],
            "state": program.memory.state,
        }
    found["restored"] = restored(program, state)
    return found


def whole(leaf: jax.Array) -> bool:
    return bool(leaf.sharding.is_fully_replicated)


def restored(program: Program, state: TrainState) -> bool:
    """True when a checkpoint gives back the same arrays in the same places."""
    with tempfile.TemporaryDirectory() as directory:
        checkpoints = checkpoint.Checkpoints(Path(directory) / "run", "id")
        checkpoints.save(state, checkpoint.Saved(0, {}))
        checkpoints.close()
        loaded = checkpoints.latest()
        assert loaded is not None
        again = loaded.state(program.init(0))
    same = jax.tree.map(
        lambda a, b: a.sharding == b.sharding and bool(jnp.all(a == b)), again, state
    )
    return all(jax.tree.leaves(same))


def refusals() -> list[str]:
    """Messages about batches that 8 devices cannot divide."""
    found = []
    for devices, parts in ((8, 4), (3, 1)):
        try:
            chosen = Devices(jax.devices()[:devices])
            trained(Program(SmallDlrm(), optax.sgd(0.1), devices=chosen, microbatches=parts))
        except ConfigError as error:
            found.append(str(error))
    return found


def main() -> None:
    """With the argument ``all``, every optimizer on 1, 2 and 8 devices; ``full``: real formats."""
    if "full" in sys.argv:
        print(json.dumps(losses_of_full_size((1, 2, 8))))
        return
    if "all" in sys.argv:
        print(json.dumps(losses_of_all((1, 2, 8), list(optimizers()))))
        return
    found = {"unet": losses_of_one(), "table": divided_table(), "refusals": refusals()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
