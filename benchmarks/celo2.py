"""Measures Celo2's update against Adam's: CPU time, wall time, compilation and memory.

Boundary: runs optimizers on random gradients; trains nothing and records nothing.

    make bench-celo2                               # both trees
    python -m benchmarks.celo2 --tree flights_dlrm --repeats 20

As ``benchmarks.velo``: all optimizers are compiled first and then run alternately; factors are
relative to Adam without donation. The weights are the embedded ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.velo import Contestant, optax_contestant, random_tree, table
from timetrial.optimizers.celo2 import scale_by_celo2
from timetrial.optimizers.celo2.entry import load
from timetrial.workloads import WORKLOADS

TREES = ("resnet50", "flights_dlrm")


def tree_of(name: str, seed: int) -> dict[str, jax.Array]:
    """Random tensors with the shapes of a model or of a workload."""
    if name not in WORKLOADS:
        return random_tree(name, seed)
    entry = WORKLOADS[name]
    workload = (entry.without_data or entry.make)(entry.settings())
    shapes, _ = jax.eval_shape(workload.init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return {
        jax.tree_util.keystr(path): jnp.asarray(0.05 * rng.standard_normal(x.shape), jnp.float32)
        for path, x in jax.tree_util.tree_leaves_with_path(shapes)
    }


def race(tree: str, repeats: int, *, orthogonalize: bool) -> list[Contestant]:
    """Compiles Adam and Celo2 for a tree and runs them alternately."""
    params, grads = tree_of(tree, 0), tree_of(tree, 1)
    adam, rate = optax.adam(1e-3), optax.scale_by_learning_rate(1e-3)
    scale = scale_by_celo2(load("celo2-base", "embedded").meta_params, orthogonalize=orthogonalize)
    celo2 = optax.chain(scale, rate)
    contestants = [
        optax_contestant("optax.adam", adam, grads, params, donate=False),
        optax_contestant("optax.adam, donated", adam, grads, params),
        optax_contestant("celo2", celo2, grads, params),
    ]
    updates = max(1, 2_000_000 // sum(x.size for x in params.values()))
    for _ in range(1 + repeats):
        for one in contestants:
            one.run(grads, updates)
    for one in contestants:
        del one.cpu_seconds[0], one.wall_seconds[0]  # the first turn warms the caches up
    return contestants


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.celo2", description="Measure Celo2's update against Adam's."
    )
    parser.add_argument("--tree", choices=TREES, action="append", help="default: all of them")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each optimizer, >= 1")
    parser.add_argument("--orthogonalize", action="store_true", help="with Newton-Schulz steps")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats: expected a whole number >= 1, got {options.repeats}")
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, CPU time of all threads")
    for tree in options.tree or TREES:
        found = race(tree, options.repeats, orthogonalize=options.orthogonalize)
        print(table(tree, found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
