"""Aggregates of a race that have no floor, beside the profile score.

Pure: from curves to tables; seeded, and the order of runs never matters.

A profile score is 0 for every optimizer that never reaches a target within a factor r_max of the
fastest, however far from it. These four tell such optimizers apart. They count diverged and failed
runs as the worst possible, never leave a run out, and use the workloads that
``normalised.scales`` knows. What is normalised lies between 1 (untrained) and 0.

Sources: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, 2021,
https://arxiv.org/abs/2108.13264 (interquartile mean, optimality gap, stratified bootstrap); Dahl et
al., Benchmarking Neural Network Training Algorithms, 2023, https://arxiv.org/abs/2306.07179
(speed-ups as geometric means over workloads); Satterthwaite, An Approximate Distribution of
Estimates of Variance Components, 1946, https://doi.org/10.2307/3002019 (t intervals of a mean over
groups of unequal variance).
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Split
from timetrial.tracking.scores.coverage import medians_coverage
from timetrial.tracking.scores.curves import Curve, Floats, Metric, curves
from timetrial.tracking.scores.interquartile import (
    interquartile_mean,
    interval_coverage,
    pooled_deviations,
)
from timetrial.tracking.scores.levels import common_levels, level_times
from timetrial.tracking.scores.normalised import (
    WORST,
    Cells,
    area_cells,
    final_cells,
    gap_cells,
    optimizers_of,
    scales,
)
from timetrial.tracking.scores.ranks import places
from timetrial.tracking.scores.resampling import Bootstrap, draw, interval, median_of_draws
from timetrial.tracking.scores.uncertainty import ENOUGH_TRIALS

COLUMNS: Final = (
    *("optimizer", "measure", "estimate", "low", "high", "coverage"),
    *("workloads", "trials", "few", "rank", "tie"),
)
"""Columns of every table of aggregates.

