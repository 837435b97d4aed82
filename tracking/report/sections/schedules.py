"""Learning rates over the steps, and the progress that VeLO is told.

Pure: from computed learning rates and recorded runs to text, panels and numbers.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from timetrial.framework.types import Condition
from timetrial.tracking.report.entrants import TOLD_STEPS
from timetrial.tracking.report.plots import SHARE_LIMITS, Line, Panel
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Block, Plots, Section, Text, plots_of
from timetrial.tracking.report.standings import CONTROL
from timetrial.tracking.scores.targets import trials


def section(results: Results) -> Section:
    """Learning rates per workload, progress told to VeLO per condition and workload."""
    rates, told = results.options.rates, progress_frame(results)
    plots = [
        *plots_of("learning_rates", "Learning rates", rate_panels(rates)),
        *plots_of("progress", "Progress that VeLO is told", progress_panels(told)),
    ]
    blocks: list[Block] = [Text("No learning rates are known for these runs.")]
    if plots:
        shown = "" if results.published else ", shown as its runs received it"
        text = (
            "Learning rate at every update, computed from the optimizers’ settings; it depends on "
            "neither seed nor clock. The axis is logarithmic where rates span a decade or more; a "
            "rate of 0 is not drawn there. Lines in the same place are drawn by turns, as dashes. "
            f"VeLO has no learning rate; its input is the share of training done{shown}."
        )
        blocks = [Text(text), Plots(plots)]
    return Section(
        name="rates",
        title="Learning-rate schedules (figure 2)",
        menu="Learning rates",
        blocks=blocks,
        frames={"learning_rates": rates, "progress": told},
    )


def rate_panels(rates: pd.DataFrame) -> list[Panel]:
    """Learning rate over steps, one panel per workload; columns ``RATE_COLUMNS``."""
    return [
        Panel(
            title=f"{workload}: learning rate",
            x_label="steps",
            y_label="learning rate",
            lines=_lines(rows, "learning_rate"),
            x_limits=(0.0, math.nan),
            y_limits=_rate_limits(rows["learning_rate"]),
            log_y=_spans_decades(rows["learning_rate"]),
        )
        for workload, rows in rates.groupby("workload", sort=True)
    ]


def _spans_decades(rates: pd.Series[float]) -> bool:
    """True for rates > 0 of which the largest is 10 times the smallest, or more."""
    positive = rates[rates > 0]
    return bool(len(positive)) and float(positive.max()) >= 10 * float(positive.min())


def _rate_limits(rates: pd.Series[float]) -> tuple[float, float]:
    """Ends of the axis: 0 and a margin, or half a decade around the rates > 0."""
    if _spans_decades(rates):
        return float(rates[rates > 0].min()) / 2, float(rates.max()) * 2
    return 0.0, 1.08 * float(rates.max()) or 1.0


def progress_panels(told: pd.DataFrame) -> list[Panel]:
    """Share of training done as VeLO is told, over steps."""
    return [
        Panel(
            title=f"{workload}, {CONTROL[Condition(str(condition))]}: progress told to VeLO",
            x_label="steps",
            y_label="share of training done",
            lines=_lines(rows, "share"),
            x_limits=(0.0, math.nan),
            y_limits=SHARE_LIMITS,
        )
        for (condition, workload), rows in told.groupby(["condition", "workload"], sort=False)
    ]


def _lines(rows: pd.DataFrame, y: str) -> list[Line]:
    """One line per optimizer, over steps."""
    lines = []
    for name, group in rows.groupby("optimizer", sort=True):
        points = (group[column].to_numpy(dtype=np.float64) for column in ("step", y))
        lines.append(Line(str(name), *points))
    return lines


def progress_frame(results: Results) -> pd.DataFrame:
    """Columns condition, workload, optimizer, step, share, under time control where it was raced.

    A prompted optimizer divides its steps by its prompt; a fed one is given the used share of the
    budget. The first seed of each.
    """
    names = ["condition", "workload", "optimizer", "step", "share"]
    conditions = {run.condition for run in results.records}
    rows: list[tuple[object, ...]] = []
    condition = Condition.TIME if Condition.TIME in conditions else Condition.STEP
    first: dict[tuple[str, str], int] = {}
    for run in trials(results.records, condition=condition):
        told = float(run.tags.get(TOLD_STEPS, math.nan))
        if math.isnan(told) or first.setdefault((run.workload, run.optimizer), run.seed) < run.seed:
            continue
        fed = results.entrants[run.optimizer].fed
        for row in run.evaluations:
            used = row.train_seconds if run.condition == Condition.TIME else float(row.step)
            share = used / run.budget if fed else row.step / told
            rows.append((condition, run.workload, run.optimizer, row.step, min(share, 1.0)))
    return pd.DataFrame(rows, columns=names)
