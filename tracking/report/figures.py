"""Which learning curves a report has: from runs and standings to panels that are ready to draw.

Pure: chooses and aggregates; drawing is the business of ``plots``.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Split, Status
from timetrial.tracking.report.curves import COLUMNS, learning_curves
from timetrial.tracking.report.panels import X_LABELS, curve_panel
from timetrial.tracking.report.plots import Panel
from timetrial.tracking.report.standings import CONTROL, Standing
from timetrial.tracking.report.style import better, metric_label
from timetrial.tracking.scores.targets import diverged, evaluations_of, trials


@dataclasses.dataclass(frozen=True)
class Figure:
    """Panels that belong together: name of their files, title, panels."""

    name: str
    title: str
    panels: Sequence[Panel]


def curve_figures(
    records: Sequence[RunRecord], found: Sequence[Standing]
) -> tuple[list[Figure], pd.DataFrame]:
    """Learning curves of the deciding metrics, and the numbers that they draw.

    Returns:
        One figure for each condition and workload, with a panel for each split and axis; and a
        table with columns condition, workload, split, metric and those of ``learning_curves``.
    """
    panels: dict[tuple[str, str], list[Panel]] = {}
    numbers = []
    for standing in found:
        runs = trials(records, condition=standing.condition)
        for workload in standing.times.columns:
            here = [run for run in runs if run.workload == workload]
            data = learning_curves(here, f"{standing.split}/{here[0].metric}") if here else None
            if data is None or data.empty:
                continue
            key = (standing.condition, workload)
            panels.setdefault(key, []).extend(_panels(here, data, standing))
            for place, name in enumerate(("condition", "workload", "split", "metric")):
                value = (*key, standing.split, here[0].metric)[place]
                data.insert(place, name, value)
            numbers.append(data)
    order = {(s.condition, w): None for s in found for w in s.times.columns}
    figures = [
        Figure(
            f"curves_{condition}_{re.sub(r'[^A-Za-z0-9._-]', '_', workload)}",
            f"{workload}, {CONTROL[condition]}",
            panels[condition, workload],
        )
        for condition, workload in order
        if (condition, workload) in panels
    ]
    columns = ["condition", "workload", "split", "metric", *COLUMNS]
    table = pd.concat(numbers, ignore_index=True) if numbers else pd.DataFrame(columns=columns)
    return figures, table


def _panels(runs: Sequence[RunRecord], data: pd.DataFrame, standing: Standing) -> list[Panel]:
    run = runs[0]
    ends = [end for run in runs if (end := _early_end(run, standing.split)) is not None]
    return [
        curve_panel(
            data,
            ends,
            title=f"{standing.split} over {x_label}".capitalize(),
            x=x,
            label=f"{metric_label(run.metric)} ({better(run.direction)})",
            direction=run.direction,
            target=float(standing.targets.get(run.workload, math.nan)),
        )
        for x, x_label in X_LABELS.items()
    ]


def _early_end(run: RunRecord, split: Split) -> tuple[str, int, float, float] | None:
    """Where the curve of a run that diverged or failed ends; None for any other run."""
    if not diverged(run) and run.status == Status.FINISHED:
        return None
    key = f"{split}/{run.metric}"
    rows = [r for r in evaluations_of(run, split) if math.isfinite(r.metrics.get(key, math.nan))]
    if not rows:
        return None
    return run.optimizer, rows[-1].step, rows[-1].train_seconds, rows[-1].metrics[key]
