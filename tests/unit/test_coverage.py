"""True coverage of intervals from few trials, against simulations of the intervals themselves."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from timetrial.tracking.scores import coverage
from timetrial.tracking.scores.coverage import (
    REPETITIONS,
    improvement_coverage,
    median_coverage,
    race_coverage,
    t_interval,
)
from timetrial.tracking.scores.resampling import (
    Bootstrap,
    draw,
    interval,
    median_of_draws,
)
from timetrial.tracking.scores.scoring import performance_ratios, scores
from timetrial.tracking.scores.uncertainty import probability_of_improvement, race_intervals

INF, NAN = math.inf, math.nan


def error(share: float, *counts: int) -> float:
    """Four standard errors of the difference of shares of so many cases each."""
    return 4 * math.sqrt(share * (1 - share) * sum(1 / count for count in counts))


def test_the_percentile_interval_of_a_mean_of_three_is_their_range_and_covers_75_per_cent():
    random = np.random.default_rng(0)
    samples = random.normal(1.0, 2.0, (4000, 3))
    options = Bootstrap(samples=2000)
    for values in samples[:200]:
        found = interval(values[draw(3, ("w", "a"), options)].mean(axis=0), values[0], options)
        assert found == pytest.approx((values.min(), values.max()))
    range_covers = ((samples.min(axis=1) <= 1) & (samples.max(axis=1) >= 1)).mean()
    assert abs(range_covers - 0.75) < error(0.75, 4000)
    ends = np.array([t_interval(values, 0.95) for values in samples])
    t_covers = ((ends[:, 0] <= 1) & (ends[:, 1] >= 1)).mean()
    assert abs(t_covers - 0.95) < error(0.95, 4000)


@pytest.mark.parametrize("count", [2, 3, 5, 30])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_t_intervals_are_scipys(count: int, level: float):
    values = np.random.default_rng(count).normal(size=count)
    scale = values.std(ddof=1) / math.sqrt(count)
    theirs = stats.t.interval(level, count - 1, values.mean(), scale)
    assert t_interval(values, level) == pytest.approx(theirs)


def test_one_value_tells_nothing_about_its_spread():
    assert np.isnan(t_interval(np.array([3.0]), 0.95)).all()
    assert np.isnan(t_interval(np.array([]), 0.95)).all()
    assert t_interval(np.array([3.0, 3.0]), 0.95) == (3, 3)


def test_coverage_of_medians_by_hand():
    # The range misses when all trials lie on one side of the median: 2 / 2^n.
    by_hand = {1: 0.0, 2: 0.5, 3: 0.75, 4: 0.875, 5: 0.9375, 7: 1 - 2 * (1 + 7) / 2**7}
    assert {count: median_coverage(count, 0.95) for count in by_hand} == by_hand
    assert math.isnan(median_coverage(0, 0.95))
    assert median_coverage(3, 0.4) == 0  # the middle trial alone


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 11])
def test_coverage_of_medians_is_that_of_the_intervals(count: int):
    random = np.random.default_rng(count)
    options = Bootstrap(samples=2000)
    hits = 0
    for repetition in range(1000):
        values = random.normal(size=count)
        draws = draw(count, ("w", str(repetition)), options)
        low, high = interval(median_of_draws(values, draws), values[0], options)
        hits += bool(low <= 0 <= high)
    expected = median_coverage(count, 0.95)
    assert abs(hits / 1000 - expected) <= error(expected, 1000, 4000)


MEDIANS = pd.DataFrame(
    {"u": [10.0, 13.0, INF], "v": [30.0, 20.0, 25.0], "w": [5.0, 9.0, 6.0]}, index=list("abc")
)


def race(random: np.random.Generator, count: int) -> pd.DataFrame:
    """Trials around the medians; log times deviate by 0.2."""
    rows = [
        (w, o, seed, float(MEDIANS.loc[o, w]) * math.exp(0.2 * random.normal()))
        for w in MEDIANS.columns
        for o in MEDIANS.index
        for seed in range(count)
    ]
    return pd.DataFrame(rows, columns=["workload", "optimizer", "seed", "value"])


@pytest.mark.parametrize("count", [3, 4])
def test_simulated_coverage_is_that_of_the_intervals(count: int, monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(count)
    options = Bootstrap(samples=400)
    large = race(random, 2001)
    cells = {
        (list("abc").index(o), list("uvw").index(w)): g["value"].to_numpy()[:count]
        for (o, w), g in large.groupby(["optimizer", "workload"])
    }
    spread = 0.2
    monkeypatch.setattr(coverage, "_pooled_deviation", lambda samples: spread)
    of_ratios, of_scores = race_coverage(
        cells, MEDIANS.to_numpy(), r_max=3, taus=None, options=options
    )
    monkeypatch.setattr(coverage, "REPETITIONS", 1)
    true_scores = scores(MEDIANS, r_max=3).to_numpy()
    true_ratios = performance_ratios(MEDIANS).to_numpy().ravel()
    hits = np.zeros(3), np.zeros(9)
    for _ in range(400):
        found = race_intervals(race(random, count), r_max=3, options=options)
        for k, (table, truth) in enumerate(
            ((found.scores, true_scores), (found.ratios, true_ratios))
        ):
            low, high = table["low"].to_numpy(), table["high"].to_numpy()
            hits[k][:] += (low <= truth + 1e-12) & (truth - 1e-12 <= high)
    for counted, simulated in ((hits[0], of_scores), (hits[1], of_ratios.ravel())):
        share = (counted / 400 + simulated) / 2
        assert (np.abs(counted / 400 - simulated) <= 4 * np.sqrt(share * (1 - share) / 200)).all()
        assert (simulated > 0.3).all()


def test_pooled_deviation_of_log_times():
    samples = [np.exp([0.0, 2.0]), np.exp([5.0, 5.5, 6.0]), np.array([INF, 0.0, 3.0])]
    # Sums of squares 2 and 0.5 with 1 and 2 degrees of freedom.
    assert coverage._pooled_deviation(samples) == pytest.approx(math.sqrt(2.5 / 3))
    assert math.isnan(coverage._pooled_deviation([np.array([1.0]), np.array([2.0, 2.0])]))


@pytest.mark.parametrize("trials", [2, 3, 5])
def test_coverage_of_probabilities_of_improvement_is_that_of_the_intervals(trials: int):
    random = np.random.default_rng(trials)
    shift = math.sqrt(2) * stats.norm.ppf(0.7)
    hits = 0
    for _ in range(300):
        rows = [
            (w, o, seed, random.normal(0.0 if o == "b" else -shift))
            for w in "uvwx"
            for o in "ab"
            for seed in range(trials)
        ]
        table = pd.DataFrame(rows, columns=["workload", "optimizer", "seed", "value"])
        row = probability_of_improvement(table, options=Bootstrap(samples=300)).iloc[0]
        hits += bool(row["low"] <= 0.7 <= row["high"])
    expected = improvement_coverage(trials, 4, 0.7, 0.95)
    assert abs(hits / 300 - expected) < error(expected, 300, REPETITIONS)
    assert expected == improvement_coverage(trials, 4, 0.3, 0.95)


def test_every_table_of_intervals_says_its_coverage():
    table = race(np.random.default_rng(0), 3)
    options = Bootstrap(samples=300)
    found = race_intervals(table, r_max=3, options=options)
    assert (found.times["coverage"] == 0.75).all()
    for part in (found.ratios, found.scores):
        wide = part["low"] < part["high"]
        assert wide.any()
        assert part.loc[wide, "coverage"].between(0.3, 1).all()
        assert part.loc[~wide, "coverage"].isna().all()
    bca = race_intervals(table, r_max=3, options=dataclasses.replace(options, method="bca"))
    for part in (bca.times, bca.ratios, bca.scores):
        assert part["coverage"].isna().all()
    pairs = probability_of_improvement(table, options=options)
    expected = [
        improvement_coverage(3, 3, p, 0.95) if low < high else NAN
        for p, low, high in zip(pairs["probability"], pairs["low"], pairs["high"], strict=True)
    ]
    np.testing.assert_array_equal(pairs["coverage"], expected)
