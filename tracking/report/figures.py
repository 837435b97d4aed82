"""Which plots a report has: from runs and standings to panels that are ready to draw.

Pure: chooses and aggregates; drawing is the business of ``plots``.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from framework.types import RunRecord
from tracking.report.curves import COLUMNS, learning_curves
from tracking.report.plots import Curves, Panel, curve_panel, profile_panel
from tracking.report.standings import Standing
from tracking.report.style import Look, better, metric_label
from tracking.report.tables import CONTROL
from tracking.targets import diverged, history, trials

_AXES: Final = {"train_seconds": "charged seconds", "step": "steps"}


@dataclasses.dataclass(frozen=True)
class Group:
    """The learning curves of one workload and condition: name of its file, title, panels."""

    name: str
    title: str
    panels: Sequence[Panel]


def profile_panels(found: Sequence[Standing], looks: Mapping[str, Look]) -> list[Panel]:
    """A performance profile for every condition and split."""
    return [
        Panel(
            f"{standing.split}, {CONTROL[standing.condition]}".capitalize(),
            profile_panel(standing, looks),
        )
        for standing in found
    ]


def curve_groups(
    records: Sequence[RunRecord], found: Sequence[Standing], looks: Mapping[str, Look]
) -> tuple[list[Group], pd.DataFrame]:
    """Learning curves of the deciding metrics, and the numbers that they draw.

    Returns:
        One group for each condition and workload, with a panel for each split and axis; and a
        table with columns condition, workload, split, metric and those of ``learning_curves``.
    """
    panels: dict[tuple[str, str], list[Panel]] = {}
    numbers = []
    for standing in found:
        runs = trials(records, condition=standing.condition)
        for workload in standing.times.columns:
            here = [run for run in runs if run.workload == workload]
            if not here:
                continue
            key = f"{standing.split}/{here[0].metric}"
            data = learning_curves(here, key)
            if data.empty:
                continue
            panels.setdefault((standing.condition, workload), []).extend(
                _panels(here, data, standing, looks)
            )
            for place, value in enumerate(
                (standing.condition, workload, standing.split, here[0].metric)
            ):
                data.insert(place, ("condition", "workload", "split", "metric")[place], value)
            numbers.append(data)
    order = {(s.condition, w): None for s in found for w in s.times.columns}
    groups = [
        Group(
            f"curves_{condition}_{re.sub(r'[^A-Za-z0-9._-]', '_', workload)}",
            f"{workload}, {CONTROL[condition]}",
            panels[condition, workload],
        )
        for condition, workload in order
        if (condition, workload) in panels
    ]
    columns = ["condition", "workload", "split", "metric", *COLUMNS]
    table = pd.concat(numbers, ignore_index=True) if numbers else pd.DataFrame(columns=columns)
    return groups, table


def _panels(
    runs: Sequence[RunRecord], data: pd.DataFrame, standing: Standing, looks: Mapping[str, Look]
) -> list[Panel]:
    run = runs[0]
    ends = [end for run in runs if (end := _early_end(run, standing.split)) is not None]
    label = f"{metric_label(run.metric)} ({better(run.direction)})"
    target = float(standing.targets.get(run.workload, math.nan))
    return [
        Panel(
            f"{standing.split} over {_AXES[x]}".capitalize(),
            curve_panel(Curves(data, ends, x, label, run.direction, target), looks),
        )
        for x in _AXES
    ]


def _early_end(run: RunRecord, split: str) -> tuple[str, int, float, float] | None:
    """Where the curve of a run that diverged or failed ends; None for any other run."""
    if not diverged(run) and run.status == "FINISHED":
        return None
    key = f"{split}/{run.metric}"
    rows = [r for r in history(run, split) if math.isfinite(r.metrics.get(key, math.nan))]
    if not rows:
        return None
    return run.optimizer, rows[-1].step, rows[-1].train_seconds, rows[-1].metrics[key]
