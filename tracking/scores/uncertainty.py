"""Intervals of a race's numbers, each with its coverage, and probabilities of improvement.

Pure: from tables of trials to tables; seeded, and the order of rows never matters.

Trials are resampled with replacement within each optimizer and workload (stratified): the workloads
are fixed by the benchmark, not sampled. A cell of ``n`` trials has few distinct resamples (10 for
3 trials, one for 1 trial). Every result gives the number of its trials, is marked ``few`` below 3,
and tells the true coverage of its interval (``tracking.scores.coverage``). Means over seeds have t
intervals instead.

Targets stay fixed while trials are resampled, also those established from the same trials. A score
is defined against given targets, so an interval answers: what would these optimizers have scored
on these targets with other seeds? Establishing the targets anew in each resample would answer
another question. It would mix the luck of the target-setting optimizer into all intervals and shift
them: the best of medians over few resampled trials lies beyond the best median on average.

Sources: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, 2021,
https://arxiv.org/abs/2108.13264 (stratified bootstrap, probability of improvement); Efron, Better
Bootstrap Confidence Intervals, 1987, https://doi.org/10.1080/01621459.1987.10478410; for what is
estimated Dolan and More, 2002, https://arxiv.org/abs/cs/0102001 and Dahl et al., 2023,
https://arxiv.org/abs/2306.07179.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from timetrial.framework.types import Direction
from timetrial.tracking.scores.coverage import (
    improvement_coverage,
    median_coverage,
    race_coverage,
    t_interval,
)
from timetrial.tracking.scores.multiple import better, permutation_test
from timetrial.tracking.scores.resampling import (
    Bootstrap,
    Draws,
    Floats,
    accelerate,
    draw,
    interval,
    median_of_draws,
    medians_without_one,
)
from timetrial.tracking.scores.scoring import areas, ratios_to_best

ENOUGH_TRIALS: Final = 3
"""Results on fewer trials are marked."""

Cells = dict[tuple[str, str], Floats]


@dataclasses.dataclass(frozen=True)
class RaceIntervals:
    """Intervals of one condition and split; all tables sorted by optimizer and workload.

    Coverage is the true coverage of the interval, in [0, 1]: of times that of the order statistics
    that it lies between (``coverage.median_coverage``), of ratios and scores a simulated one
    (``coverage.race_coverage``). It is NaN for BCa intervals, whose ends depend on the data in
    another way each time, and for a ratio or score that no resample changes.

    Attributes:
        times, ratios: columns optimizer, workload, estimate, low, high, coverage, trials, few.
        scores: columns optimizer, estimate, low, high, coverage, trials (the fewest on any
            workload), few.
        first: by optimizer, share of the resamples in which nobody scores higher.
        score_samples: score of every resample: index optimizer, one column per resample.
    """

    times: pd.DataFrame
    ratios: pd.DataFrame
    scores: pd.DataFrame
    first: pd.Series[float]
    score_samples: pd.DataFrame


def race_intervals(
    trials: pd.DataFrame,
    *,
    r_max: float,
    taus: Sequence[float] | Floats | None = None,
    options: Bootstrap | None = None,
) -> RaceIntervals:
    """Intervals of times to target (medians over trials), ratios and scores.

    Args:
        trials: columns workload, optimizer, seed, value, from ``targets.trial_times``; inf or NaN
            = never. A missing pair of optimizer and workload counts as never, in every resample.
        r_max: as for ``scoring.scores``.
        taus: as for ``scoring.scores``.
        options: samples, seed, level and method.

    Raises:
        ValueError: a trial occurs twice or has a negative time; ``r_max`` or ``taus`` as for
            ``scoring.scores``.
    """
    options = options or Bootstrap()
    cells = _cells(trials, never=math.inf)
    if any((values < 0).any() for values in cells.values()):
        raise ValueError("trials: expected times >= 0, inf or NaN, got a negative one")
    grid = _Grid.of(cells)
    times, samples, counts = _medians(cells, grid, options)
    ratios, ratio_samples = ratios_to_best(times, 0), ratios_to_best(samples, 0)
    share = 1 / max(len(grid.workloads), 1)
    scores = areas(ratios, r_max=r_max, taus=taus).sum(axis=1) * share
    score_samples = areas(ratio_samples, r_max=r_max, taus=taus).sum(axis=1) * share
    speed = _Accelerations()
    if options.method == "bca":
        speed = _accelerations(cells, grid, times, r_max, taus)
    of_times = interval(samples, times, options, speed.times)
    of_ratios = interval(ratio_samples, ratios, options, speed.ratios)
    of_scores = interval(score_samples, scores, options, speed.scores)
    covered = _coverage(cells, grid, times, r_max, taus, options)
    covered = covered.of_wide(of_ratios, of_scores)
    rows = pd.MultiIndex.from_product(grid, names=["optimizer", "workload"])
    optimizers = pd.Index(grid.optimizers, name="optimizer")
    fewest = counts.min(axis=1, initial=counts.max(initial=0))
    best = score_samples >= score_samples.max(axis=0, initial=0.0) - 1e-12
    return RaceIntervals(
        times=_table(rows, times, of_times, covered.times, counts),
        ratios=_table(rows, ratios, of_ratios, covered.ratios, counts),
        scores=_table(optimizers, scores, of_scores, covered.scores, fewest),
        first=pd.Series(best.mean(axis=1), optimizers, name="first"),
        score_samples=pd.DataFrame(score_samples, index=optimizers),
    )


class _Grid(NamedTuple):
    """The rows and columns of a race's tables, sorted."""

    optimizers: list[str]
    workloads: list[str]

    @classmethod
    def of(cls, cells: Cells) -> _Grid:
        return cls(*(sorted({cell[axis] for cell in cells}) for axis in (0, 1)))

    def place(self, cell: tuple[str, str]) -> tuple[int, int]:
        return self.optimizers.index(cell[0]), self.workloads.index(cell[1])


