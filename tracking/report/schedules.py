"""Learning rates over the steps, and how far a learned optimizer believes its training to be.

Pure: from computed schedules and recorded runs to panels; the schedules themselves belong to the
optimizers and come with the call.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import pandas as pd

from timetrial.framework.types import Condition
from timetrial.tracking.report.plots import Line, Panel
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.standings import CONTROL
from timetrial.tracking.report.style import family
from timetrial.tracking.scores.targets import trials

COLUMNS: Final = ("workload", "optimizer", "step", "learning_rate")
"""Columns of a table of schedules."""

_PROMPT: Final = "velo.num_steps"  # tag: the number of steps that VeLO was told of


def rate_panels(schedules: pd.DataFrame) -> list[Panel]:
    """Learning rate over steps, one panel per workload.

    Args:
        schedules: columns ``COLUMNS``, in order of step.
    """
    panels = []
    for workload, rows in schedules.groupby("workload", sort=True):
        series = [
            Line(
                str(name),
                group["step"].to_numpy(dtype=np.float64),
                group["learning_rate"].to_numpy(dtype=np.float64),
            )
            for name, group in rows.groupby("optimizer", sort=True)
        ]
        panels.append(
            Panel(
                title=f"{workload}: learning rate",
                x_label="steps",
                y_label="learning rate",
                series=series,
                x_limits=(0.0, math.nan),
                apart=0.004 * float(rows["learning_rate"].max()),
            )
        )
    return panels


def progress_panels(results: Results) -> list[Panel]:
    """Share of its training that VeLO is told is over, by steps made; the first seed of each."""
    rows = progress_frame(results)
    panels = []
    for (condition, workload), here in rows.groupby(["condition", "workload"], sort=False):
        series = [
            Line(
                str(name),
                group["step"].to_numpy(dtype=np.float64),
                group["share"].to_numpy(dtype=np.float64),
            )
            for name, group in here.groupby("optimizer", sort=True)
        ]
        panels.append(
            Panel(
                title=f"{workload}, {CONTROL[Condition(str(condition))]}: what VeLO is told",
                x_label="steps",
                y_label="share of its training that is over",
                series=series,
                x_limits=(0.0, math.nan),
                y_limits=(-0.04, 1.04),
            )
        )
    return panels


def progress_frame(results: Results) -> pd.DataFrame:
    """Columns condition, workload, optimizer, step, share, under time control where it was raced.

    A prompted optimizer counts its steps and divides by the number it was told of; a fed one is
    told the used share of its budget.
    """
    names = ["condition", "workload", "optimizer", "step", "share"]
    conditions = {run.condition for run in results.records}
    rows: list[tuple[object, ...]] = []
    condition = Condition.TIME if Condition.TIME in conditions else Condition.STEP
    first: dict[tuple[str, str], int] = {}
    for run in trials(results.records, condition=condition):
        told = float(run.tags.get(_PROMPT, math.nan))
        if math.isnan(told) or first.setdefault((run.workload, run.optimizer), run.seed) < run.seed:
            continue
        fed = family(run.optimizer) == "velo_feed"
        for row in run.evaluations:
            used = row.train_seconds if run.condition == Condition.TIME else float(row.step)
            share = used / run.budget if fed else row.step / told
            rows.append((condition, run.workload, run.optimizer, row.step, min(share, 1.0)))
    return pd.DataFrame(rows, columns=names)