``coverage`` is the true coverage of the interval, NaN where it is not known; ``workloads`` the
number of workloads in the aggregate; ``trials`` the fewest on any of them; ``few`` marks fewer than
3; ``rank`` is 1 for the best; ``tie`` marks equal estimates, which share a place.
"""


class _Estimate(NamedTuple):
    value: float
    low: float
    high: float
    coverage: float


_NOTHING: Final = _Estimate(math.nan, math.nan, math.nan, math.nan)


def aggregates(
    records: Sequence[RunRecord],
    *,
    split: Split,
    condition: Condition,
    metric: Metric = "deciding",
    targets: Mapping[str, float] | pd.Series[float] | None = None,
    baseline: str | None = None,
    options: Bootstrap | None = None,
) -> pd.DataFrame:
    """All four aggregates of one condition and split, one below the other.

    The caller decides whether the seconds of the runs may be compared (``machines.differences``).

    Args:
        records: runs, in any order; other conditions are ignored.
        split: ``train``, ``validation`` or ``test``.
        condition: ``time`` or ``step``.
        metric: ``deciding`` or ``loss``.
        targets: as for ``optimality_gap``, of the same metric.
        baseline: as for ``common_speedup``.
        options: samples, seed and level.

    Returns:
        ``COLUMNS``; measures ``normalised_final``, ``optimality_gap``, ``speedup``, ``curve_area``.
    """
    found = curves(records, split=split, condition=condition, metric=metric)
    goals = None if targets is None else {str(w): float(t) for w, t in targets.items()}
    tables = [
        normalised_final(found, options=options),
        optimality_gap(found, goals, options=options),
        common_speedup(found, baseline, options=options),
        curve_area(found, options=options),
    ]
    return pd.concat(tables, ignore_index=True)


def normalised_final(curves: Sequence[Curve], *, options: Bootstrap | None = None) -> pd.DataFrame:
    """Interquartile mean over workloads and seeds of the normalised final metric; less is better.

    Every workload weighs the same, whatever its number of trials. The interval is the percentile
    interval of a stratified bootstrap, with the normalisation fixed. Its coverage comes from 200
    simulated races (``interquartile.interval_coverage``).
    """
    options = options or Bootstrap()
    cells = final_cells(curves, scales(curves))
    deviations = pooled_deviations(cells)

    def estimate(optimizer: str) -> _Estimate:
        mine = {w: values for (o, w), values in cells.items() if o == optimizer}
        weights = np.concatenate([np.full(len(v), 1 / len(v)) for v in mine.values()])
        value = interquartile_mean(np.concatenate([*mine.values()]), weights)
        drawn = [v[draw(len(v), (w, optimizer), options)] for w, v in mine.items()]
        samples = interquartile_mean(np.concatenate(drawn).T, weights)
        low, high = (float(end) for end in interval(samples, value, _percentile(options)))
        known = low < high
        coverage = interval_coverage(mine, deviations, options) if known else math.nan
        return _Estimate(float(value), low, high, coverage)

    return _table(curves, "normalised_final", _workloads(cells), estimate, larger_is_better=False)


def optimality_gap(
    curves: Sequence[Curve],
    targets: Mapping[str, float] | None = None,
    *,
    options: Bootstrap | None = None,
) -> pd.DataFrame:
    """Mean share of the way from untrained to the target that is left at the end; less is better.

    Agarwal et al.'s optimality gap with the target as the value beyond which more is not needed: 0
    for a run that ends at or beyond the target, 1 for one without any progress.

    Args:
        curves: of the metric of the targets.
        targets: by workload; None takes the best run's final value.
        options: level. The interval is a t interval of the mean over workloads of means over
            trials, with Satterthwaite's degrees of freedom, cut at the worst and best possible
            value; NaN where the optimizer has one trial only on some workload. Its coverage is
            about the level for normal errors; NaN where some trials of a workload are the worst
            possible and others are not, which no normal distribution gives.
    """
    known = scales(curves)
    goals = {w: scale.best for w, scale in known.items()} if targets is None else targets
    return _means(curves, "optimality_gap", gap_cells(curves, known, goals), options, least=0.0)


def curve_area(curves: Sequence[Curve], *, options: Bootstrap | None = None) -> pd.DataFrame:
    """Mean over budget, workloads and seeds of the normalised metric; less is better.

    It rewards an optimizer for being good early, not only at a target or at the end. Interval and
    coverage as for ``optimality_gap``.
    """
    return _means(curves, "curve_area", area_cells(curves, scales(curves)), options)


def common_speedup(
    curves: Sequence[Curve], baseline: str | None = None, *, options: Bootstrap | None = None
) -> pd.DataFrame:
    """Geometric mean over workloads of the speed-up to the best common level; more is better.

    The speed-up is ``exp(mean over w of log(t[reference, w] / t[a, w]))``, with the geometric mean
    over all optimizers as reference, or a baseline. Times are medians over trials of the time to
    ``levels.common_levels``, which nearly nobody misses: no workload is lost to infinite times.

    Args:
        curves: times are in the unit of their budget.
        baseline: label of the reference; None for the geometric mean.
        options: samples, seed and level. The percentile interval resamples trials with fixed
            levels; its coverage is that of ``coverage.medians_coverage``.

    Raises:
        KeyError: no such baseline.
    """
    options = options or Bootstrap()
    names = optimizers_of(curves)
    if baseline is not None and baseline not in names:
        raise KeyError(f"baseline: expected one of {', '.join(names)}, got {baseline!r}")
    times = level_times(curves, common_levels(curves))
    if not times.workloads:
        return _table(curves, "speedup", [], lambda _: _NOTHING, larger_is_better=True)
    medians = np.full((len(names), len(times.workloads)), math.inf)
    samples = np.full((*medians.shape, options.samples), math.inf)
    placed = {}
    for (name, workload), values in times.trials.items():
        at = names.index(name), times.workloads.index(workload)
        placed[at], medians[at] = values, np.median(values)
        samples[at] = median_of_draws(values, draw(len(values), (workload, name), options))

    def speedups(found: Floats) -> list[Floats]:
        logs = np.log(np.minimum(found, times.limits[:, None])).mean(axis=1)
        base = logs.mean(axis=0) if baseline is None else logs[names.index(baseline)]
        return [np.exp(base - logs)]

    value = speedups(medians[..., None])[0][:, 0]
    low, high = interval(speedups(samples)[0], value, _percentile(options))
    (coverage,) = medians_coverage(placed, medians, speedups, options)
    ends = zip(value, low, high, np.where(low < high, coverage, math.nan), strict=True)
    rows = {name: _Estimate(*map(float, row)) for name, row in zip(names, ends, strict=True)}
    return _table(curves, "speedup", times.workloads, rows.__getitem__, larger_is_better=True)


def _means(
    curves: Sequence[Curve],
    measure: str,
    cells: Cells,
    options: Bootstrap | None,
    *,
    least: float = -math.inf,
) -> pd.DataFrame:
    """Means over workloads of means over trials, with t intervals in ``[least, WORST]``."""
    level = (options or Bootstrap()).level
    counts = Counter(curve.cell for curve in curves)

    def estimate(optimizer: str) -> _Estimate:
        mine = {cell: values for cell, values in cells.items() if cell[0] == optimizer}
        mean = float(np.mean([values.mean() for values in mine.values()]))
        if any(counts[cell] == 1 for cell in mine):
            return _Estimate(mean, math.nan, math.nan, math.nan)
        several = [values for cell, values in mine.items() if counts[cell] > 1]
        half = _half_width(several, level) / len(mine)
        mixed = any(values.min() < values.max() == WORST for values in several)
        coverage = level if half > 0 and not mixed else math.nan
        return _Estimate(mean, max(mean - half, least), min(mean + half, WORST), coverage)

    return _table(curves, measure, _workloads(cells), estimate, larger_is_better=False)


def _half_width(groups: Sequence[Floats], level: float) -> float:
    """Half the t interval of the sum of the groups' means (Satterthwaite)."""
    errors = np.array([values.var(ddof=1) / len(values) for values in groups])
    total = float(errors.sum())
    if not total > 0:
        return 0.0
    freedom = total**2 / sum(e**2 / (len(v) - 1) for e, v in zip(errors, groups, strict=True))
    return float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(total)


def _table(
    curves: Sequence[Curve],
    measure: str,
    workloads: Sequence[str],
    estimate: Callable[[str], _Estimate],
    *,
    larger_is_better: bool,
) -> pd.DataFrame:
    """One row per optimizer, sorted by label; NaN where no workload can be compared."""
    names = optimizers_of(curves)
    counts = Counter(curve.cell for curve in curves)
    rows = []
    for name in names:
        found = estimate(name) if workloads else _NOTHING
        trials = min((counts[name, w] for w in workloads), default=0)
        rows.append((name, measure, *found, len(workloads), trials, trials < ENOUGH_TRIALS))
    table = pd.DataFrame(rows, columns=list(COLUMNS[:-2]))
    return table.join(places(table["estimate"], larger_is_better=larger_is_better))


def _workloads(cells: Cells) -> list[str]:
    return sorted({workload for _, workload in cells})


def _percentile(options: Bootstrap) -> Bootstrap:
    return dataclasses.replace(options, method="percentile")
