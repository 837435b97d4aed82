"""True coverage of intervals from few trials, and t intervals of means.

Pure: arrays in, numbers out; simulations are seeded.

The coverage of an interval is the probability that it contains the truth. With few trials that of a
bootstrap interval is below its nominal level: the interval of a median of 3 trials is their range,
which misses the true median whenever all 3 lie on one side of it, with probability 1/4.

Sources: Student, The Probable Error of a Mean, 1908, https://doi.org/10.1093/biomet/6.1.1 (t
intervals); Thompson, On Confidence Ranges for the Median and Other Expectation Distributions for
Populations of Unknown Distribution Form, 1936, https://doi.org/10.1214/aoms/1177732563 (intervals
between order statistics); Efron, Bootstrap Methods: Another Look at the Jackknife, 1979,
https://doi.org/10.1214/aos/1176344552 (section 3: the bootstrap of a median, exactly); Beran,
Prepivoting to Reduce Level Error of Confidence Sets, 1987, https://doi.org/10.1093/biomet/74.3.457
(coverage from samples of the fitted distribution).
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from scipy.special import stdtrit

from timetrial.tracking.scores.resampling import Bootstrap, Draws, Floats, draw
from timetrial.tracking.scores.scoring import areas, ratios_to_best

REPETITIONS: Final = 400
"""Simulated experiments; the standard error of a coverage of 0.95 is 0.011, of 0.75 0.022."""

_MEDIANS: Final = 4000  # simulated samples for a median: standard error 0.004 at 0.95
RESAMPLES: Final = 199
"""Resamples of each simulated experiment."""

_POOL: Final = 4096  # resamples of one cell from which simulated experiments take theirs


def t_interval(values: Floats, level: float) -> tuple[float, float]:
    """Student's interval of the mean: mean -+ t * s / sqrt(n) with n - 1 degrees of freedom.

    Its coverage is ``level`` for normal values, and close to it for symmetric ones.

    Args:
        values: finite, shape ``(n,)``.
        level: in (0, 1).

    Returns:
        Low and high; NaN for fewer than two values, which tell nothing about their spread.
    """
    if len(values) < 2:
        return math.nan, math.nan
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * error
    return mean - half, mean + half


def median_coverage(trials: int, level: float) -> float:
    """Coverage of the percentile bootstrap interval of a median.

    For an odd number of trials the median of a resample is one of them. The interval then reaches
    from the l-th smallest to the u-th smallest one, with l the first that has ``P(Bin(n, l / n) >=
    (n + 1) / 2) >= (1 - level) / 2``. It covers the true median with probability ``sum of C(n, i)
    / 2^n for i = l ... u - 1``, for all continuous distributions, and at least that for others:
    0 for 1 trial, 0.75 for 3, 0.9375 for 5 (level 0.95). All resamples count as taken.

    For an even number the range of the trials has ``1 - 2 / 2^n`` in the same way (0.5 for 2,
    0.875 for 4). Where the interval ends between two trials, its coverage depends on the
    distribution; then it comes from 4000 simulated samples of normal values.

    Returns:
        In [0, 1]; NaN without trials.
    """
    if trials < 1:
        return math.nan
    tail = (1 - level) / 2
    if trials % 2:
        below = [_at_least((trials + 1) // 2, trials, rank / trials) for rank in range(trials + 1)]
        low = next(rank for rank, share in enumerate(below) if share >= tail)
        high = next(rank for rank, share in enumerate(below) if share >= 1 - tail)
        return float(sum(math.comb(trials, i) for i in range(low, high)) / 2**trials)
    if _at_least(trials // 2 + 1, trials, 1 / trials) >= tail:
        return 1 - float(2 / 2**trials)
    return _even_median_coverage(trials, tail)


def race_coverage(
    cells: Mapping[tuple[int, int], Floats],
    times: Floats,
    *,
    r_max: float,
    taus: Sequence[float] | Floats | None,
    options: Bootstrap,
) -> tuple[Floats, Floats]:
    """Coverage of the percentile intervals of ratios and scores: ``medians_coverage``.

    Args:
        cells: as for ``medians_coverage``.
        times: as for ``medians_coverage``.
        r_max: as for ``scoring.scores``.
        taus: as for ``scoring.scores``.
        options: level and seed.

    Returns:
        Shapes ``(optimizers, workloads)`` and ``(optimizers,)``.
    """

    def ratios_and_scores(medians: Floats) -> tuple[Floats, Floats]:
        ratios = ratios_to_best(medians, 0)
        return ratios, areas(ratios, r_max=r_max, taus=taus).mean(axis=1)

    if not times.size:
        return np.full(times.shape, math.nan), np.full(len(times), math.nan)
    of_ratios, of_scores = medians_coverage(cells, times, ratios_and_scores, options)
    return of_ratios, of_scores


def medians_coverage(
    cells: Mapping[tuple[int, int], Floats],
    times: Floats,
    statistics_of: Callable[[Floats], Sequence[Floats]],
    options: Bootstrap,
) -> list[Floats]:
    """Coverage of the percentile intervals of statistics of medians, from simulated races.

    ``REPETITIONS`` simulated races resemble the recorded one. The true median of each cell is the
    recorded one; log times are normal around it, with one standard deviation for all cells (the
    pooled one of the recorded finite times). A cell with a median of never or 0 stays so. Targets
    are fixed, times are not rounded to evaluations.

    Args:
        cells: times of the trials by place in ``times``.
        times: medians, shape ``(optimizers, workloads)``.
        statistics_of: from medians, shape ``(optimizers, workloads, n)``, to statistics, each of a
            shape ``(..., n)``.
        options: level and seed.

    Returns:
        Per statistic its coverage in [0, 1], shape ``(...)``. NaN where no cell has two different
        finite times: nothing is known about the spread then.
    """
    truths = [found[..., 0] for found in statistics_of(times[..., None])]
    spread = _pooled_deviation(list(cells.values()))
    if math.isnan(spread):
        return [np.full(truth.shape, math.nan) for truth in truths]
    counts = np.zeros(times.shape, dtype=int)
    for place, values in cells.items():
        counts[place] = len(values)
    race = _SimulatedRace(times, counts, spread, np.random.default_rng([options.seed, 1]))
    hits = [np.zeros(truth.shape) for truth in truths]
    for _ in range(REPETITIONS):
        found = statistics_of(race.medians())
        for hit, samples, truth in zip(hits, found, truths, strict=True):
            hit += covered(samples, truth, options.level)
    return [hit / REPETITIONS for hit in hits]


def improvement_coverage(trials: int, workloads: int, probability: float, level: float) -> float:
    """Coverage of the percentile interval of a probability of improvement, by simulation.

    Values are normal with equal deviations, on every workload shifted so that the probability is
    the given one (rounded to a multiple of 0.1, at most 0.95), with the same number of trials.

    Args:
        trials: of each optimizer on each workload, >= 1.
        workloads: >= 1.
        probability: estimated, in [0, 1].
        level: nominal, in (0, 1).

    Returns:
        In [0, 1], from ``REPETITIONS`` races.
    """
    rounded = round(max(probability, 1 - probability), 1)
    return _improvement_coverage(trials, workloads, min(rounded, 0.95), level)


@functools.cache
def _improvement_coverage(trials: int, workloads: int, truth: float, level: float) -> float:
    random = np.random.default_rng([trials, workloads])
    shift = math.sqrt(2) * statistics.NormalDist().inv_cdf(truth)
    taken = random.multinomial(trials, [1 / trials] * trials, _POOL).astype(np.float64)
    hits = 0
    for _ in range(REPETITIONS):
        one = random.normal(-shift, 1, (workloads, trials, 1))
        other = random.normal(0, 1, (workloads, 1, trials))
        better = (one < other).astype(np.float64)
        mine, theirs = taken[random.integers(0, _POOL, (2, workloads, RESAMPLES))]
        shares = ((mine @ better) * theirs).sum(axis=-1).mean(axis=0) / trials**2
        hits += int(covered(shares, np.asarray(truth), level))
    return hits / REPETITIONS


def covered(samples: Floats, truth: Floats, level: float) -> Draws:
    """1 where ``resampling.interval`` of samples, along the last axis, contains the truth."""
    number = samples.shape[-1]
    tail = (1 - level) / 2
    low, high = (math.ceil(share * number - 1e-9) for share in (tail, 1 - tail))
    exact = truth[..., None]
    rounding = np.where(np.isfinite(exact), 1e-12, 0.0)
    at_most = (samples <= exact + rounding).sum(axis=-1)
    less = (samples < exact - rounding).sum(axis=-1)
    return np.asarray((at_most >= max(low, 1)) & (less < max(high, 1)), dtype=np.intp)


class _SimulatedRace:
    """Races with given true medians, and the medians of their resamples."""

    def __init__(
        self, times: Floats, counts: Draws, spread: float, random: np.random.Generator
    ) -> None:
        self.spread = spread
        self.random = random
        self.shape = (*times.shape, max(int(counts.max()), 1))
        self.missing = np.arange(self.shape[-1]) >= np.maximum(counts, 1)[..., None]
        self.never = ~np.isfinite(times)[..., None]
        self.scale = np.where(self.never, 1.0, times[..., None])
        # Where the two middle trials of each resample lie among the sorted trials of all cells.
        middle = np.zeros((2, *times.shape, _POOL), dtype=np.intp)
        for count in np.unique(counts[counts > 0]):
            (places,) = np.nonzero((counts == count).ravel())
            chosen = random.integers(0, _POOL, (len(places), _POOL))
            middle.reshape(2, -1, _POOL)[:, places] = _median_ranks(int(count))[:, chosen]
        start = np.arange(times.size).reshape(times.shape) * self.shape[-1]
        self.middle = middle + start[..., None]
        self.odd = bool(((counts % 2 == 1) | (counts == 0)).all())

    def medians(self) -> Floats:
        """Of one race, shape ``(optimizers, workloads, RESAMPLES)``."""
        noise = self.random.normal(0, self.spread, self.shape)
        noise[self.missing] = math.inf
        factors = np.exp(np.sort(noise, axis=-1)).ravel()
        first = int(self.random.integers(0, _POOL - RESAMPLES))
        low, high = self.middle[..., first : first + RESAMPLES]
        medians = factors[low] if self.odd else (factors[low] + factors[high]) / 2
        return np.where(self.never, math.inf, self.scale * medians)


@functools.cache
def _median_ranks(trials: int) -> Draws:
    """Ranks of the two middle trials of each of ``_POOL`` resamples, shape ``(2, _POOL)``."""
    drawn = np.sort(draw(trials, ("median",), Bootstrap(samples=_POOL)), axis=0)
    return np.asarray(drawn[[(trials - 1) // 2, trials // 2]], dtype=np.intp)


def _pooled_deviation(samples: Sequence[Floats]) -> float:
    """Standard deviation of log times within cells; NaN where nothing deviates."""
    squares, freedom = 0.0, 0
    for values in samples:
        logs = np.log(values[np.isfinite(values) & (values > 0)])
        if len(logs) > 1:
            squares += float(((logs - logs.mean()) ** 2).sum())
            freedom += len(logs) - 1
    return math.sqrt(squares / freedom) if squares > 0 else math.nan


def _at_least(least: int, trials: int, share: float) -> float:
    """``P(Bin(trials, share) >= least)``."""
    chances = (
        math.comb(trials, i) * share**i * (1 - share) ** (trials - i)
        for i in range(least, trials + 1)
    )
    return math.fsum(chances)


@functools.cache
def _even_median_coverage(trials: int, tail: float) -> float:
    """Share of simulated samples of standard normal values whose interval contains 0."""
    ranks, times_taken = np.unique(_median_ranks(trials), axis=1, return_counts=True)
    values = np.sort(np.random.default_rng(trials).normal(size=(_MEDIANS, trials)), axis=1)
    medians = values[:, ranks[0]] + values[:, ranks[1]]
    weights = times_taken / times_taken.sum()
    at_most, less = (medians <= 0) @ weights, (medians < 0) @ weights
    return float(((at_most >= tail) & (less < 1 - tail)).mean())