class _Accelerations(NamedTuple):
    """BCa's accelerations by kind of table; None for percentile intervals."""

    times: Floats | None = None
    ratios: Floats | None = None
    scores: Floats | None = None


class _Coverage(NamedTuple):
    """Coverage by kind of table."""

    times: Floats
    ratios: Floats
    scores: Floats

    def of_wide(self, ratios: tuple[Floats, Floats], scores: tuple[Floats, Floats]) -> _Coverage:
        """NaN for the ratios and scores whose two ends are the same."""
        return _Coverage(
            self.times,
            np.where(ratios[0] < ratios[1], self.ratios, math.nan),
            np.where(scores[0] < scores[1], self.scores, math.nan),
        )


def _coverage(
    cells: Cells,
    grid: _Grid,
    times: Floats,
    r_max: float,
    taus: Sequence[float] | Floats | None,
    options: Bootstrap,
) -> _Coverage:
    of_times = np.full(times.shape, math.nan)
    if options.method == "bca":
        return _Coverage(of_times, of_times, np.full(len(times), math.nan))
    placed = {grid.place(cell): values for cell, values in cells.items()}
    for place, values in placed.items():
        of_times[place] = median_coverage(len(values), options.level)
    return _Coverage(
        of_times, *race_coverage(placed, times, r_max=r_max, taus=taus, options=options)
    )


def _medians(cells: Cells, grid: _Grid, options: Bootstrap) -> tuple[Floats, Floats, Draws]:
    """Median over trials of every cell, its resamples, and the number of its trials."""
    shape = len(grid.optimizers), len(grid.workloads)
    times = np.full(shape, math.inf)
    samples = np.full((*shape, options.samples), math.inf)
    counts = np.zeros(shape, dtype=int)
    for (optimizer, workload), values in cells.items():
        at = grid.place((optimizer, workload))
        times[at], counts[at] = np.median(values), len(values)
        samples[at] = median_of_draws(values, draw(len(values), (workload, optimizer), options))
    return times, samples, counts


