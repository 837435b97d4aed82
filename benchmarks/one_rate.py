r"""Races optimizers with one rate for all four mini workloads against one tuned per workload.

Boundary: trains with the project's own trainer, records nothing but a file of results; prints the
table of ``optimizers/celo2/embedded/CARD.md``.

    python -m benchmarks.one_rate celo2_base:learning_rate=1e-2 adamw:learning_rate=1e-2 \
        --tuned adamw --trials 20 --seeds 5 --results one_rate.jsonl

A contestant is ``OPTIMIZER:KEY=VALUE,KEY=VALUE``; its settings hold for all workloads. The rates
come from ``benchmarks.held_out_rates``, never from these workloads. ``--tuned`` draws points of an
optimizer's search space for each workload, runs each with a seed of its own, and races the one
with the lowest final training loss. Budgets are the steps of the presets ``mini``. A stopped
benchmark continues.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from timetrial.bench.experiment import run
from timetrial.bench.suite import load_run
from timetrial.bench.tune.points import points
from timetrial.bench.tune.space import configured, searched
from timetrial.bench.workshop import Workshop
from timetrial.framework.config import RunConfig

WORKLOADS = ("flights_dlrm", "fashion_mnist_resnet", "icbm_unet", "assays_gnn")
TRIAL_SEED = 1_000
"""Seed of the trials; races use 0, 1, 2, ..."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run: who, where, with which settings, and why (``race`` or ``trial``)."""

    contestant: str
    workload: str
    seed: int
    kind: str
    settings: tuple[str, ...]

    @property
    def key(self) -> str:
        """Identity in the file of results."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    def config(self) -> RunConfig:
        """The run; it is evaluated at its end only."""
        optimizer = self.contestant.partition(":")[0].removeprefix("tuned ")
        words = [f"preset=mini/{self.workload}", f"optimizer={optimizer}", f"seed={self.seed}"]
        words += [f"optimizer.{word}" for word in self.settings]
        return load_run([*words, "workload.eval_every_steps=1000000"])


class Results:
    """Final losses by run, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, dict[str, Any]] = {}
        if path.exists():
            lines = map(json.loads, path.read_text().splitlines())
            self._found = {line["key"]: line for line in lines}

    def get(self, planned: Planned) -> dict[str, Any] | None:
        """The result of a run, or None."""
        return self._found.get(planned.key)

    def add(self, planned: Planned, metrics: Mapping[str, float], cpu_seconds: float) -> None:
        """Keeps a result."""
        finite = {key: x if np.isfinite(x) else None for key, x in metrics.items()}
        line = {"key": planned.key, "cpu_seconds": round(cpu_seconds, 1), "load": os.getloadavg()}
        line |= {"metrics": finite}
        self._found[planned.key] = line
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def loss(self, planned: Planned) -> float:
        """Final training loss; infinite for a run that diverged, nan for one that is missing."""
        found = self.get(planned)
        if found is None:
            return float("nan")
        value = found["metrics"].get("train/loss")
        return float("inf") if value is None else float(value)


def make(planned: Planned, results: Results, workshop: Workshop) -> None:
    """Makes a run unless its result is there."""
    if results.get(planned) is not None:
        return
    began = time.process_time()
    result = run(planned.config(), None, workshop)
    metrics = dict(result.evaluations[-1].metrics)
    if result.not_finite:
        metrics["train/loss"] = float("inf")
    results.add(planned, metrics, time.process_time() - began)
    loss = results.loss(planned)
    print(f"{planned.contestant} {planned.workload} seed {planned.seed}: {loss:.4f}", flush=True)


def trials(optimizer: str, workload: str, number: int) -> Iterator[Planned]:
    """The trials of a tuned optimizer on a workload: points of its search space."""
    base = load_run([f"preset=mini/{workload}", f"optimizer={optimizer}"])
    space = searched(base, fixed=(), regularisation=False)
    fields = dataclasses.fields(base.optimizer.settings)
    for point in points(space, "sobol", number, 0):
        made = configured(base, point).optimizer.settings
        usual = base.optimizer.settings
        changed = tuple(
            f"{field.name}={getattr(made, field.name)!r}"
            for field in fields
            if getattr(made, field.name) != getattr(usual, field.name)
        )
        yield Planned(f"tuned {optimizer}", workload, TRIAL_SEED, "trial", changed)


def races(name: str, settings: tuple[str, ...], workload: str, seeds: int) -> list[Planned]:
    """The runs of a contestant on a workload, one per seed."""
    return [Planned(name, workload, seed, "race", settings) for seed in range(seeds)]


def row(name: str, losses: Mapping[str, Sequence[float]], rival: Mapping[str, float]) -> str:
    """A row of the table: mean final losses, and their ratios to the tuned rival's mean."""
    cells = []
    for workload, each in losses.items():
        there = [x for x in each if not np.isnan(x)]
        if not there:
            cells.append("not run")
            continue
        mean = float(np.mean(there))
        ratio = f" ({mean / rival[workload] - 1:+.1%})" if workload in rival else ""
        count = "" if len(there) == len(each) else f", {len(there)} seeds"
        cells.append(f"{mean:.4f}{ratio}{count}")
    return f"| {name} | {' | '.join(cells)} |"


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.one_rate", description="One rate for four mini workloads."
    )
    made.add_argument("contestants", nargs="*", help="OPTIMIZER:KEY=VALUE,KEY=VALUE")
    made.add_argument("--tuned", nargs="*", default=[], help="optimizers tuned per workload")
    made.add_argument("--trials", type=int, default=20, help="per workload, >= 1")
    made.add_argument("--seeds", type=int, default=5, help=">= 1")
    made.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    made.add_argument("--results", type=Path, required=True, help="file to keep results in")
    made.add_argument("--show", action="store_true", help="print the table of what is there")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parser().parse_args(arguments)
    results, workshop = Results(options.results), Workshop()
    table: dict[str, dict[str, list[float]]] = {}
    for workload in options.workloads:
        planned: dict[str, list[Planned]] = {}
        for text in options.contestants:
            settings = tuple(filter(None, text.partition(":")[2].split(",")))
            planned[text] = races(text, settings, workload, options.seeds)
        for optimizer in options.tuned:
            tried = list(trials(optimizer, workload, options.trials))
            for each in tried:
                if not options.show:
                    make(each, results, workshop)
            there = [each for each in tried if results.get(each) is not None]
            if there:
                best = min(there, key=results.loss)
                name = f"tuned {optimizer}"
                planned[name] = races(name, best.settings, workload, options.seeds)
        for name, runs in planned.items():
            for each in runs:
                if not options.show:
                    make(each, results, workshop)
            table.setdefault(name, {})[workload] = [results.loss(each) for each in runs]
    rivals = [name for name in table if name.startswith("tuned ")]
    rival = {w: float(np.mean(x)) for w, x in table[rivals[0]].items()} if rivals else {}
    print(f"final training loss, mean of {options.seeds} seeds")
    print(f"| contestant | {' | '.join(options.workloads)} |")
    print("|---" * (1 + len(options.workloads)) + "|")
    for name, losses in table.items():
        every = {workload: losses.get(workload, [float("nan")]) for workload in options.workloads}
        print(row(name, every, {k: x for k, x in rival.items() if not np.isnan(x)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
