"""Compares Celo2 weights with tuned Adam and AdamW on synthetic tasks held out from training.

Boundary: trains the tasks of meta-training's families, records nothing but a file of results;
prints the tables of ``optimizers/celo2/embedded/CARD.md``.

    python -m benchmarks.held_out_rates embedded hand_made random --results held_out.jsonl
    python -m benchmarks.held_out_rates mine.state harness:mine.state harness@3:mine.state
    python -m benchmarks.held_out_rates embedded --horizon 20000 --rates 3e-3 1e-2 --families graph

A contestant is ``embedded``, ``hand_made`` (the start of meta-training: the mean of Adam's and
Adafactor's directions), ``random`` or a weights file; behind ``harness:`` it runs inside Celo2's
harness, behind ``harness@X:`` with AdamW's rate for vectors and embeddings X times Celo2's.

All rules have the same schedule: warm-up, then a cosine to 0. Every rule's rate (and AdamW's
decay) is the best of the grid by the mean score of the family's tasks; a task is won by the lower
final loss on all examples. With ``--results`` a stopped comparison continues.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.metatraining.celo2 import vector
from timetrial.optimizers.metatraining.celo2.files import load_start
from timetrial.optimizers.metatraining.celo2.rule import Harness, celo2_rule
from timetrial.optimizers.metatraining.families import FAMILIES
from timetrial.optimizers.metatraining.scheduled import adamw_rule
from timetrial.optimizers.metatraining.validation import TEST_SEED, Validation

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
DECAYS = (0.0, 1e-2, 1e-1, 1.0)
"""Weight decays of AdamW, multiplied by the rate; 0 is Adam."""

ADAM, ADAMW = "adam", "adamw"


@dataclasses.dataclass(frozen=True)
class Contestant:
    """An update rule with a rate.

    Attributes:
        name: as typed.
        vector: meta-parameters (329,); None for Adam and AdamW.
        factor: AdamW's rate inside the harness as a factor of Celo2's; None without the harness.
    """

    name: str
    vector: jax.Array | None = None
    factor: float | None = None

    @property
    def key(self) -> str:
        """Name and digest, as in the file of results."""
        if self.vector is None:
            return self.name
        return f"{self.name} {hashlib.sha256(np.asarray(self.vector).tobytes()).hexdigest()[:12]}"


@dataclasses.dataclass(frozen=True)
class Found:
    """Results of one contestant at one rate and decay on the tasks of a family."""

    rate: float
    decay: float
    ratios: tuple[float, ...]
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        """Mean over tasks; lower is better."""
        return float(np.mean(self.scores))

    @property
    def diverged(self) -> int:
        """Tasks whose final loss is not finite, or worse than three times a constant prediction."""
        return int(np.sum(~(np.asarray(self.ratios) < 3.0)))


def contestant(text: str) -> Contestant:
    """The contestant of a word of the command line."""
    found = re.fullmatch(r"(?:harness(?:@([0-9.e-]+))?:)?(.*)", text)
    assert found is not None
    harness = text.startswith(("harness:", "harness@"))
    factor = float(found[1] or 1.0) if harness else None
    if found[2] == "hand_made":
        return Contestant(text, vector.of_linear(vector.hand_made()), factor)
    if found[2] == "random":
        return Contestant(text, vector.random_start(0), factor)
    return Contestant(text, vector.from_meta_params(load_start(found[2]).meta_params), factor)


class Results:
    """Results by contestant, family, rate and decay, kept in a file if there is one."""

    def __init__(self, path: Path | None, tasks: int, horizon: int, seed: int) -> None:
        self._path, self._place = path, {"tasks": tasks, "horizon": horizon, "seed": seed}
        self._found: dict[str, Found] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                read = json.loads(line)
                ratios, scores = (
                    tuple(np.inf if x is None else x for x in read.pop(key))
                    for key in ("ratios", "scores")
                )
                key = json.dumps(read, sort_keys=True)
                self._found[key] = Found(read["rate"], read["decay"], ratios, scores)

    def get(
        self, key: str, family: str, rate: float, decay: float, make: Callable[[], Any]
    ) -> Found:
        """A result that is there, else the one that ``make`` returns: ratios and scores."""
        named = {"contestant": key, "family": family, "rate": rate, "decay": decay} | self._place
        text = json.dumps(named, sort_keys=True)
        if text not in self._found:
            ratios, scores = (tuple(float(x) for x in values[0]) for values in make())
            self._found[text] = Found(rate, decay, ratios, scores)
            if self._path is not None:
                finite = [x if np.isfinite(x) else None for x in ratios]
                with self._path.open("a") as file:
                    file.write(json.dumps(named | {"ratios": finite, "scores": scores}) + "\n")
        return self._found[text]


class Runner:
    """Runs contestants; compiles one program per kind of rule and family."""

    def __init__(self, results: Results, tasks: int, horizon: int, seed: int) -> None:
        self._results = results
        self._arguments: dict[str, Any] = {"tasks": tasks, "horizons": (horizon,), "seed": seed}
        self._programs: dict[tuple[str, Any], Validation] = {}

    def all_rates(
        self, one: Contestant, family: str, rates: Sequence[float], decays: Sequence[float] = (0.0,)
    ) -> list[Found]:
        """Results at every rate and decay."""
        return [
            self._results.get(
                one.key, family, rate, decay, lambda r=rate, d=decay: self._run(one, family, r, d)
            )
            for decay in decays
            for rate in rates
        ]

    def _run(self, one: Contestant, family: str, rate: float, decay: float) -> Any:
        kind = (family, "adamw" if one.vector is None else one.factor)
        if kind not in self._programs:
            self._programs[kind] = Validation(_maker(one), (family,), **self._arguments)
        argument = (one.vector if one.vector is not None else jnp.zeros(1), rate, decay)
        return self._programs[kind].losses(jax.tree.map(jnp.float32, argument), family)


def _maker(one: Contestant) -> Callable[[Any], Any]:
    if one.vector is None:
        return lambda argument: adamw_rule(argument[1], argument[2])
    harness = None if one.factor is None else Harness(one.factor)
    return lambda argument: celo2_rule(argument[0], argument[1], harness)


def best(found: Sequence[Found]) -> Found:
    """The result with the lowest mean score."""
    return min(found, key=lambda each: each.score)


def share_won(one: Found, other: Found) -> float:
    """Share of the tasks whose final loss is lower than the other's."""
    return float(np.mean(np.asarray(one.ratios) < np.asarray(other.ratios)))


