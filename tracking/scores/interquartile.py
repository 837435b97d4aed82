"""Interquartile means over workloads and trials, and the coverage of their bootstrap intervals.

Pure: arrays in, numbers out; the simulation is seeded.

Source: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, 2021,
https://arxiv.org/abs/2108.13264 (section 4.3: the mean of the middle half of all runs of all
tasks; more robust than the mean, more precise than the median).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Final

import numpy as np

from timetrial.tracking.scores.coverage import covered
from timetrial.tracking.scores.normalised import WORST, Cells
from timetrial.tracking.scores.resampling import Bootstrap, Floats

_REPETITIONS: Final = 200  # simulated races: the standard error of a coverage of 0.95 is 0.015
_RESAMPLES: Final = 99  # of each
_POOL: Final = 4096  # resamples from which the simulated races take theirs
_QUANTILES: Final = 64  # that stand for a normal distribution


def interquartile_mean(values: Floats, weights: Floats) -> Floats:
    """Mean of the middle half of the weight: twice the integral of the quantiles in [1/4, 3/4].

    With ``n`` equal weights, n divisible by 4, it is the mean of the middle n / 2 values, as
    Agarwal et al. compute it; otherwise a value on the border counts with the part inside.

    Args:
        values: finite, shape ``(..., n)``.
        weights: > 0, shape ``(n,)``; of any sum.

    Returns:
        Shape ``(...)``.
    """
    if np.ptp(weights) <= 1e-12 * weights.max():
        ordered = np.sort(values, axis=-1)
        shares = np.arange(len(weights) + 1) / len(weights)
    else:
        order = np.argsort(values, axis=-1, kind="stable")
        ordered = np.take_along_axis(values, order, axis=-1)
        sums = np.cumsum(weights[order], axis=-1)
        start = np.zeros((*values.shape[:-1], 1))
        shares = np.concatenate([start, sums / sums[..., -1:]], axis=-1)
    inside = np.diff(np.clip(shares, 0.25, 0.75), axis=-1)
    means: Floats = 2 * (ordered * inside).sum(axis=-1)
    return means


def pooled_deviations(cells: Cells) -> dict[str, float]:
    """Standard deviation over trials by workload, pooled over optimizers.

    Trials at ``WORST`` are left out. 0 where no optimizer has two such trials.
    """
    squares: dict[str, float] = {}
    freedom: dict[str, int] = {}
    for (_, workload), values in cells.items():
        known = values[values < WORST]
        squares.setdefault(workload, 0.0)
        freedom.setdefault(workload, 0)
        if len(known) > 1:
            squares[workload] += float(((known - known.mean()) ** 2).sum())
            freedom[workload] += len(known) - 1
    return {w: math.sqrt(squares[w] / max(freedom[w], 1)) for w in squares}


def interval_coverage(
    cells: Mapping[str, Floats], deviations: Mapping[str, float], options: Bootstrap
) -> float:
    """Coverage of the stratified bootstrap's percentile interval of one optimizer, by simulation.

    In 200 simulated races the trials of a workload are normal around the mean of the recorded ones,
    with the workload's standard deviation, cut at ``WORST``; trials at ``WORST`` stay there. The
    truth is the interquartile mean of these distributions.

    Args:
        cells: normalised values by workload.
        deviations: by workload, from ``pooled_deviations``.
        options: level and seed.

    Returns:
        In [0, 1]; NaN where no trial deviates.
    """
    random = np.random.default_rng([options.seed, 2])
    centres, spreads, weights, pool, start = [], [], [], [], 0
    for workload, values in cells.items():
        known = values < WORST
        mean = values[known].mean() if known.any() else WORST
        centres.append(np.where(known, mean, WORST))
        spreads.append(np.where(known, deviations[workload], 0.0))
        weights.append(np.full(len(values), 1 / len(values)))
        pool.append(start + random.integers(0, len(values), (_POOL, len(values))))
        start += len(values)
    centre, spread, weight = map(np.concatenate, (centres, spreads, weights))
    if not spread.any():
        return math.nan
    normal = statistics.NormalDist()
    noise = [normal.inv_cdf((k + 0.5) / _QUANTILES) for k in range(_QUANTILES)]
    exact = np.minimum(centre + np.outer(noise, spread), WORST)
    truth = interquartile_mean(exact.ravel(), np.tile(weight, _QUANTILES))
    trials = np.minimum(centre + spread * random.normal(size=(_REPETITIONS, start)), WORST)
    rows = random.integers(0, _POOL, (_REPETITIONS, _RESAMPLES))
    drawn = np.concatenate(pool, axis=1)[rows]
    samples = interquartile_mean(np.take_along_axis(trials[:, None], drawn, axis=-1), weight)
    return float(covered(samples, np.full(_REPETITIONS, truth), options.level).mean())
