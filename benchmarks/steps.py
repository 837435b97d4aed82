"""Measures the compiled training step against plain JAX, and against AlgoPerf's own models.

Boundary: runs updates on one synthetic batch per workload; records nothing.

    make bench-steps                                          # four workloads, against plain JAX
    make bench-steps args='--algoperf DIR --json steps.json'  # and against AlgoPerf's models
    python -m benchmarks.steps --workload ogbg --quick

Three steps per workload, all with ``optax.adam``, donated state and the same initial parameters:

- ``timetrial``: ``make_train_step`` as a run compiles it; it also returns the gradient's norm;
- ``plain``: ``jax.value_and_grad`` of the same loss, ``tx.update``, ``optax.apply_updates``; goal:
  ``timetrial`` takes at most 1.02 times as long;
- ``algoperf``: as ``plain``, with AlgoPerf's model and loss, from a checkout; goal: at most 1.00.

Neither rival computes a norm, and AlgoPerf's DLRM draws no mask of its dropout of rate 0: its own
programs do both. Turns are interleaved and their order rotates. CPU time covers all threads of the
process. Ratios are medians over the turns of the ratio within a turn, with quartiles.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import algoperf_models, reduced
from timetrial.framework.state import StepMetrics, TrainState
from timetrial.framework.types import PyTree
from timetrial.framework.update import make_train_step

GOALS: Mapping[str, float] = {"plain": 1.02, "algoperf": 1.0}
"""Most that the step of ``timetrial`` may take, as a multiple of each rival."""

_TURN_SECONDS = 0.4
_Loss = algoperf_models.Loss


@dataclasses.dataclass
class Contestant:
    """One compiled step with its live state.

    Attributes:
        name: ``timetrial``, ``plain`` or ``algoperf``.
        step: compiled ``(state, batch) -> (state, loss)``, state donated.
        state: state of the run.
        batch: its batch, on the device.
        first_loss: loss of the first update.
        cpu_seconds: CPU seconds per update, one number per turn.
    """

    name: str
    step: Any
    state: TrainState
    batch: Mapping[str, jax.Array]
    first_loss: float = float("nan")
    cpu_seconds: list[float] = dataclasses.field(default_factory=list)

    def run(self, updates: int) -> float:
        """Makes some updates; returns CPU seconds per update."""
        started = time.process_time()
        for _ in range(updates):
            self.state, loss = self.step(self.state, self.batch)
        jax.block_until_ready(self.state)
        seconds = (time.process_time() - started) / updates
        if np.isnan(self.first_loss):
            self.first_loss = float(loss)
        return seconds


def plain_step(loss: _Loss, tx: optax.GradientTransformation) -> Callable[..., Any]:
    """One update, written by hand."""

    def step(state: TrainState, batch: Any) -> tuple[TrainState, jax.Array]:
        key = jax.random.fold_in(state.key, state.step)
        (value, model_state), grads = jax.value_and_grad(loss, has_aux=True)(
            state.params, state.model_state, batch, key
        )
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, model_state, opt_state, state.key), value

    return step


def our_step(problem: reduced.Problem, tx: optax.GradientTransformation) -> Callable[..., Any]:
    """The step of a run; keeps the norm among the results."""
    train_step = make_train_step(problem.workload, tx)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        return train_step(state, batch, {})

    return step


def contestant(
    name: str, step: Callable[..., Any], tx: Any, params: PyTree, model_state: PyTree, batch: Any
) -> Contestant:
    """Compiles a step and gives it a state of its own."""
    params, model_state = jax.tree.map(jnp.copy, (params, model_state))
    key = jax.random.key(1)
    state = TrainState(jnp.zeros((), jnp.int32), params, model_state, tx.init(params), key)
    placed = jax.tree.map(jnp.asarray, batch)
    compiled = jax.jit(step, donate_argnums=0).lower(state, placed).compile()

    def run(state: TrainState, batch: Any) -> tuple[TrainState, jax.Array]:
        state, metrics = compiled(state, batch)
        return state, metrics["loss"] if isinstance(metrics, StepMetrics) else metrics

    return Contestant(name, run, state, placed)


def contestants(problem: reduced.Problem, *, algoperf: bool) -> list[Contestant]:
    """The compiled steps of a workload."""
    tx = optax.adam(1e-3)
    init = jax.jit(problem.workload.init, compiler_options={"xla_backend_optimization_level": 0})
    params, state = init(jax.random.key(0))
    ours, loss = our_step(problem, tx), problem.workload.loss
    result = [
        contestant("timetrial", ours, tx, params, state, problem.batch),
        contestant("plain", plain_step(loss, tx), tx, params, state, problem.batch),
    ]
    if algoperf:
        theirs = plain_step(algoperf_models.loss(problem), tx)
        params = algoperf_models.params(problem, params)
        batch = algoperf_models.inputs(problem)
        result.append(contestant("algoperf", theirs, tx, params, state, batch))
    return result


def race(everyone: Sequence[Contestant], repeats: int, *, turn_seconds: float) -> None:
    """Runs the steps alternately and collects their times."""
    for one in everyone:
        one.run(1)
    updates = max(1, round(turn_seconds / max(one.run(1) for one in everyone)))
    for turn in range(repeats):
        first = turn % len(everyone)
        for one in (*everyone[first:], *everyone[:first]):
            one.cpu_seconds.append(one.run(updates))


def row(problem: reduced.Problem, everyone: Sequence[Contestant]) -> dict[str, Any]:
    """The measurements of a workload: milliseconds, ratios as (25 %, median, 75 %), losses."""
    ours = np.array(everyone[0].cpu_seconds)
    ratios = {
        one.name: np.quantile(ours / np.array(one.cpu_seconds), (0.25, 0.5, 0.75)).tolist()
        for one in everyone[1:]
    }
    return {
        "workload": problem.name,
        "size": problem.size,
        "turns": len(ours),
        "cpu_ms": {one.name: 1e3 * statistics.median(one.cpu_seconds) for one in everyone},
        "ratio": ratios,
        "first_loss": {one.name: one.first_loss for one in everyone},
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The measurements as text, one line per workload."""
    lines = [
        f"{'CPU ms per step':<17}{'timetrial':>10}{'plain':>9}{'ratio (quartiles)':>22}"
        f"{'algoperf':>10}{'ratio (quartiles)':>22}"
    ]
    for found in rows:
        line = f"{found['workload']:<17}{found['cpu_ms']['timetrial']:10.1f}"
        for name, width in (("plain", 9), ("algoperf", 10)):
            if name in found["ratio"]:
                low, middle, high = found["ratio"][name]
                spread = f"{middle:.3f} ({low:.3f}-{high:.3f})"
                line += f"{found['cpu_ms'][name]:{width}.1f}{spread:>22}"
        lines.append(line)
    lines.append(
        f"{'goal':<17}{'':>10}{'':>9}{GOALS['plain']:22.2f}{'':>10}{GOALS['algoperf']:22.2f}"
    )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Where and when the measurements were made."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": jax.devices()[0].device_kind,
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in (jax, optax, np)},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns 1 if a median ratio is above its goal, except with ``--quick``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.steps",
        description="Measure the training step against plain JAX and AlgoPerf's models.",
    )
    parser.add_argument("--workload", choices=tuple(reduced.SIZES), action="append")
    parser.add_argument("--repeats", type=int, default=15, help="turns of each step (default: 15)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: tries the benchmark out")
    parser.add_argument("--algoperf", type=Path, metavar="DIR", help="checkout of AlgoPerf's code")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats: expected a whole number >= 1, got {options.repeats}")
    if options.algoperf is not None:
        try:
            algoperf_models.prepare(options.algoperf)
        except (FileNotFoundError, ModuleNotFoundError) as error:
            parser.error(str(error))
    here, rows = machine(), []
    print(", ".join(f"{name} {value}" for name, value in here.items()), flush=True)
    for name in options.workload or reduced.SIZES:
        problem = reduced.make(name, quick=options.quick)
        everyone = contestants(problem, algoperf=options.algoperf is not None)
        race(everyone, options.repeats, turn_seconds=0 if options.quick else _TURN_SECONDS)
        rows.append(row(problem, everyone))
        print(table(rows[-1:]).splitlines()[1], file=sys.stderr, flush=True)
    print(table(rows))
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": here, "rows": rows}, indent=1) + "\n")
    missed = [r for found in rows for r in found["ratio"].items() if r[1][1] > GOALS[r[0]]]
    return int(bool(missed) and not options.quick)


if __name__ == "__main__":
    sys.exit(main())
