"""Writes a suite's reference targets from recorded runs of its presets.

    timetrial bench suite=quick tracking.root=runs/reference seeds=100,101,...,109 \
        optimizers=adam,nadam,nadamw,heavy_ball,nesterov,velo
    python tools/reference_targets.py quick runs/reference

The seeds must not be those of the suite, so that no run of a race sets its own target.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import jax

from timetrial.bench import suite as suites
from timetrial.framework.checksums import seal
from timetrial.framework.files import write_atomically
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.scores.reference_targets import reference_targets
from timetrial.tracking.scores.targets import may_set_targets, trials
from timetrial.tracking.store.opening import open_store


def main() -> None:
    """Writes ``bench/suites/NAME.targets.csv``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", help="name of the suite")
    parser.add_argument("root", type=Path, help="tracking.root of the reference runs")
    parser.add_argument("--experiment", help="default: that of the suite")
    options = parser.parse_args()
    suite, tracking = suites.load_suite([f"suite={options.suite}"])
    store = open_store(None, root=options.root, create=False)
    experiment = options.experiment or tracking.experiment
    runs = trials(load_runs(store, experiment), condition=Condition.STEP)
    runs = [run for run in runs if may_set_targets(run)]
    if overlap := sorted({run.seed for run in runs} & {*suite.seeds}):
        parser.error(f"seeds: expected others than the suite's, got {overlap}")
    table = reference_targets(runs, condition=Condition.STEP)
    text = provenance(options.suite, runs) + table.to_csv(index=False, float_format="%.4f")
    path = suites.SUITES_DIRECTORY / f"{options.suite}.targets.csv"
    write_atomically(path, seal(text))
    print(path.read_text())


def provenance(suite: str, runs: list[RunRecord]) -> str:
    """Where the targets come from, as comments."""

    def several(key: str) -> str:
        return ", ".join(sorted({run.tags.get(key, "unknown") for run in runs}))

    seeds = sorted({run.seed for run in runs})
    commits = sorted({run.tags.get(schema.GIT_COMMIT, "unknown")[:12] for run in runs})
    lines = [
        f"Reference targets of suite {suite}, for both conditions.",
        "rule: median over the optimizers of their median metric at 75 % of the step budget",
        f"optimizers: {', '.join(sorted({run.optimizer for run in runs}))}",
        f"seeds: {', '.join(map(str, seeds))} ({len(runs)} runs; none of the suite's own seeds)",
        f"commit: {', '.join(commits)}; jax {jax.__version__}; Python {platform.python_version()}",
        f"hardware: {several(schema.HOST_CPU)}, {several(schema.HOST_CORES)} cores",
        f"command: python tools/reference_targets.py {suite} ROOT (see there)",
    ]
    return "".join(f"# {line}\n" for line in lines)


if __name__ == "__main__":
    main()
