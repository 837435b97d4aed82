"""Compares VeLO weights with Adam on synthetic tasks held out from training and selection.

Boundary: trains the tasks of meta-training's families, records nothing; prints the tables of
``optimizers/velo/embedded/CARD.md``.

    python -m benchmarks.held_out embedded old.params
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.metatraining.families import FAMILIES
from timetrial.optimizers.metatraining.rules import adam_rule, velo_rule
from timetrial.optimizers.metatraining.validation import TEST_SEED, Losses, Validation
from timetrial.optimizers.metatraining.vector import to_vector
from timetrial.optimizers.velo.entry import load

HORIZONS = (300, 1_000, 3_000)
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
UNTUNED = 1e-3

Found = dict[str, tuple[Losses, Losses]]
"""By contestant, final losses and scores, each (families, horizons, tasks)."""


def of_weights(name: str, tasks: int, seed: int) -> tuple[Losses, Losses]:
    """Final losses and scores of VeLO with some weights."""
    weights = load(name)
    sizes = (weights.hidden_size, weights.bank_size)
    validation = Validation(lambda v: velo_rule(v, *sizes), tuple(FAMILIES), tasks, HORIZONS, seed)
    return _all_families(validation, to_vector(weights.meta_params))


def of_adam(tasks: int, seed: int) -> dict[float, tuple[Losses, Losses]]:
    """Final losses and scores of Adam at every rate."""
    validation = Validation(adam_rule, tuple(FAMILIES), tasks, HORIZONS, seed)
    return {rate: _all_families(validation, jnp.float32(rate)) for rate in RATES}


def _all_families(validation: Validation, argument: jax.Array) -> tuple[Losses, Losses]:
    found = [validation.losses(argument, name) for name in FAMILIES]
    ratios, scores = zip(*found, strict=True)
    return np.stack(ratios), np.stack(scores)


def table(found: Found) -> str:
    """Mean scores by horizon and family, divergences, share of tasks better than untuned Adam."""
    untuned = found[f"adam {UNTUNED:g}"][1]
    names = ["contestant", *(f"{n} steps" for n in HORIZONS), "all", "beats 1e-3", "diverged"]
    lines = [f"| {' | '.join(names)} |", "|---|" + "---|" * (len(names) - 1)]
    for name, (ratios, scores) in found.items():
        cells = [f"{x:.3f}" for x in (*scores.mean((0, 2)), scores.mean())]
        cells += [f"{(scores < untuned).mean():.0%}", f"{int((~np.isfinite(ratios)).sum())}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"| contestant | {' | '.join(FAMILIES)} |", "|---|" + "---|" * len(FAMILIES)]
    for name, (_, scores) in found.items():
        lines.append(f"| {name} | {' | '.join(f'{x:.3f}' for x in scores.mean((1, 2)))} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.held_out", description="Compare VeLO weights with Adam."
    )
    parser.add_argument("weights", nargs="+", help="embedded, google or files")
    parser.add_argument("--tasks", type=int, default=12, help="per family, >= 1")
    parser.add_argument("--seed", type=int, default=TEST_SEED, help="which tasks")
    parser.add_argument("--compiled", type=Path, help="directory to keep compiled programs in")
    options = parser.parse_args(arguments)
    if options.tasks < 1:
        parser.error(f"--tasks: expected a whole number >= 1, got {options.tasks}")
    if options.compiled is not None:
        jax.config.update("jax_compilation_cache_dir", str(options.compiled))
    found = {name: of_weights(name, options.tasks, options.seed) for name in options.weights}
    adams = of_adam(options.tasks, options.seed)
    best = min(adams, key=lambda rate: float(adams[rate][1].mean()))
    found |= {f"adam {rate:g}": one for rate, one in adams.items() if rate in (UNTUNED, best)}
    oracle = np.stack([scores for _, scores in adams.values()]).argmin(0)[None]
    found["adam, best rate per task"] = (
        np.take_along_axis(np.stack([a for a, _ in adams.values()]), oracle, 0)[0],
        np.take_along_axis(np.stack([b for _, b in adams.values()]), oracle, 0)[0],
    )
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
