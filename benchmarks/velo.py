"""Measures VeLO's update against Adam's: CPU time, wall time, compilation and memory.

Boundary: runs optimizers on random gradients; trains nothing and records nothing.

    make bench-velo                                # all trees
    python -m benchmarks.velo --tree unet --repeats 20

All optimizers of a tree are compiled first and then run alternately, so that other load on the
machine affects all of them alike. Every update is added to the parameters, as in a real step. VeLO
donates parameters and state. Adam runs with and without donation, because on a CPU XLA first
copies donated buffers of Adam; factors are relative to Adam without donation. CPU time covers all
threads of the process. VeLO has random weights of the released sizes (H=512, K=256): time does not
depend on their values.

Option ``--growth`` measures how compilation grows with the number of tensors, and the update with
their size: exponents of straight lines through the logarithms.

Option ``--compile-for h100`` runs nothing: it compiles the steps for that GPU and counts bytes,
kernels and temporary memory (``ahead`` says what it needs).

Option ``--reference`` also runs VeLO of google/learned_optimization, if that is importable; expect
minutes of compilation and gigabytes of memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import ahead
from benchmarks.machine import exponent, spread, watched
from timetrial.optimizers.velo import layout, velo

PyTree = Any
Step = Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]

TREES = ("resnet50", "unet", "mlp")
_SHAPES = pathlib.Path(__file__).parent / "parameter_shapes.json"
_NUM_STEPS = 10_000
GROWTH = (10, 32, 100, 316, 1000)


@dataclasses.dataclass
class Contestant:
    """One compiled optimizer with its live parameters and state."""

    name: str
    step: Any
    params: PyTree
    state: PyTree
    compile_seconds: float
    temporary_bytes: int
    cpu_seconds: list[float] = dataclasses.field(default_factory=list)
    wall_seconds: list[float] = dataclasses.field(default_factory=list)

    def run(self, grads: PyTree, updates: int) -> None:
        """Makes some updates and records the mean seconds per update."""
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(updates):
            self.params, self.state = self.step(grads, self.state, self.params)
        jax.block_until_ready(self.params)
        self.cpu_seconds.append((time.process_time() - cpu) / updates)
        self.wall_seconds.append((time.perf_counter() - wall) / updates)


def random_weights(hidden_size: int = 512, bank_size: int = 256) -> dict[str, Any]:
    """VeLO weights of the released sizes, random."""
    rng = np.random.default_rng(0)
    flat = {
        path: np.asarray(0.05 * rng.standard_normal(shape), np.float32)
        for path, shape in layout.shapes(hidden_size, bank_size).items()
    }
    return layout.nest(flat)


def tree_shapes(name: str) -> dict[str, list[int]]:
    """Shapes of the tensors of a model."""
    shapes: dict[str, list[int]] = json.loads(_SHAPES.read_text())[name]["shapes"]
    return shapes


def random_tree(name: str, seed: int) -> dict[str, jax.Array]:
    """Random tensors with the shapes of a model."""
    rng = np.random.default_rng(seed)
    return {
        tensor: jnp.asarray(0.05 * rng.standard_normal(shape), jnp.float32)
        for tensor, shape in tree_shapes(name).items()
    }


def contestant(
    name: str, step: Step, grads: PyTree, state: PyTree, params: PyTree, *, donate: bool = True
) -> Contestant:
    """Compiles one optimizer's step, parameters and state donated or not."""
    cpu = time.process_time()
    donated = (1, 2) if donate else ()
    compiled = jax.jit(step, donate_argnums=donated).lower(grads, state, params).compile()
    seconds = time.process_time() - cpu
    memory = compiled.memory_analysis()
    temporary = 0 if memory is None else memory.temp_size_in_bytes
    return Contestant(name, compiled, params, state, seconds, temporary)


