"""What the panels of a report show: profiles, learning curves, scores over r_max.

Pure: from numbers to ``Panel`` values; drawing is the business of ``plots``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from timetrial.framework.types import Direction
from timetrial.tracking.report.curves import thinned
from timetrial.tracking.report.plots import Line, Panel
from timetrial.tracking.report.standings import CONTROL, Standing
from timetrial.tracking.scores.ranks import scores_over_r_max

X_LABELS = {"train_seconds": "charged seconds", "step": "steps"}
"""Axes of the learning curves."""

_SHARES = {0.0: "0", 0.25: "¼", 0.5: "½", 0.75: "¾", 1.0: "1"}


def title(standing: Standing) -> str:
    """``Validation, time control``."""
    return f"{standing.split}, {CONTROL[standing.condition]}".capitalize()


def profile_panel(standing: Standing) -> Panel:
    """Performance profiles: share of workloads over the factor to the fastest, up to r_max."""
    series = []
    for name in standing.ratios.index:
        ratios = np.sort(standing.ratios.loc[name].to_numpy())
        inside = ratios[ratios <= standing.r_max]
        heights = np.arange(len(inside) + 1) / max(len(ratios), 1)
        x = np.concatenate([[1.0], inside, [standing.r_max]])
        series.append(Line(str(name), x, np.append(heights, heights[-1])))
    return Panel(
        title=title(standing),
        x_label=f"τ: at most τ times the {standing.unit} of the fastest",
        y_label="share of workloads",
        series=series,
        x_limits=(1.0, standing.r_max),
        y_limits=(-0.04, 1.04),
        y_ticks=_SHARES,
        steps=True,
        apart=0.006,
    )


def r_max_panel(standing: Standing, limits: Sequence[float]) -> Panel:
    """Score of every optimizer over r_max."""
    table = scores_over_r_max(standing.times, limits)
    x = table.index.to_numpy(dtype=np.float64)
    return Panel(
        title=title(standing),
        x_label="r_max: upper limit of the score",
        y_label="score",
        series=[Line(str(name), x, table[name].to_numpy()) for name in table.columns],
        x_limits=(float(x[0]), float(x[-1])),
        y_limits=(-0.04, 1.04),
        y_ticks=_SHARES,
    )


def curve_panel(
    data: pd.DataFrame,
    ends: Sequence[tuple[str, int, float, float]],
    *,
    title: str,
    x: str,
    label: str,
    direction: Direction,
    target: float,
) -> Panel:
    """Learning curves: mean over seeds as a line, their range as a band, × for an early end.

    Args:
        data: as returned by ``curves.learning_curves``.
        ends: early ends of runs as ``(optimizer, step, train_seconds, value)``.
        title: heading of the panel.
        x: ``train_seconds`` or ``step``.
        label: name of the metric for the axis.
        direction: whether the metric is minimised or maximised.
        target: target line, NaN = none.
    """
    series = []
    for name, group in data.groupby("optimizer", sort=True):
        rows = thinned(group)
        columns = (rows[key].to_numpy(dtype=np.float64) for key in (x, "mean", "low", "high"))
        series.append(Line(str(name), *columns))
    return Panel(
        title=title,
        x_label=X_LABELS[x],
        y_label=label,
        series=series,
        x_limits=(0.0, math.nan),
        y_limits=limits(data, direction, target),
        marks=[(name, step if x == "step" else at, value) for name, step, at, value in ends],
        target=target,
    )


def limits(data: pd.DataFrame, direction: Direction, target: float) -> tuple[float, float]:
    """Range of the y axis: from the best value to the worst that still says something.

    Early values, and whatever is worse than the untrained model, would squeeze the race into a
    line: the worse end is the worst mean after a fifth of an optimizer's steps, but no worse than
    the best optimizer's first value.
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