def _accelerations(
    cells: Cells, grid: _Grid, times: Floats, r_max: float, taus: Sequence[float] | Floats | None
) -> _Accelerations:
    """From the race without one trial, for every trial of it."""
    without = {
        grid.place(cell): medians_without_one(values)
        for cell, values in cells.items()
        if len(values) > 1
    }
    of_times, of_ratios = np.zeros(times.shape), np.zeros(times.shape)
    influences: list[Floats] = []
    for w in range(times.shape[1]):
        columns = []
        for (a, workload), medians in without.items():
            if workload == w:
                of_times[a, w] = accelerate([medians])
                column = np.repeat(times[:, [w]], len(medians), axis=1)
                column[a] = medians
                columns.append(ratios_to_best(column, 0).T)
        of_ratios[:, w] = accelerate(columns) if columns else 0.0
        # A score is a mean over workloads: what the other workloads add cancels out.
        influences += [areas(column, r_max=r_max, taus=taus) for column in columns]
    of_scores = accelerate(influences) if influences else np.zeros(len(times))
    return _Accelerations(of_times, of_ratios, of_scores)


def quality_intervals(finals: pd.DataFrame, *, options: Bootstrap | None = None) -> pd.DataFrame:
    """Student's t intervals of the mean over trials of every final metric.

    Mean and interval use the trials with a finite final metric only. A percentile interval of 3
    trials would be their range, with a coverage of 0.75 instead of 0.95.

    Args:
        finals: columns condition, workload, optimizer, split, metric, seed, value, from
            ``targets.final_values``.
        options: level; nothing is resampled.

    Returns:
        Columns condition, workload, optimizer, split, metric, estimate, low, high, coverage, trials
        (the finite ones), few; sorted. Low and high are NaN for fewer than two trials. The coverage
        is the level, for normal errors; it is NaN where all trials are equal or there is one only:
        they say nothing about the spread then.
    """
    level = (options or Bootstrap()).level
    keys = ["condition", "workload", "optimizer", "split", "metric"]
    rows: list[tuple[object, ...]] = []
    for key, group in finals.sort_values([*keys, "seed"], kind="stable").groupby(keys):
        values = group["value"].to_numpy(dtype=np.float64)
        values = values[np.isfinite(values)]
        mean = float(values.mean()) if len(values) else math.nan
        low, high = t_interval(values, level)
        coverage = level if low < high else math.nan
        few = len(values) < ENOUGH_TRIALS
        rows.append((*key, mean, low, high, coverage, len(values), few))
    names = [*keys, "estimate", "low", "high", "coverage", "trials", "few"]
    return pd.DataFrame(rows, columns=names)


def probability_of_improvement(
    trials: pd.DataFrame,
    *,
    directions: Mapping[str, Direction] | None = None,
    options: Bootstrap | None = None,
) -> pd.DataFrame:
    """Probability that a run of one optimizer beats a run of another on a random workload.

    ``P(X > Y)``: the mean over workloads of the share of pairs of trials in which X is better, a
    tie counting half. For times to target two runs that never arrive tie.

    Args:
        trials: columns workload, optimizer, seed, value; NaN is as bad as can be.
        directions: by workload, whether larger values are better; without it smaller ones are, as
            for times to target.
        options: samples, seed, level and method (``bca`` is read as ``percentile`` here).

    Returns:
        Columns optimizer, other, probability, low, high, coverage (of the interval:
        ``coverage.improvement_coverage``; NaN where no resample changes the probability), p_value
        (two-sided, of a probability of 1/2: ``multiple.permutation_test``; not adjusted for
        several comparisons, see ``multiple.holm``), workloads (those with trials of both), trials
        (the fewest of either on any of them), few; every ordered pair, sorted. The probabilities of
        a pair and its reverse sum to 1.

    Raises:
        ValueError: a trial occurs twice.
    """
    options = dataclasses.replace(options or Bootstrap(), method="percentile")
    cells = costs(trials, directions)
    grid = _Grid.of(cells)
    taken = {cell: _times_taken(values, cell[::-1], options) for cell, values in cells.items()}
    found: dict[tuple[str, str], tuple[float, ...]] = {}
    for one, other in itertools.combinations(grid.optimizers, 2):
        both = [w for w in grid.workloads if (one, w) in cells and (other, w) in cells]
        if both:
            pairs = [((one, w), (other, w)) for w in both]
            estimate, low, high = _improvement(cells, taken, pairs, options)
            fewest = min(len(cells[cell]) for pair in pairs for cell in pair)
            tried = [(cells[x], cells[y]) for x, y in pairs]
            p_value = permutation_test(tried, seed=options.seed)
            coverage = math.nan
            if low < high:
                coverage = improvement_coverage(fewest, len(both), estimate, options.level)
            rest = (coverage, p_value, len(both), fewest, fewest < ENOUGH_TRIALS)
            found[one, other] = (estimate, low, high, *rest)
            found[other, one] = (1 - estimate, 1 - high, 1 - low, *rest)
    names = "optimizer other probability low high coverage p_value workloads trials few"
    return pd.DataFrame([(*pair, *found[pair]) for pair in sorted(found)], columns=names.split())


