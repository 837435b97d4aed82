"""Learning curves over seeds: mean and range on a common grid of evaluation steps.

Pure: from recorded runs to a table; drawing is the business of ``plots``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Split
from timetrial.tracking.scores.targets import evaluations_of

COLUMNS: Final = ("optimizer", "step", "train_seconds", "mean", "low", "high", "runs")


def learning_curves(runs: Sequence[RunRecord], key: str) -> pd.DataFrame:
    """Mean and range over seeds of one metric, for every optimizer.

    The grid of an optimizer is the union of the steps at which its runs were evaluated. Between
    its own evaluations a run keeps its last value, and after its last one it drops out; values
    that are not finite are left out. Charged seconds at a step are the mean over the runs,
    interpolated between their evaluations, for drawing only: no score is read off a curve.

    Args:
        runs: the trials of one workload and one condition.
        key: ``"<split>/<metric>"``.

    Returns:
        Columns ``COLUMNS``, sorted by optimizer and step; ``runs`` is the number of runs behind
        a point, ``low`` and ``high`` are the smallest and the largest of their values.
    """
    split = Split(key.split("/", 1)[0])
    table: list[tuple[object, ...]] = []
    for optimizer in sorted({run.optimizer for run in runs}):
        histories = [evaluations_of(run, split) for run in runs if run.optimizer == optimizer]
        histories = [rows for rows in histories if rows]
        grid = np.array(sorted({row.step for rows in histories for row in rows}), dtype=np.float64)
        if not len(grid):
            continue
        values = np.array([_on_grid(rows, key, grid) for rows in histories])
        seconds = np.array([_seconds(rows, grid) for rows in histories])
        for column, step in enumerate(grid):
            here = np.isfinite(values[:, column])
            if here.any():
                some = values[here, column]
                at = float(seconds[here, column].mean())
                table.append(
                    (optimizer, int(step), at, some.mean(), some.min(), some.max(), len(some))
                )
    return pd.DataFrame(table, columns=list(COLUMNS))


def thinned(curve: pd.DataFrame, points: int = 240) -> pd.DataFrame:
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
