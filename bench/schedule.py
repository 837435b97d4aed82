"""Learning rates for a report: recorded ones, else those of the optimizers' entries.

Boundary: tables of points; ``tracking.report`` draws them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, Final

import pandas as pd

from timetrial.bench.naming import label
from timetrial.bench.suite import load_run
from timetrial.framework.config import RunConfig
from timetrial.framework.entries import Horizon
from timetrial.framework.errors import UserError
from timetrial.framework.overrides import CHOICES
from timetrial.framework.records import RunRecord
from timetrial.optimizers import OPTIMIZERS
from timetrial.optimizers.schedules import sampled
from timetrial.tracking.record import schema
from timetrial.tracking.report import RATE_COLUMNS
from timetrial.tracking.scores.algoperf_workloads import STEP_HINTS_V05
from timetrial.workloads import WORKLOADS

Points = list[tuple[int, float]]
"""Pairs (step, learning rate), in order of step."""

_POINTS: Final = 201


def learning_rates(configs: Sequence[RunConfig], records: Iterable[RunRecord]) -> pd.DataFrame:
    """The schedules of planned and recorded runs up to the last step, columns ``RATE_COLUMNS``.

    Optimizers without a learning rate, such as VeLO, have no rows. The longest run of an
    optimizer on a workload counts.

    Args:
        configs: planned runs; they may have no record.
        records: recorded runs; they may have no plan.
    """
    longest: dict[tuple[str, str], RunRecord] = {}
    for run in records:
        key = (run.workload, run.optimizer)
        if key not in longest or run.step > longest[key].step:
            longest[key] = run
    planned: dict[tuple[str, str], RunConfig] = {}
    for config in configs:
        planned.setdefault((config.workload.name, label(config)), config)
    rows: list[tuple[object, ...]] = []
    for key in dict.fromkeys([*planned, *longest]):
        rows += [(*key, *point) for point in _points(planned.get(key), longest.get(key))]
    return pd.DataFrame(rows, columns=list(RATE_COLUMNS))


def paper_learning_rates() -> pd.DataFrame:
    """The schedules of the paper's five baselines (Table 8), over AlgoPerf's step hints.

    The hints are those of the code that the paper started from. Its Table 4 prints another number
    for fastMRI, 38,189; see tracking/paper/README.md.
    """
    rows: list[tuple[object, ...]] = []
    for name in (row["workload"] for row in _paper_table("hardware_calibration.csv")):
        steps = STEP_HINTS_V05[name]
        for row in _paper_table("hyperparameters.csv"):
            points = _scheduled(row["optimizer"], _paper_settings(row), steps, steps)
            rows += [(name, row["optimizer"], *point) for point in points]
    return pd.DataFrame(rows, columns=list(RATE_COLUMNS))


def _points(config: RunConfig | None, run: RunRecord | None) -> Points:
    """The points of one optimizer on one workload, from its plan, its longest run, or both."""
    if run is not None and schema.LEARNING_RATES in run.tags:
        return [point for point in _recorded(run) if point[0] <= run.step]
    config = config or (_configured(run) if run else None)
    hint = getattr(config.workload.settings, "step_hint", None) if config else None
    if config is None or hint is None:
        return []
    made = run.step if run else 0
    return _scheduled(config.optimizer.name, config.optimizer.settings, hint, made or hint)


def _recorded(run: RunRecord) -> Points:
    """The points of a run's tag; none if it is damaged."""
    try:
        points = json.loads(run.tags[schema.LEARNING_RATES])
        return [(int(step), float(rate)) for step, rate in points]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return []


def _configured(run: RunRecord) -> RunConfig | None:
    """The recorded configuration of a run; None if this installation cannot read it.

    Nothing that a record names is imported.
    """
    if not _is_installed(run):
        return None
    wanted = {
        key: value
        for key, value in run.config.items()
        if key.split(".")[0] in ("workload", "optimizer") and value != "None"
    }
    try:
        return load_run([f"{key}={value}" for key, value in wanted.items()])
    except UserError:
        return None


def _is_installed(run: RunRecord) -> bool:
    names = {key: run.config.get(key, run.config.get(f"{key}.name", "")) for key in CHOICES}
    return OPTIMIZERS.is_installed(names["optimizer"]) and WORKLOADS.is_installed(names["workload"])


def _scheduled(optimizer: str, settings: Any, step_hint: int, steps: int) -> Points:
    """Points from the first update to the last, from the optimizer's entry."""
    rates_of = OPTIMIZERS[optimizer].learning_rates
    rates = rates_of(settings, Horizon(step_hint=step_hint, steps=steps)) if rates_of else None
    return [] if rates is None else sampled(rates, steps, _POINTS)


def _paper_settings(row: Mapping[str, str]) -> Any:
    """The settings of a baseline, from the columns of Table 8."""
    columns = {
        "learning_rate": "learning_rate",
        "momentum": "momentum",
        "warmup_fraction": "warmup_fraction",
        "end_factor": "end_learning_rate",  # a factor of the peak: see warmup_cosine
    }
    given = {name: float(row[column]) for name, column in columns.items() if row[column]}
    return OPTIMIZERS[row["optimizer"]].settings(**given)


def _paper_table(name: str) -> list[dict[str, str]]:
    with (resources.files("timetrial.tracking") / "paper" / name).open() as file:
        return list(csv.DictReader(file))
