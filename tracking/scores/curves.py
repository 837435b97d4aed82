"""Learning curves of the runs that count, as arrays: the input of aggregates and tests.

Pure: functions of ``RunRecord``. Reading the evaluations is the slow part; done once here, targets
can be set and times be read off many times.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.scores.evaluations import MetricValues, metric_values
from timetrial.tracking.scores.targets import ended_early, trials, value_at

Floats = npt.NDArray[np.float64]
Metric = Literal["deciding", "loss"]
"""Which metric of a workload: the one that decides the race, or the loss."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """One metric of one run.

    Attributes:
        run: the run.
        direction: of the metric.
        found: steps, seconds and values of its evaluations.
        moments: seconds or steps of the evaluations, in the unit of the budget.
        ended_early: True when the run diverged or failed: it has no final value.
    """

    run: RunRecord
    direction: Direction
    found: MetricValues
    moments: Floats
    ended_early: bool

    @property
    def cell(self) -> tuple[str, str]:
        """Optimizer and workload."""
        return self.run.optimizer, self.run.workload

    @property
    def final(self) -> float:
        """Value of the last evaluation; NaN if the run ended early or has none."""
        values = self.found.values
        return math.nan if self.ended_early or not len(values) else float(values[-1])

    @property
    def best(self) -> float:
        """Best finite value of any evaluation; NaN if there is none."""
        values = self.found.values
        return self.direction.best(values[np.isfinite(values)].tolist())

    def at_share(self, at: float) -> float:
        """Value at a share of the budget (``targets.value_at``); the worst infinity without one."""
        value = value_at(self.run, self.found, at)
        return value if math.isfinite(value) else self.direction.worst

    def times_to(self, goals: Floats) -> Floats:
        """Time to each of several targets, in the unit of the budget, by ``first_hit``'s rules.

        Args:
            goals: any shape; NaN is never reached.

        Returns:
            The same shape; ``inf`` = never.
        """
        values, moments = self.found.values, self.moments
        known = np.isfinite(moments)
        so_far = np.maximum.accumulate(np.where(known, moments, -math.inf))
        sign = self.direction.sign
        costs = np.where(known & np.isfinite(values), sign * values, math.inf)
        lowest = np.minimum.accumulate(costs)
        # The first place at or below a goal, in an array that never rises.
        places = np.searchsorted(-lowest, -sign * goals, side="left")
        reached = (places < len(lowest)) & ~np.isnan(goals)
        if not reached.any():
            return np.full(np.shape(goals), math.inf)
        return np.where(reached, so_far[np.minimum(places, len(lowest) - 1)], math.inf)


def curves(
    records: Sequence[RunRecord],
    *,
    split: Split,
    condition: Condition,
    metric: Metric = "deciding",
) -> list[Curve]:
    """The curves of the runs that count (``targets.trials``), by workload, optimizer and seed.

    Args:
        records: runs, in any order; other conditions are ignored.
        split: ``train``, ``validation`` or ``test``.
        condition: ``time`` or ``step``.
        metric: ``deciding`` or ``loss``.

    Raises:
        ValueError: unknown condition or metric.
    """
    if metric not in ("deciding", "loss"):
        raise ValueError(f"metric: expected deciding or loss, got {metric!r}")
    found = []
    for run in trials(records, condition=condition):
        name, direction = run.metric, run.direction
        if metric == "loss":
            name, direction = "loss", Direction.MINIMIZE
        values = metric_values(run, f"{split}/{name}")
        moments = values.seconds if run.condition == Condition.TIME else values.steps
        found.append(Curve(run, direction, values, moments, ended_early(run)))
    return found