def step_of(tx: optax.GradientTransformation) -> Step:
    """An update that is added to the parameters."""
    tx = optax.with_extra_args_support(tx)

    def step(grads: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        updates, state = tx.update(grads, state, params, value=jnp.float32(1.0))
        return optax.apply_updates(params, updates), state

    return step


def optax_contestant(
    name: str,
    tx: optax.GradientTransformation,
    grads: PyTree,
    params: PyTree,
    *,
    donate: bool = True,
) -> Contestant:
    """An optax optimizer as a contestant."""
    mine = jax.tree.map(jnp.copy, params)
    return contestant(name, step_of(tx), grads, tx.init(params), mine, donate=donate)


def reference_contestant(grads: PyTree, params: PyTree) -> Contestant:
    """VeLO of google/learned_optimization, if it is installed."""
    hyper_v2 = importlib.import_module("learned_optimization.research.general_lopt.hyper_v2")
    lopt = hyper_v2.HyperV2(lstm_hidden_size=512, param_inits=256, use_bugged_loss_features=False)
    theta = lopt.init(jax.random.PRNGKey(0))
    optimizer = lopt.opt_fn(theta)
    state = optimizer.init(params, num_steps=_NUM_STEPS)

    def step(grads: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        del params  # the reference keeps them in its state
        key = jax.random.PRNGKey(0)  # it is split but not used
        state = optimizer.update(state, grads, jnp.float32(1.0), key=key)
        return optimizer.get_params(state), state

    return contestant("learned_optimization", step, grads, state, jax.tree.map(jnp.copy, params))


def race(tree: str, repeats: int, *, reference: bool) -> list[Contestant]:
    """Compiles the optimizers for a tree and runs them alternately."""
    params, grads = random_tree(tree, 0), random_tree(tree, 1)
    adam = optax.adam(1e-3)
    contestants = [
        optax_contestant("optax.adam", adam, grads, params, donate=False),
        optax_contestant("optax.adam, donated", adam, grads, params),
        optax_contestant("velo", velo(_NUM_STEPS, meta_params=random_weights()), grads, params),
    ]
    if reference:
        contestants.append(reference_contestant(grads, params))
    size = sum(x.size for x in params.values())
    updates = max(1, 2_000_000 // size)
    for _ in range(1 + repeats):
        for one in contestants:
            one.run(grads, updates)
    for one in contestants:
        del one.cpu_seconds[0], one.wall_seconds[0]  # the first turn warms the caches up
    return contestants


def table(tree: str, contestants: Sequence[Contestant]) -> str:
    """The measurements, one line for each optimizer: medians over the turns, spread of CPU time."""
    adam = statistics.median(contestants[0].cpu_seconds)
    lines = [
        f"{tree:<10} {'optimizer':<22} {'CPU ms':>9} {'spread':>7} {'x Adam':>7} {'wall ms':>9} "
        f"{'compile s':>10} {'temp MB':>8}"
    ]
    for one in contestants:
        cpu = statistics.median(one.cpu_seconds)
        wall = statistics.median(one.wall_seconds)
        lines.append(
            f"{'':<10} {one.name:<22} {1e3 * cpu:9.2f} {spread(one.cpu_seconds):7.0%} "
            f"{cpu / adam:7.1f} {1e3 * wall:9.2f} "
            f"{one.compile_seconds:10.1f} {one.temporary_bytes / 1e6:8.1f}"
        )
    return "\n".join(lines)


def grown_tree(tensors: int, scale: int) -> dict[str, jax.Array]:
    """Matrices of 16 shapes and their biases; sides grow with ``scale``."""
    tree = {}
    for i in range(tensors // 2):
        rows, columns = scale * (1 + i % 4), scale * (1 + i // 4 % 4)
        tree[f"{i}.kernel"] = jnp.full((rows, columns), 0.1)
        tree[f"{i}.bias"] = jnp.full((columns,), 0.1)
    return tree


def growth() -> str:
    """Compilation by number of tensors and an update's CPU time by parameters, with exponents."""
    tx = velo(_NUM_STEPS, meta_params=random_weights())
    lines, made = [f"{'growth':<10} {'tensors':>8} {'parameters':>12} {'compile s':>10}"], []
    for tensors in GROWTH:
        params = grown_tree(tensors, 64)
        one = optax_contestant("velo", tx, params, params)
        made.append(one.compile_seconds)
        size = sum(x.size for x in params.values())
        lines.append(f"{'':<10} {tensors:>8} {size:>12,} {one.compile_seconds:>10.1f}")
    lines.append(f"{'':<10} compilation: exponent {exponent(GROWTH, made):.2f}")
    lines.append(f"{'':<10} {'tensors':>8} {'parameters':>12} {'CPU ms':>10} {'ns each':>10}")
    sizes, costs = [], []
    for scale in (128, 256, 512, 1024):
        params = grown_tree(32, scale)
        one = optax_contestant("velo", tx, params, params)
        for _ in range(4):
            one.run(params, 2)
        sizes.append(sum(x.size for x in params.values()))
        costs.append(statistics.median(one.cpu_seconds[1:]))
        each = 1e9 * costs[-1] / sizes[-1]
        lines.append(f"{'':<10} {32:>8} {sizes[-1]:>12,} {1e3 * costs[-1]:>10.1f} {each:>10.1f}")
    return "\n".join([*lines, f"{'':<10} update: exponent {exponent(sizes, costs):.2f}"])


def counted(tree: str, target: str) -> dict[str, ahead.Counts]:
    """What XLA compiles for a GPU that is not here, by optimizer."""
    params, weights = random_tree(tree, 0), random_weights()
    optimizers = {
        "optax.adam": optax.adam(1e-3),
        "velo, plain": velo(_NUM_STEPS, meta_params=weights, kernels="plain"),
        "velo, pallas": velo(_NUM_STEPS, meta_params=weights, kernels="pallas"),
    }
    return {
        name: ahead.count(
            target,
            step_of(tx),
            *(params, jax.eval_shape(tx.init, params), params),
            donate_argnums=(1, 2),
        )
        for name, tx in optimizers.items()
    }


def table_of_counts(tree: str, target: str) -> str:
    """``counted``, one line for each optimizer."""
    sizes = [math.prod(shape) for shape in tree_shapes(tree).values()]
    lines = [
        f"{tree:<10} {'optimizer':<22} {'bytes/parameter':>15} {'temp MB':>8} {'kernels':>8} "
        f"{'most operands':>14} {'compile s':>10}"
    ]
    for name, found in counted(tree, target).items():
        lines.append(
            f"{'':<10} {name:<22} {found.bytes / sum(sizes):15.1f} "
            f"{found.temporary_bytes / 1e6:8.1f} {found.kernels:8d} "
            f"{found.most_operands:14d} {found.compile_seconds:10.1f}"
        )
    note = f"of VeLO's kernels, {len(sizes)} add the change to one tensor each"
    return "\n".join([*lines, f"{'':<10} {note}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.velo", description="Measure VeLO's update against Adam's."
    )
    parser.add_argument("--tree", choices=TREES, action="append", help="default: all of them")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each optimizer, >= 1")
    parser.add_argument(
        "--reference", action="store_true", help="also run google/learned_optimization"
    )
    parser.add_argument(
        "--compile-for", choices=ahead.TARGETS, help="count what is compiled for this GPU"
    )
    parser.add_argument(
        "--growth", action="store_true", help="measure growth with tensors and parameters instead"
    )
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats: expected a whole number >= 1, got {options.repeats}")
    if options.reference and importlib.util.find_spec("learned_optimization") is None:
        parser.error("--reference: learned_optimization is not importable in this environment")
    if options.compile_for:
        if wanted := ahead.missing():
            parser.error(f"--compile-for: compiling for a GPU needs: {wanted}")
        for tree in options.tree or TREES:
            print(table_of_counts(tree, options.compile_for), flush=True)
        return 0
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, CPU time of all threads")
    with watched() as machine:
        if options.growth:
            print(growth())
        else:
            for tree in options.tree or TREES:
                found = race(tree, options.repeats, reference=options.reference)
                print(table(tree, found), flush=True)
    print(machine.text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
