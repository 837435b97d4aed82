"""Normalised metrics: 1 is the untrained model, 0 the best run of the workload at its end.

Pure: from curves to cells of numbers.

``normalised = (value - best) / (untrained - best)``, for losses and for metrics that rise alike. It
is 1 minus the normalised score of Agarwal et al., who take a random agent for the untrained model
and the best known agent for the best. Both ends belong to the workload: the untrained model is the
same for all optimizers, and no optimizer moves another one's value, except the best run. (Between
the worst and the best optimizer, one bad entrant would make all others look alike.) As large a
share of the possible progress counts alike on every workload, whatever its unit.

The worst possible value is 1. It stands for runs that diverged or failed, for values that are not
finite or worse than untrained, and for an optimizer without any run on a workload.

Source: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, 2021,
https://arxiv.org/abs/2108.13264 (section 2 and appendix A.3).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from timetrial.tracking.scores.curves import Curve, Floats

WORST: Final = 1.0
"""Normalised value of no progress at all."""

Cells = dict[tuple[str, str], Floats]
"""Values of the trials by optimizer and workload."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """The two ends of a workload's normalised metric.

    Attributes:
        untrained: median over runs of the evaluation before the first update; where no run has
            one, of the first evaluation.
        best: best final value of any run.
    """

    untrained: float
    best: float

    def __call__(self, values: Floats) -> Floats:
        """Normalised values, at most ``WORST``; those that are not finite are ``WORST``."""
        shares = (values - self.best) / (self.untrained - self.best)
        return np.where(np.isfinite(values), np.minimum(shares, WORST), WORST)

    def gap(self, values: Floats, target: float) -> Floats:
        """Share of the way from untrained to a target that is left, in [0, 1]; worst is 1."""
        span = self.untrained - target
        left = (values - target) / span if span else np.zeros(len(values))
        return np.where(np.isfinite(values), np.clip(left, 0.0, WORST), WORST)


def by_workload(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Curves by workload, in their order."""
    found: dict[str, list[Curve]] = {}
    for curve in curves:
        found.setdefault(curve.run.workload, []).append(curve)
    return found


def optimizers_of(curves: Sequence[Curve]) -> list[str]:
    """Labels of all optimizers, sorted."""
    return sorted({curve.run.optimizer for curve in curves})


def scales(curves: Sequence[Curve]) -> dict[str, Scale]:
    """The scale of every workload on which some run ended better than untrained.

    Other workloads have none: nothing can be compared on them.
    """
    found = {}
    for workload, runs in by_workload(curves).items():
        direction = runs[0].direction
        ends = [curve.final for curve in runs if math.isfinite(curve.final)]
        scale = Scale(untrained(runs), direction.best(ends))
        better = direction.best([scale.untrained, scale.best]) == scale.best
        if math.isfinite(scale.untrained) and better and scale.best != scale.untrained:
            found[workload] = scale
    return found


def untrained(runs: Sequence[Curve]) -> float:
    """Value of the untrained model, from the runs of one workload; NaN without evaluations."""
    known = [curve.found for curve in runs if len(curve.found.values)]
    before = [found.values[0] for found in known if found.steps[0] == 0]
    values = np.array(before or [found.values[0] for found in known])
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else math.nan


def final_cells(curves: Sequence[Curve], scales: Mapping[str, Scale]) -> Cells:
    """Normalised final values."""
    return _cells(curves, scales, lambda curve, scale: float(scale(np.array([curve.final]))[0]))


def gap_cells(
    curves: Sequence[Curve], scales: Mapping[str, Scale], targets: Mapping[str, float]
) -> Cells:
    """``Scale.gap`` of the final values to the targets, on the workloads that have both."""
    usable = {w: s for w, s in scales.items() if math.isfinite(targets.get(w, math.nan))}

    def gap(curve: Curve, scale: Scale) -> float:
        return float(scale.gap(np.array([curve.final]), targets[curve.run.workload])[0])

    return _cells(curves, usable, gap)


def area_cells(curves: Sequence[Curve], scales: Mapping[str, Scale]) -> Cells:
    """Mean over the budget of the normalised metric: the area under the learning curve.

    Between evaluations the curve is a straight line. Before the first evaluation it is ``WORST``,
    and after the last one of a run that ended early; else the last value holds to the end.
    """
    return _cells(curves, scales, _area)


def _area(curve: Curve, scale: Scale) -> float:
    limit = curve.run.budget
    known = np.isfinite(curve.moments)
    if not (limit > 0 and known.any()):
        return WORST
    shares = np.maximum.accumulate(curve.moments[known]) / limit
    values = scale(curve.found.values[known])
    rest = WORST if curve.ended_early else float(values[-1])
    x = np.concatenate([[0.0, shares[0]], shares, [shares[-1], 1.0]])
    y = np.concatenate([[WORST, WORST], values, [rest, rest]])
    beyond = int(np.searchsorted(x, 1.0, side="right"))  # the first share above 1, if any
    if beyond < len(x):
        part = (1.0 - x[beyond - 1]) / (x[beyond] - x[beyond - 1])
        last = y[beyond - 1] + part * (y[beyond] - y[beyond - 1])
        x, y = np.append(x[:beyond], 1.0), np.append(y[:beyond], last)
    return float(np.trapezoid(y, x))


def _cells(
    curves: Sequence[Curve],
    scales: Mapping[str, Scale],
    value: Callable[[Curve, Scale], float],
) -> Cells:
    """One value per curve, by cell; a cell without a run has one value, ``WORST``."""
    found: dict[tuple[str, str], list[float]] = {}
    for curve in curves:
        if curve.run.workload in scales:
            one = value(curve, scales[curve.run.workload])
            found.setdefault(curve.cell, []).append(one)
    return {
        (optimizer, workload): np.array(found.get((optimizer, workload), [WORST]))
        for optimizer in optimizers_of(curves)
        for workload in scales
    }
