"""Measures meta-training: inner steps of all lanes per CPU second, and compilation.

Boundary: makes outer steps and discards the result; records nothing.

    make bench-metatrain                           # all families
    python -m benchmarks.metatrain --family prototype --pairs 32
    python -m benchmarks.metatrain --rule celo2

The first line is the prototype's task: a 24-16-8 perceptron on Gaussian mixtures in batches of 32.
The prototype made 3,500 to 4,500 lane-steps per CPU second, with the update of
google/learned_optimization under vmap. CPU time covers all threads and the whole outer step: new
tasks, perturbations, inner steps, meta-gradient.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from timetrial.optimizers.metatraining import families, outer
from timetrial.optimizers.metatraining.dense import perceptron
from timetrial.optimizers.metatraining.settings import RULES, knobs
from timetrial.optimizers.metatraining.stages import stages_of

PROTOTYPE = perceptron("prototype", (16,), features=24)


@dataclasses.dataclass(frozen=True)
class Speed:
    """Measurements of one family."""

    parameters: int
    compile_seconds: float
    per_cpu_second: float
    per_second: float


def measure(rule: str, name: str, pairs: int, truncation: int, repeats: int) -> Speed:
    """Compiles the outer step of a family; times some steps after one warm-up step."""
    settings = RULES[rule](families=(name,), pairs=pairs, truncation=truncation)
    mesh = Mesh(np.array(jax.devices()[:1]), ("pairs",))
    stage = stages_of(settings)[0](None)
    state = outer.place(outer.init_state(stage), mesh)
    step, now = outer.make_outer_step(stage, name, mesh), knobs(settings, 0)
    began = time.process_time()
    state, _ = step(state, now)
    jax.block_until_ready(state)
    compile_seconds = time.process_time() - began
    cpu, wall = [], []
    for _ in range(1 + repeats):
        began, started = time.process_time(), time.perf_counter()
        state, _ = step(state, now)
        jax.block_until_ready(state)
        cpu.append(time.process_time() - began)
        wall.append(time.perf_counter() - started)
    lane_steps = 2 * pairs * truncation
    shapes = jax.tree.leaves(families.FAMILIES[name].shapes())
    return Speed(
        sum(x.size for x in shapes),
        compile_seconds,
        lane_steps / statistics.median(cpu[1:]),
        lane_steps / statistics.median(wall[1:]),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    families.FAMILIES.setdefault(PROTOTYPE.name, PROTOTYPE)
    names = [PROTOTYPE.name, *(n for n in families.FAMILIES if n != PROTOTYPE.name)]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.metatrain", description="Measure the speed of meta-training."
    )
    parser.add_argument("--rule", choices=RULES, default="velo", help="default: velo")
    parser.add_argument("--family", choices=names, action="append", help="default: all of them")
    parser.add_argument("--pairs", type=int, default=16, help="antithetic pairs, >= 1")
    parser.add_argument("--truncation", type=int, default=40, help="inner steps, >= 1")
    parser.add_argument("--repeats", type=int, default=5, help="outer steps to time, >= 1")
    options = parser.parse_args(arguments)
    for name in ("pairs", "truncation", "repeats"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: expected a whole number >= 1, got {getattr(options, name)}")
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {2 * options.pairs} lanes")
    print(f"{'family':<18}{'parameters':>11}{'compile s':>11}{'/ CPU s':>10}{'/ s':>10}")
    for name in options.family or names:
        found = measure(options.rule, name, options.pairs, options.truncation, options.repeats)
        print(
            f"{name:<18}{found.parameters:>11,}{found.compile_seconds:>11.1f}"
            f"{found.per_cpu_second:>10,.0f}{found.per_second:>10,.0f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
