"""Cost of records: of finding finished runs, and of a trial of a study, as their number grows.

Boundary: prints tables; writes into a temporary directory. The runs are recorded but not trained.

    python -m benchmarks.records [--runs N] [--trials N] [--storage URL]

Times are CPU seconds of this process. The first table looks for the finished runs of one
experiment: with their journals and MLflow's SQLite mirror of them, and with MLflow alone. The
second table makes studies whose trials do nothing; what remains is settling, claiming, suggesting,
reporting and telling. The exponent p of ``time ~ number ** p`` is fitted by least squares.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.machine import exponent
from timetrial.bench.experiment import StopReason
from timetrial.bench.tune import ledger, storage, trial
from timetrial.bench.tune.settings import load_plan
from timetrial.bench.tune.study import work
from timetrial.framework.callbacks import Callback, Prune, StepInfo
from timetrial.framework.records import Row, RunResult
from timetrial.framework.types import Status
from timetrial.tracking.read.runs import finished_configs, load_runs
from timetrial.tracking.record.environment import environment_tags, host_tags, process_tags
from timetrial.tracking.record.journal import RunHeader
from timetrial.tracking.store.opening import Store, open_store
from timetrial.tracking.store.recording import start_recording

RUNS_GOAL_SECONDS, RUNS_GOAL = 0.3, 1000
TRIALS_GOAL_MS, TRIALS_GOAL = 20.0, 1000
EXPERIMENT = "benchmark"
UPDATES, EVALUATIONS = 400, 14
"""Rows of a journal, as in suite quick: 120 kB."""

REPEATS = 3


def sizes(most: int) -> list[int]:
    """Numbers of runs or trials, each twice the one before, up to ``most``."""
    return [most // 2**k for k in range(4, -1, -1) if most // 2**k > 0]


def machine() -> str:
    """Machine, versions and load."""
    import mlflow
    import optuna

    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{host_tags()['host_cpu']}, {os.cpu_count()} cores, load {load}; Python "
        f"{platform.python_version()}, mlflow {mlflow.__version__}, optuna {optuna.__version__}"
    )


def record(store: Store, number: int) -> None:
    """Records one finished run as a race does, with made-up rows."""
    tags = {
        "workload": "flights_dlrm",
        "optimizer": f"optimizer{number % 12}",
        "seed": str(number % 5),
        "condition": "step",
        "budget": str(UPDATES),
        "metric": "loss",
        "direction": "minimize",
        "config_hash": f"{number:016x}",
        "suite": "benchmark",
        "learning_rates": str([[step, 1e-3 / step] for step in range(1, 100)]),
    }
    params = {f"part.setting_{k}": f"value {k}" for k in range(45)}
    described = {**environment_tags(), **process_tags(), **tags}
    header = RunHeader(EXPERIMENT, f"run {number}", described, params, "key: value\n" * 60)
    recording = start_recording(store, header)
    rows = [
        Row(step, 1e-3 * step, {"batch/grad_norm": 1.0 / (1 + step), "batch/loss": 2.0**-step})
        for step in range(1, UPDATES)
    ]
    names = [f"{split}/loss" for split in ("train", "validation", "test")]
    for step in np.linspace(0, UPDATES, EVALUATIONS, dtype=int).tolist():
        rows.append(Row(step, 1e-3 * step, dict.fromkeys(names, 1.0 / (1 + step))))
    recording.log(sorted(rows, key=lambda row: row.step))
    summary = {f"time/account{k}_seconds": float(k) for k in range(24)}
    recording.finish(Status.FINISHED, {"stop_reason": "BUDGET", "diverged": "false"}, summary)


def cpu(action: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median CPU seconds of an action."""
    found = []
    for _ in range(repeats):
        began = time.process_time()
        action()
        found.append(time.process_time() - began)
    return statistics.median(found)


