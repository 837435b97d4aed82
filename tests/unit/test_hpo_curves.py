"""The expected best of k trials, against all sets of k, and its documented properties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from timetrial.framework.types import Direction
from timetrial.tracking.scores.hpo_curves import expected_best, hpo_curve, trials_to_beat

UP, DOWN = Direction.MAXIMIZE, Direction.MINIMIZE


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_is_the_mean_of_the_best_over_all_sets_of_k_trials(direction: Direction):
    values = [*np.random.default_rng(0).normal(size=7), 0.1, 0.1]
    curve = hpo_curve(values, direction, resamples=10)
    for k in range(1, 10):
        sets = [direction.best(chosen) for chosen in itertools.combinations(values, k)]
        assert expected_best(values, k, direction) == pytest.approx(np.mean(sets), rel=1e-12)
        assert curve.expected[k - 1] == pytest.approx(np.mean(sets), rel=1e-12)
    assert list(curve.trials) == list(range(1, 10))
    assert curve.expected[-1] == direction.best(values)


def test_is_unbiased_where_dodges_estimator_is_not():
    rng = np.random.default_rng(1)
    studies = rng.random((4000, 6))  # expected best of 5 uniform trials: 5 / 6
    ours = [expected_best(list(values), 5, UP) for values in studies]
    ranked = np.sort(studies, axis=1)
    steps = (np.arange(7) / 6) ** 5
    dodge = ranked @ np.diff(steps)
    error = np.std(ours) / math.sqrt(len(ours))
    assert np.mean(ours) == pytest.approx(5 / 6, abs=4 * error)
    assert np.mean(dodge) < 5 / 6 - 10 * error


def test_a_trial_that_diverged_costs_a_trial():
    values = [0.5, math.nan, 0.9]
    assert expected_best(values, 1, UP) == pytest.approx((0.5 + 0.5 + 0.9) / 3)
    assert expected_best(values, 1, UP, bad=0.0) == pytest.approx(1.4 / 3)
    assert expected_best(values, 1, DOWN) == pytest.approx((0.5 + 0.9 + 0.9) / 3)
    assert expected_best(values, 3, UP) == 0.9


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    inside = 0
    for seed in range(200):
        curve = hpo_curve(list(rng.random(40)), UP, confidence=0.9, resamples=200, seed=seed)
        inside += curve.low[3] <= 4 / 5 <= curve.high[3]
    assert 0.8 <= inside / 200 <= 0.97
    assert (curve.low <= curve.high).all()
    assert curve.confidence == 0.9


def test_the_coverage_is_that_of_the_intervals():
    """Eight normal values: the interval of the best of all eight holds the truth half the time."""
    rng = np.random.default_rng(3)
    means = {1: 0.0, 8: float(rng.normal(size=(100_000, 8)).max(axis=1).mean())}
    inside = dict.fromkeys(means, 0)
    for seed in range(300):
        curve = hpo_curve(list(rng.normal(size=8)), UP, resamples=300, seed=seed)
        for k, mean in means.items():
            inside[k] += curve.low[k - 1] <= mean <= curve.high[k - 1]
    assert curve.coverage.shape == (8,)
    for k, hits in inside.items():
        share = float(curve.coverage[k - 1])
        assert abs(hits / 300 - share) < 4 * math.sqrt(share * (1 - share) * (1 / 300 + 1 / 200))
    assert curve.coverage[-1] < 0.6 < 0.8 < curve.coverage[0] < 0.95
    assert hpo_curve([1.0], UP, resamples=5).coverage.tolist() == [0]


def test_is_the_same_for_the_same_seed_and_for_any_order_of_the_trials():
    values = [0.3, 0.1, 0.7, 0.2]
    one, other = hpo_curve(values, DOWN), hpo_curve(values, DOWN)
    np.testing.assert_array_equal(one.low, other.low)
    np.testing.assert_allclose(hpo_curve(values[::-1], DOWN).expected, one.expected)


@pytest.mark.slow
def test_trials_to_beat_a_reference():
    curve = hpo_curve([0.2, 0.4, 0.6, 0.8], UP, resamples=5)
    assert trials_to_beat(curve, 0.1, UP) == 1
    assert trials_to_beat(curve, 0.55, UP) == 2  # expected best of two: 2/3
    assert trials_to_beat(curve, 0.8, UP) is None
    down = hpo_curve([0.2, 0.4, 0.6, 0.8], DOWN, resamples=5)
    assert trials_to_beat(down, 0.45, DOWN) == 2  # expected best of two: 1/3 + ...
    assert trials_to_beat(down, 0.1, DOWN) is None


def test_a_thousand_trials_are_no_matter():
    values = list(np.random.default_rng(0).random(1000))
    curve = hpo_curve(values, UP, resamples=20)
    assert np.isfinite(curve.expected).all()
    assert (np.diff(curve.expected) >= -1e-12).all()
    assert curve.expected[-1] == max(values)


@pytest.mark.parametrize(
    ("values", "k", "message"),
    [
        ([], 1, "at least one"),
        ([math.nan], 1, "at least one"),
        ([1.0, math.inf], 1, "got inf"),
        ([1.0], 0, r"\[1, 1\], got 0"),
        ([1.0], 2, r"\[1, 1\], got 2"),
    ],
)
def test_bad_input(values: list[float], k: int, message: str):
    with pytest.raises(ValueError, match=message):
        expected_best(values, k, UP)


@pytest.mark.parametrize("wrong", [{"confidence": 1.0}, {"resamples": 0}])
def test_bad_options(wrong: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        hpo_curve([1.0], UP, **wrong)