def _improvement(
    cells: Cells,
    taken: Mapping[tuple[str, str], Floats],
    pairs: Sequence[tuple[tuple[str, str], tuple[str, str]]],
    options: Bootstrap,
) -> tuple[float, float, float]:
    """Probability and interval of one pair of optimizers, from their cells by workload."""
    estimate = float(np.mean([better(cells[x], cells[y]).mean() for x, y in pairs]))
    shares = [_share_of_draws(cells[x], cells[y], taken[x], taken[y]) for x, y in pairs]
    low, high = interval(np.mean(shares, axis=0), np.asarray(estimate), options)
    return estimate, float(low), float(high)


def costs(trials: pd.DataFrame, directions: Mapping[str, Direction] | None) -> Cells:
    """Costs of the trials of each optimizer and workload, in order of seed.

    Args:
        trials: as for ``probability_of_improvement``.
        directions: by workload; None where smaller values are better.

    Returns:
        Smaller is better; a value of NaN costs inf, as much as can be.

    Raises:
        ValueError: a trial occurs twice.
    """
    found = {}
    for (optimizer, workload), values in _cells(trials, never=math.nan).items():
        up = directions is not None and directions[workload] is Direction.MAXIMIZE
        cost = -values if up else values
        found[optimizer, workload] = np.where(np.isnan(cost), np.inf, cost)
    return found


def _times_taken(values: Floats, cell: tuple[str, str], options: Bootstrap) -> Floats:
    """How often each resample takes each trial: shape ``(samples, trials)``."""
    draws = draw(len(values), cell, options)
    counts = [(draws == trial).sum(axis=0) for trial in range(len(values))]
    return np.stack(counts, axis=1).astype(np.float64)


def _share_of_draws(one: Floats, other: Floats, mine: Floats, theirs: Floats) -> Floats:
    """The share of pairs in each resample that ``one`` wins, from how often it takes each trial."""
    pairs: Floats = np.einsum("bi,bi->b", mine @ better(one, other), theirs)
    return pairs / (len(one) * len(other))


def _cells(trials: pd.DataFrame, *, never: float) -> Cells:
    """The values of each optimizer and workload, in order of seed.

    Raises:
        ValueError: a trial occurs twice.
    """
    if trials.duplicated(["workload", "optimizer", "seed"]).any():
        twice = trials[trials.duplicated(["workload", "optimizer", "seed"])].iloc[0]
        raise ValueError(
            "trials: expected each workload, optimizer and seed once, got twice "
            f"{twice['workload']}, {twice['optimizer']}, {twice['seed']}"
        )
    ordered = trials.sort_values(["optimizer", "workload", "seed"], kind="stable")
    cells: Cells = {}
    for (optimizer, workload), group in ordered.groupby(["optimizer", "workload"], sort=True):
        values = group["value"].to_numpy(dtype=np.float64)
        cells[str(optimizer), str(workload)] = np.where(np.isnan(values), never, values)
    return cells


def _table(
    index: pd.Index[str] | pd.MultiIndex,
    estimate: Floats,
    ends: tuple[Floats, Floats],
    coverage: Floats,
    trials: Floats | Draws,
) -> pd.DataFrame:
    columns = {
        "estimate": estimate.ravel(),
        "low": ends[0].ravel(),
        "high": ends[1].ravel(),
        "coverage": coverage.ravel(),
        "trials": trials.ravel(),
        "few": trials.ravel() < ENOUGH_TRIALS,
    }
    return pd.DataFrame(columns, index=index).reset_index()