def finished(most: int) -> dict[str, list[float]]:
    """Prints the table of finished runs; its CPU seconds by column."""
    columns: dict[str, list[float]] = {"journals and MLflow": [], "MLflow alone": []}
    print(f"{'finished runs':>16}{'journals and MLflow':>24}{'MLflow alone':>18}{'load all':>14}")
    with tempfile.TemporaryDirectory() as directory:
        store, made = open_store(root=Path(directory) / "a"), 0
        alone = open_store(store.uri, root=Path(directory) / "b")
        for number in sizes(most):
            while made < number:
                record(store, made)
                made += 1
            times = []
            for each, column in zip((store, alone), columns, strict=True):
                assert len(finished_configs(each, EXPERIMENT)) == number
                times.append(cpu(lambda each=each: finished_configs(each, EXPERIMENT)))
                columns[column].append(times[-1])
            loaded = cpu(lambda: load_runs(store, EXPERIMENT), 1)
            print(
                f"{number:>16}{times[0]:>22.3f} s{times[1]:>16.3f} s{loaded:>12.2f} s", flush=True
            )
    fits = [exponent(sizes(most), column) for column in columns.values()]
    print(f"{'exponent':>16}{fits[0]:>22.2f}  {fits[1]:>16.2f}\n")
    return columns


def nothing(*_: Any, callbacks: Sequence[Callback], **__: Any) -> RunResult:
    """In place of a run: reports to the pruner three times, and ends."""
    rows = [Row(step, float(step), {"validation/loss": 1.0 / (1 + step)}) for step in range(4)]
    for row in rows[1:]:
        for callback in callbacks:
            if isinstance(callback, Prune):
                info = StepInfo(row.step, row.train_seconds, row.step / 4, row.step)
                callback.on_eval_end(info, row.metrics, None)  # type: ignore[arg-type]
    return RunResult(StopReason.BUDGET, 3, {"train": 3.0}, rows, None)  # type: ignore[arg-type]


def trial_ms(words: Sequence[str], number: int, url: str) -> float:
    """CPU milliseconds per trial of a study of so many trials that do nothing."""
    name = f"{words[-1].partition('=')[2]}-{number}"
    plan = load_plan([*words, f"study.trials={number}", f"study.name={name}"])
    database = storage.open_storage(url, 15)
    with database.lock():
        study = ledger.open_study(plan, database)
    store = open_store(root=plan.root)
    with mock.patch.object(trial, "run", nothing), contextlib.redirect_stdout(io.StringIO()):
        used = cpu(lambda: work(plan, store, database, study, 1), 1)
    ended = study.get_trials(deepcopy=False)
    assert [t.state.name for t in ended] == ["COMPLETE"] * number
    return 1e3 * used / number


def tuning(most: int, others: Sequence[str]) -> dict[str, list[float]]:
    """Prints the table of trials; CPU milliseconds per trial by kind of storage and search."""
    found: dict[str, list[float]] = {}
    print(f"{'CPU ms per trial':24}" + "".join(f"{number:>10}" for number in sizes(most)) + "  p")
    with tempfile.TemporaryDirectory() as directory:
        words = ["preset=quick/flights_dlrm", "optimizer=adam", f"tracking.root={directory}"]
        kinds = {"sqlite": f"sqlite:///{directory}/s.db", "journal": f"journal:{directory}/s.log"}
        kinds |= {url.partition(":")[0]: url for url in others}
        for kind, url in kinds.items():
            for search in ("sobol", "tpe"):
                given = [*words, f"study.search={search}"]
                if search == "tpe" and kind != "sqlite":
                    continue
                times = [trial_ms(given, number, url) for number in sizes(most)]
                found[f"{kind}, {search}"] = times
                fit = 1 + exponent(sizes(most), times)
                shown = "".join(f"{each:>10.1f}" for each in times)
                print(f"{f'{kind}, {search}':24}{shown}  {fit:.2f}", flush=True)
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Prints both tables; returns 1 if a goal is missed at its number, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=4000, help="most finished runs")
    parser.add_argument("--trials", type=int, default=2000, help="most trials of a study")
    parser.add_argument("--storage", action="append", default=[], help="another storage: its URL")
    options = parser.parse_args(words)
    print(machine(), flush=True)
    missed = []
    if options.runs:
        column = finished(options.runs)["journals and MLflow"]
        known = dict(zip(sizes(options.runs), column, strict=True))
        missed.append(known.get(RUNS_GOAL, 0.0) > RUNS_GOAL_SECONDS)
    if options.trials:
        column = tuning(options.trials, options.storage)["sqlite, sobol"]
        known = dict(zip(sizes(options.trials), column, strict=True))
        missed.append(known.get(TRIALS_GOAL, 0.0) > TRIALS_GOAL_MS)
    print(f"load at the end: {os.getloadavg()[0]:.1f}")
    return int(any(missed))


if __name__ == "__main__":
    sys.exit(main())
