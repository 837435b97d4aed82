"""The best common level of a workload, and the times to it.

Pure: from curves to numbers.

A target that only some optimizers reach gives the others an infinite time. The best common level is
the best value that all optimizers reach in the median over their trials, so that all times are
finite and can be compared.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from timetrial.framework.types import Direction
from timetrial.tracking.scores.curves import Curve, Floats
from timetrial.tracking.scores.normalised import Cells, by_workload, untrained


@dataclasses.dataclass(frozen=True)
class LevelTimes:
    """Times to the levels, in the unit of the budget.

    Attributes:
        workloads: those with a level, sorted.
        trials: times by optimizer and workload, > 0, ``inf`` = never; no entry without a run.
        limits: by workload, what never counts as: the budget, the least it would have taken.
    """

    workloads: list[str]
    trials: Cells
    limits: Floats


def common_levels(curves: Sequence[Curve]) -> dict[str, float]:
    """The best value by workload that all optimizers reach in the median over their trials.

    An optimizer whose median trial ended early, or never was better than untrained, sets no level:
    it may miss those of the others. A workload on which all are like that has no level.
    """
    found = {}
    for workload, runs in by_workload(curves).items():
        direction = runs[0].direction
        start = untrained(runs)
        reached: dict[str, list[float]] = {}
        for curve in runs:
            best = math.nan if curve.ended_early else curve.best
            reached.setdefault(curve.run.optimizer, []).append(best)
        medians = [_in_the_median(values, direction) for values in reached.values()]
        levels = [v for v in medians if v != start and direction.best([v, start]) == v]
        if levels:
            found[workload] = max(levels) if direction is Direction.MINIMIZE else min(levels)
    return found


def level_times(curves: Sequence[Curve], levels: Mapping[str, float]) -> LevelTimes:
    """Time of the first evaluation at or beyond the level, of every trial.

    A level that the untrained model reaches by luck takes the first moment above 0.
    """
    trials: dict[tuple[str, str], list[float]] = {}
    limits: dict[str, float] = {}
    for workload, runs in by_workload(curves).items():
        moments = np.concatenate([curve.moments for curve in runs])
        moments = moments[np.isfinite(moments) & (moments > 0)]
        if workload not in levels or not len(moments):
            continue
        goal = np.array([levels[workload]])
        times = [max(float(curve.times_to(goal)[0]), float(moments.min())) for curve in runs]
        longest = max((time for time in times if math.isfinite(time)), default=0.0)
        limits[workload] = max(longest, *(curve.run.budget for curve in runs))
        for curve, time in zip(runs, times, strict=True):
            trials.setdefault(curve.cell, []).append(time)
    workloads = sorted(limits)
    cells = {cell: np.array(values) for cell, values in trials.items()}
    return LevelTimes(workloads, cells, np.array([limits[w] for w in workloads]))


def _in_the_median(values: Sequence[float], direction: Direction) -> float:
    """The best level with a finite median time: n // 2 + 1 trials reach it."""
    costs = np.sort(np.nan_to_num(direction.sign * np.array(values), nan=math.inf))
    cost = float(costs[len(costs) // 2])
    return direction.sign * cost if math.isfinite(cost) else math.nan
