"""The report's tables of what was run: every run, budgets, settings, hardware and versions.

Pure: from results to cells; no HTML and no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Split
from timetrial.tracking.record import schema
from timetrial.tracking.report.cells import Cell, Table, header, label, plain
from timetrial.tracking.report.frames import config_hash, settings_frame
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.standings import SHOWN, ListedRun
from timetrial.tracking.report.style import metric_label
from timetrial.tracking.scores.targets import CONDITIONS, final_value


def run_table(rows: Sequence[ListedRun], run_url: str, *, name: str, title: str) -> Table:
    """One row per run, whatever became of it.

    ``run_url`` is the address of a run in the tracking server but for its id; "" sets no links.
    """
    names = (
        "optimizer, workload, control, seed, outcome, stop reason, steps, charged s, "
        "final metric, counts, config, run"
    )
    body = []
    for row in rows:
        run = row.record
        value = (
            math.nan if run is None else final_value(run, f"{_deciding_split(run)}/{run.metric}")
        )
        good = row.outcome == "finished"
        identity = "" if run is None else run.run_id
        body.append(
            [
                label(row.optimizer),
                Cell(row.workload),
                Cell(row.condition),
                Cell(str(row.seed)),
                Cell(row.outcome, kind="" if good else "bad"),
                Cell("" if run is None else run.reason.lower()),
                Cell("" if run is None else f"{run.step:,}"),
                Cell("" if run is None else plain(run.train_seconds, 4)),
                Cell(plain(value, 4)),
                Cell("yes" if row.counted else "no", kind="" if row.counted else "bad"),
                Cell("" if run is None else config_hash(run)[:8], kind="code"),
                Cell(identity[:8], kind="code", link=run_url + identity if run_url and run else ""),
            ]
        )
    return Table(name, title, header(*names.split(", ")), body)


def budget_table(results: Results) -> Table:
    """Budget, calibration and targets of every workload and condition."""
    body = []
    for condition in CONDITIONS:
        here = [run for run in results.records if run.condition == condition]
        unit = "s" if condition == Condition.TIME else "steps"
        for workload in sorted({run.workload for run in here}):
            runs = [run for run in here if run.workload == workload]
            metric = runs[0].metric
            goals = {s.split: s.targets.get(workload, math.nan) for s in results.standings
                     if s.condition == condition}  # fmt: skip
            budgets = sorted({run.budget for run in runs})
            used = sorted(
                {run.tags[schema.CALIBRATION] for run in runs if schema.CALIBRATION in run.tags}
            )
            body.append(
                [
                    label(workload),
                    Cell(condition),
                    Cell(", ".join(f"{plain(budget, 5)} {unit}" for budget in budgets)),
                    Cell(", ".join(used) or ("this race" if condition == Condition.TIME else "–")),
                    Cell(f"{metric_label(metric)}, {runs[0].direction.value}"),
                    *(Cell(plain(goals.get(split, math.nan), 4)) for split in SHOWN),
                ]
            )
    names = ("workload", "control", "budget", "calibration", "metric")
    goals_of = (f"{split} target" for split in SHOWN)
    return Table("budgets", "Budgets and targets", header(*names, *goals_of), body)


def settings_table(records: Sequence[RunRecord]) -> Table:
    """What was recorded about machine, versions and code, with the number of runs for each."""
    body = []
    for key, group in settings_frame(records).groupby("setting", sort=True):
        values = list(zip(group["value"], group["runs"], strict=True))
        if len(values) == 1 and values[0][1] == len(records):
            text = values[0][0]
        else:
            text = "; ".join(f"{value} ({number} runs)" for value, number in values[:6])
            text += f"; {len(values) - 6} more" if len(values) > 6 else ""
        body.append([label(str(key)), Cell(text, kind="text")])
    return Table("settings", "Hardware and versions", header("recorded", "value"), body)


def configuration_table(records: Sequence[RunRecord]) -> Table:
    """The settings of every optimizer, where they differ by workload with the values of all."""
    found: dict[str, dict[str, set[str]]] = {}
    for run in records:
        for key, value in run.config.items():
            if key.startswith("optimizer."):
                settings = found.setdefault(run.optimizer, {})
                settings.setdefault(key.removeprefix("optimizer."), set()).add(value)
    body = [
        [
            label(name),
            Cell(", ".join(f"{k}={'|'.join(sorted(v))}" for k, v in sorted(settings.items())),
                 kind="text"),
        ]
        for name, settings in sorted(found.items())
    ]  # fmt: skip
    return Table("configurations", "Settings", header("optimizer", "settings"), body)


def _deciding_split(run: RunRecord) -> str:
    for split in (Split.VALIDATION, Split.TEST, Split.TRAIN):
        if any(f"{split}/{run.metric}" in row.metrics for row in run.evaluations):
            return split
    return Split.VALIDATION
