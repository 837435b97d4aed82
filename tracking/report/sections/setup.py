"""Setup: budgets and targets, settings of the optimizers, pools of machines, hardware, versions.

Pure: from results to text, cells and numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition
from timetrial.tracking.record import schema
from timetrial.tracking.report.cells import Cell, Table, amount, header, name_cell, plain
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, Text, headed
from timetrial.tracking.report.standings import SHOWN
from timetrial.tracking.report.style import metric_name
from timetrial.tracking.scores.targets import CONDITIONS

_UUID_LENGTH: Final = 12  # GPU- or MIG- and eight digits, as CUDA accepts them


def section(results: Results) -> Section:
    """Budgets and targets, settings, pools of machines, hardware and versions."""
    settings = settings_frame(results.records)
    tables = [
        budget_table(results),
        configuration_table(results.records),
        pool_table(results.records),
        settings_table(settings, len(results.records)),
    ]
    nothing = [Text("Nothing was recorded about hardware and versions.")]
    return Section(
        name="setup",
        title="Setup",
        menu="Setup",
        blocks=[*headed(tables), *(nothing if settings.empty else [])],
        frames={"settings": settings},
    )


def budget_table(results: Results) -> Table:
    """Budget, calibration and targets of every workload and condition."""
    body = []
    for condition in CONDITIONS:
        here = [run for run in results.records if run.condition == condition]
        for workload in sorted({run.workload for run in here}):
            runs = [run for run in here if run.workload == workload]
            goals = {
                s.split: s.targets.get(workload, math.nan)
                for s in results.standings
                if s.condition == condition
            }
            targets = [Cell(plain(goals.get(split, math.nan), 4)) for split in SHOWN]
            body.append([name_cell(workload), Cell(condition), *_budget_cells(runs), *targets])
    names = ("workload", "control", "budget", "calibration", "metric")
    target_names = (f"{split} target" for split in SHOWN)
    title = "Budgets and targets"
    return Table("budgets", title, header(*names, *target_names), body, kind="fit left")


def _budget_cells(runs: Sequence[RunRecord]) -> list[Cell]:
    """Budget, calibration and metric of the runs of one workload and condition."""
    timed = runs[0].condition == Condition.TIME
    unit = "s" if timed else "steps"
    budgets = sorted({run.budget for run in runs})
    used = sorted({run.tags[schema.CALIBRATION] for run in runs if schema.CALIBRATION in run.tags})
    return [
        Cell(", ".join(f"{amount(budget, unit, 5)} {unit}" for budget in budgets)),
        Cell(", ".join(used) or ("this race" if timed else "–")),
        Cell(f"{metric_name(runs[0].metric)}, {runs[0].direction.value}"),
    ]


def settings_table(settings: pd.DataFrame, runs: int) -> Table:
    """Recorded facts on machine, versions and code, with numbers of runs where they differ.

    Args:
        settings: as returned by ``settings_frame``.
        runs: how many there are.
    """
    body = []
    for key, group in settings.groupby("setting", sort=True):
        values = list(zip(group["value"], group["runs"], strict=True))
        if len(values) == 1 and values[0][1] == runs:
            text = values[0][0]
        else:
            text = "; ".join(f"{value} ({number} runs)" for value, number in values[:6])
            text += f"; {len(values) - 6} more" if len(values) > 6 else ""
        body.append([name_cell(str(key)), Cell(text, kind="text")])
    title = "Hardware and versions"
    return Table("settings", title, header("recorded", "value"), body, kind="fit left")


def configuration_table(records: Sequence[RunRecord]) -> Table:
    """The settings of every optimizer; values that differ between runs are all listed."""
    found: dict[str, dict[str, set[str]]] = {}
    for run in records:
        for key, value in run.config.items():
            if key.startswith("optimizer."):
                settings = found.setdefault(run.optimizer, {})
                settings.setdefault(key.removeprefix("optimizer."), set()).add(value)
    body = [
        [
            name_cell(name),
            Cell(", ".join(f"{k}={'|'.join(sorted(v))}" for k, v in sorted(settings.items())),
                 kind="text"),
        ]
        for name, settings in sorted(found.items())
    ]  # fmt: skip
    heads = header("optimizer", "settings")
    return Table("configurations", "Settings", heads, body, kind="fit left")


def pool_table(records: Sequence[RunRecord]) -> Table:
    """Hosts of every pool: runs, GPUs, cores, and seconds per step as ratios to the pool's.

    One row per host; above the hosts of a pool, if there are several, one for all of them.
    """
    pools: dict[str, dict[str, dict[str, RunRecord]]] = {}
    for run in records:
        if pool := run.tags.get(schema.POOL):
            hosts = pools.setdefault(pool, {})
            hosts.setdefault(run.tags.get(schema.HOST, "unknown"), {})[run.run_id] = run
    body = []
    for pool, hosts in sorted(pools.items()):
        if len(hosts) > 1:
            everything = [run for runs in hosts.values() for run in runs.values()]
            body.append([name_cell(pool), Cell(f"all {len(hosts)}"), *_pool_cells(everything)])
        body += [
            [name_cell(pool), Cell(host), *_pool_cells(list(runs.values()))]
            for host, runs in sorted(hosts.items())
        ]
    title = "Pools: machines whose seconds compare"
    names = ("pool", "host", "runs", "GPUs", "cores", "admission ratio")
    return Table("pools", title, header(*names), body, kind="fit left")


def _pool_cells(runs: Sequence[RunRecord]) -> list[Cell]:
    """Number, GPUs, cores and admission ratios of some runs of a pool."""
    gpus = {gpu for run in runs for gpu in run.tags.get(schema.GPU_UUID, "").split(",") if gpu}
    cores = {text for run in runs if (text := run.tags.get(schema.CPU_AFFINITY))}
    ratios = [ratio for run in runs if math.isfinite(ratio := _admission_ratio(run))]
    span = f"{min(ratios):.3f} to {max(ratios):.3f}" if ratios else "–"
    names = sorted({gpu[:_UUID_LENGTH] for gpu in gpus})
    return [
        Cell(f"{len(runs):,}"),
        Cell(str(len(gpus) or "–"), _few(names)),
        Cell(_few(sorted(cores))),
        Cell(span),
    ]


def _admission_ratio(run: RunRecord) -> float:
    """The recorded ratio; NaN if there is none, or another text."""
    try:
        return float(run.tags.get(schema.ADMISSION_RATIO, ""))
    except ValueError:
        return math.nan


def _few(texts: Sequence[str]) -> str:
    """The first four texts, and how many more there are."""
    return ", ".join(texts[:4]) + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")


def settings_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Columns setting, value, runs: recorded facts, the most frequent value first."""
    found = Counter(
        (key, value)
        for record in records
        for key, value in record.tags.items()
        if key not in schema.NOT_SETTINGS and not key.startswith(schema.NOT_SETTINGS_PREFIXES)
    )
    rows = sorted(((*pair, count) for pair, count in found.items()), key=_by_frequency)
    return pd.DataFrame(rows, columns=["setting", "value", "runs"])


def _by_frequency(row: tuple[str, str, int]) -> tuple[str, int, str]:
    return (row[0], -row[2], row[1])