def family_rows(
    found: dict[str, list[Found]], family: str, limit: float
) -> Iterator[tuple[str, ...]]:
    """Rows of the table of one family, one per contestant.

    Args:
        found: results by contestant; ``adam`` and ``adamw`` are among them.
        family: its name.
        limit: highest rate at which divergences are counted.
    """
    adam, adamw = best(found[ADAM]), best(found[ADAMW])
    for name, each in found.items():
        top = best(each)
        at = f"{top.rate:g}" + (f", {top.decay:g}" if name == ADAMW else "")
        above = [x for x in each if x.decay == top.decay and x.rate > top.rate]
        lost = sum(x.diverged for x in each if x.rate <= limit)
        wins = ("", "") if name in (ADAM, ADAMW) else (share_won(top, adam), share_won(top, adamw))
        yield (
            family,
            name,
            f"{top.score:.3f}",
            at,
            f"{above[0].score:.3f}" if above else "",
            *(x if isinstance(x, str) else f"{x:.0%}" for x in wins),
            str(lost),
        )


def one_rate(found: dict[str, dict[str, list[Found]]], name: str) -> dict[float, float]:
    """Mean score over families by rate, at AdamW's usual decay of 0.01 or without decay."""
    decay = 1e-2 if name == ADAMW else 0.0
    scores: dict[float, list[float]] = {}
    for by_name in found.values():
        for each in by_name[name]:
            if each.decay == decay:
                scores.setdefault(each.rate, []).append(each.score)
    return {rate: float(np.mean(values)) for rate, values in sorted(scores.items())}


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.held_out_rates",
        description="Compare Celo2 weights with tuned Adam and AdamW.",
    )
    made.add_argument("contestants", nargs="+", help="embedded, hand_made, random or files")
    made.add_argument("--tasks", type=int, default=24, help="per family, >= 1")
    made.add_argument("--horizon", type=int, default=300, help="inner steps, >= 10")
    made.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    made.add_argument("--rates", nargs="+", type=float, default=list(RATES), help="ascending")
    made.add_argument(
        "--decays", nargs="+", type=float, default=list(DECAYS), help="of AdamW, 0.01 among them"
    )
    made.add_argument("--limit", type=float, default=1e-2, help="count divergences up to this rate")
    made.add_argument("--seed", type=int, default=TEST_SEED, help="which tasks")
    made.add_argument("--results", type=Path, help="file to keep results in and to continue")
    made.add_argument("--compiled", type=Path, help="directory to keep compiled programs in")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parser().parse_args(arguments)
    if options.tasks < 1 or options.horizon < 10:
        parser().error("--tasks, --horizon: expected whole numbers >= 1 and >= 10")
    if options.compiled is not None:
        jax.config.update("jax_compilation_cache_dir", str(options.compiled))
    place = (options.tasks, options.horizon, options.seed)
    runner = Runner(Results(options.results, *place), *place)
    ours = [contestant(word) for word in options.contestants]
    found: dict[str, dict[str, list[Found]]] = {}
    for family in options.families:
        rows = {
            ADAM: runner.all_rates(Contestant(ADAMW), family, options.rates),
            ADAMW: runner.all_rates(Contestant(ADAMW), family, options.rates, options.decays),
        }
        for one in ours:
            rows[one.name] = runner.all_rates(one, family, options.rates)
        found[family] = rows
        print(f"{family} is done", file=sys.stderr, flush=True)
    print(f"{options.tasks} tasks per family, {options.horizon} steps")
    columns = ["family", "rule", "score", "rate", "next rate", "beats Adam", "beats AdamW"]
    columns.append(f"diverged <= {options.limit:g}")
    print(table(columns, [r for f in found for r in family_rows(found[f], f, options.limit)]))
    print("\nMean score over families by rate (AdamW with decay 0.01):")
    names = [ADAM, ADAMW, *(one.name for one in ours)]
    means = {name: one_rate(found, name) for name in names}
    rates = [f"{rate:g}" for rate in options.rates]
    print(table(["rule", *rates], [[n, *(f"{x:.3f}" for x in means[n].values())] for n in names]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
