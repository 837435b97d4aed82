"""Learning curves over seeds: mean and range on a common grid of evaluation steps.

Pure: from recorded runs to text, panels and numbers.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.report.cells import below, plain
from timetrial.tracking.report.plots import Line, Panel
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Block, Plot, Plots, Section, Text
from timetrial.tracking.report.standings import CONTROL, Standing
from timetrial.tracking.report.style import better, metric_name
from timetrial.tracking.scores.targets import ended_early, evaluations_of, trials

COLUMNS: Final = ("optimizer", "step", "train_seconds", "mean", "low", "high", "runs")

_KEY: Final = ("condition", "workload", "split", "metric")
_AXES: Final = {Condition.TIME: "train_seconds", Condition.STEP: "step"}
_X_LABELS: Final = {"train_seconds": "charged seconds", "step": "steps"}


def section(results: Results) -> Section:
    """Curves of the deciding metrics, one plot per condition and workload."""
    plots, numbers = curve_plots(results.records, results.standings)
    if plots:
        text = (
            "Mean over seeds; the band shows their range. The dashed line is the target, × the "
            "early end of a run. Only training is charged, not evaluation."
        )
    elif results.published:
        text = "The paper’s tables hold no curves."
    else:
        text = "No run has been evaluated yet."
    blocks: list[Block] = [Text(text), *([Plots(plots, headings=True)] if plots else [])]
    return Section(
        name="curves",
        title="Learning curves",
        menu="Learning curves",
        blocks=blocks,
        frames={"learning_curves": numbers},
    )


def curve_plots(
    records: Sequence[RunRecord], standings: Sequence[Standing]
) -> tuple[list[Plot], pd.DataFrame]:
    """Learning curves of the deciding metrics, as plots and as numbers.

    Returns:
        One plot for each condition and workload, with a panel for each split and axis; and a
        table with columns condition, workload, split, metric and those of ``learning_curves``.
    """
    panels: dict[tuple[Condition, str], list[Panel]] = {
        (standing.condition, w): [] for standing in standings for w in standing.times.columns
    }
    numbers = []
    for standing in standings:
        for here, data in _curves(records, standing):
            workload = here[0].workload
            panels[standing.condition, workload] += _panels(here, data, standing)
            key = (standing.condition, workload, standing.split, here[0].metric)
            for place, (name, value) in enumerate(zip(_KEY, key, strict=True)):
                data.insert(place, name, value)
            numbers.append(data)
    plots = [
        Plot(
            f"curves_{condition}_{re.sub(r'[^A-Za-z0-9._-]', '_', workload)}",
            f"{workload}, {CONTROL[condition]}",
            found,
        )
        for (condition, workload), found in panels.items()
        if found
    ]
    columns = [*_KEY, *COLUMNS]
    table = pd.concat(numbers, ignore_index=True) if numbers else pd.DataFrame(columns=columns)
    return plots, table


def _panels(runs: Sequence[RunRecord], data: pd.DataFrame, standing: Standing) -> list[Panel]:
    """One metric over seconds and over steps, × for early ends, with the target line."""
    return [
        dataclasses.replace(
            curve_panel(runs, data, standing, x),
            title=f"{standing.split} over {x_label}".capitalize(),
        )
        for x, x_label in _X_LABELS.items()
    ]


def front_panels(results: Results, standing: Standing) -> list[Panel]:
    """The deciding metric over the unit of the budget: one panel without bands per workload."""
    found = []
    for runs, data in _curves(results.records, standing):
        panel = curve_panel(runs, data, standing, _AXES[standing.condition], bands=False)
        arrow = "↓" if runs[0].direction is Direction.MINIMIZE else "↑"
        caption = below(f"{metric_name(runs[0].metric)} {arrow}", panel.caption)
        found.append(dataclasses.replace(panel, title=runs[0].workload, caption=caption))
    return found


def pair_panels(
    records: Sequence[RunRecord], standing: Standing, pair: Sequence[str]
) -> list[Panel]:
    """The deciding metric of two optimizers over the unit of the budget, one panel per workload."""
    both = [run for run in records if run.optimizer in pair]
    axis = _AXES[standing.condition]
    return [
        curve_panel(runs, data, standing, axis)
        for runs, data in _curves(both, standing)
        if set(data["optimizer"]) == set(pair)
    ]


def curve_panel(
    runs: Sequence[RunRecord],
    data: pd.DataFrame,
    standing: Standing,
    x: str,
    *,
    bands: bool = True,
) -> Panel:
    """The curves of one workload, with the target line, and × where a run ended early.

    Args:
        runs: the trials of the workload.
        data: their learning curves.
        standing: the target, the split and the condition.
        x: ``train_seconds`` or ``step``.
        bands: whether to draw the range over seeds.
    """
    run = runs[0]
    ends = [end for run in runs if (end := _early_end(run, standing.split)) is not None]
    target = float(standing.targets.get(run.workload, math.nan))
    return Panel(
        title=run.workload,
        caption=f"target {plain(target, 4)}" if math.isfinite(target) else "",
        x_label=_X_LABELS[x],
        y_label=f"{metric_name(run.metric)} ({better(run.direction)})",
        lines=_lines(data, x, bands=bands),
        x_limits=(0.0, math.nan),
        y_limits=limits(data, run.direction, target),
        marks=[(name, step if x == "step" else at, value) for name, step, at, value in ends],
        target=target,
    )


def _curves(
    records: Sequence[RunRecord], standing: Standing
) -> Iterator[tuple[list[RunRecord], pd.DataFrame]]:
    """The trials of each workload, and their learning curves; nothing without evaluations."""
    runs = trials(records, condition=standing.condition)
    for workload in standing.times.columns:
        here = [run for run in runs if run.workload == workload]
        data = learning_curves(here, f"{standing.split}/{here[0].metric}") if here else None
        if data is not None and not data.empty:
            yield here, data


def _lines(data: pd.DataFrame, x: str, *, bands: bool) -> list[Line]:
    """Mean over seeds as a line and their range as a band, for every optimizer."""
    lines = []
    for name, group in data.groupby("optimizer", sort=True):
        rows = thinned(group)
        keys = (x, "mean", "low", "high") if bands else (x, "mean")
        columns = (rows[key].to_numpy(dtype=np.float64) for key in keys)
        lines.append(Line(str(name), *columns))
    return lines


def _early_end(run: RunRecord, split: Split) -> tuple[str, int, float, float] | None:
    """Last finite value of a run that diverged or failed; None for other runs."""
    if not ended_early(run):
        return None
    key = f"{split}/{run.metric}"
    rows = [r for r in evaluations_of(run, split) if math.isfinite(r.metrics.get(key, math.nan))]
    if not rows:
        return None
    return run.optimizer, rows[-1].step, rows[-1].train_seconds, rows[-1].metrics[key]


def limits(data: pd.DataFrame, direction: Direction, target: float) -> tuple[float, float]:
    """Range of the y axis, from the best value to the worst one of interest.

    The worse end is the worst mean after a fifth of an optimizer's steps, but no worse than the
    best optimizer's first value: values beyond would squeeze the curves into a line.
    """
    firsts: list[float] = []
    late: list[float] = []
    best: list[float] = []
    for _, rows in data.groupby("optimizer"):
        means = rows["mean"].to_numpy()
        after = rows["step"].to_numpy() >= 0.2 * rows["step"].max()
        firsts.append(means[0])
        late.extend(means[after])
        best.extend(means)
    if not best:
        return 0.0, 1.0
    values = [*best, *([target] if math.isfinite(target) else [])]
    if direction is Direction.MINIMIZE:
        low, high = min(values), max(min(max(late), max(firsts)), min(values))
    else:
        low, high = min(max(min(late), min(firsts)), max(values)), max(values)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def learning_curves(runs: Sequence[RunRecord], key: str) -> pd.DataFrame:
    """Mean and range over seeds of one metric, for every optimizer.

    The grid of an optimizer is the union of the steps at which its runs were evaluated. Between
    its evaluations a run keeps its last value, after its last one it drops out; values that are
    not finite are left out. Charged seconds at a step are the mean over the runs, interpolated
    between their evaluations; they serve drawing only, no score depends on them.

    Args:
        runs: the trials of one workload and one condition.
        key: ``"<split>/<metric>"``.

    Returns:
        Columns ``COLUMNS``, sorted by optimizer and step; ``runs`` is the number of runs behind
        a point, ``low`` and ``high`` are the smallest and the largest of their values.
    """
    split = Split(key.split("/", 1)[0])
    tables = []
    for optimizer in sorted({run.optimizer for run in runs}):
        histories = [evaluations_of(run, split) for run in runs if run.optimizer == optimizer]
        histories = [rows for rows in histories if rows]
        grid = np.array(sorted({row.step for rows in histories for row in rows}), dtype=np.float64)
        if not len(grid):
            continue
        values = np.array([_on_grid(rows, key, grid) for rows in histories])
        seconds = np.array([_seconds(rows, grid) for rows in histories])
        runs_at = np.isfinite(values).sum(axis=0)
        some = runs_at > 0
        values, seconds = values[:, some], seconds[:, some]
        finite = np.isfinite(values)
        kept = np.where(finite, values, np.nan)
        points = {
            "optimizer": optimizer,
            "step": grid[some].astype(int),
            "train_seconds": np.where(finite, seconds, 0.0).sum(axis=0) / runs_at[some],
            "mean": np.nanmean(kept, axis=0),
            "low": np.nanmin(kept, axis=0),
            "high": np.nanmax(kept, axis=0),
            "runs": runs_at[some],
        }
        tables.append(pd.DataFrame(points))
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(COLUMNS))


def thinned(curve: pd.DataFrame, points: int = 120) -> pd.DataFrame:
    """At most ``points`` rows of a curve, evenly spread, the first and the last included."""
    if len(curve) <= points:
        return curve
    keep = np.unique(np.linspace(0, len(curve) - 1, points).round().astype(int))
    return curve.iloc[keep]


def _on_grid(
    rows: Sequence[Row], key: str, grid: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    steps = np.array([row.step for row in rows])
    values = np.array([row.metrics.get(key, math.nan) for row in rows])
    place = np.searchsorted(steps, grid, side="right") - 1
    within = (place >= 0) & (grid <= steps[-1])
    return np.where(within, values[np.maximum(place, 0)], np.nan)


def _seconds(rows: Sequence[Row], grid: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.interp(grid, [row.step for row in rows], [row.train_seconds for row in rows])
