"""The test of any difference, and the smallest effect that it can show."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timetrial.tracking.report import effects
from timetrial.tracking.report.effects import difference_test, effect, smallest_effect

INF = math.inf
Pair = tuple[np.ndarray, np.ndarray]


def squares(one: np.ndarray, other: np.ndarray) -> float:
    n, m = len(one), len(other)
    wins = ((one[:, None] < other) + (one[:, None] == other) / 2).sum()
    return float((wins - n * m / 2) ** 2 / (n * m * (n + m + 1) / 12))


def by_enumeration(pairs: list[Pair]) -> float:
    """All combinations of all splits, one by one."""
    choices = []
    for one, other in pairs:
        pool = np.concatenate([one, other])
        splits = itertools.combinations(range(len(pool)), len(one))
        choices.append([squares(pool[list(c)], np.delete(pool, c)) for c in splits])
    observed = sum(squares(*pair) for pair in pairs)
    sums = [sum(combination) for combination in itertools.product(*choices)]
    return float(np.mean(np.array(sums) >= observed - 1e-6))


def test_complete_separation_by_hand():
    apart = (np.array([1.0, 2, 3]), np.array([4.0, 5, 6]))
    assert difference_test([apart]) == pytest.approx(2 / 20)
    assert difference_test([apart] * 3) == pytest.approx((2 / 20) ** 3)
    assert difference_test([apart, apart[::-1]]) == pytest.approx((2 / 20) ** 2)  # either way
    assert effect([apart, apart[::-1]]) == 0.5
    never = np.array([INF, INF])
    assert difference_test([(never, never)]) == 1
    assert effect([(never, never)]) == 0
    assert effect([apart, (never, never)]) == pytest.approx(math.sqrt(0.125))
    for none in ([], [(np.array([1.0]), np.array([]))]):
        assert math.isnan(difference_test(none))
        assert math.isnan(effect(none))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            *[st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, INF]), min_size=1, max_size=3)] * 2
        ),
        min_size=1,
        max_size=3,
    )
)
def test_counted_like_every_relabelling_one_by_one(cells: list[tuple[list[float], list[float]]]):
    pairs = [(np.array(one), np.array(other)) for one, other in cells]
    found = difference_test(pairs)
    assert found == pytest.approx(by_enumeration(pairs), abs=1e-9)
    assert found == pytest.approx(difference_test([pair[::-1] for pair in pairs]), abs=1e-9)


def test_drawn_relabellings_agree_with_counted_ones(monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(1)
    pairs = [(random.normal(0.6, 1, 5).round(1), random.normal(0, 1, 4).round(1)) for _ in "uvw"]
    exact = difference_test(pairs)
    monkeypatch.setattr(effects, "_MOST_SPLITS", 0)
    drawn = difference_test(pairs)
    assert drawn != exact
    assert abs(drawn - exact) < 4 * math.sqrt(exact * (1 - exact) / effects.DRAWS)
    assert drawn == difference_test(pairs)
    monkeypatch.undo()
    monkeypatch.setattr(effects, "_MOST_SUMS", 0)
    assert difference_test(pairs) == drawn


def test_level_of_the_test_is_kept():
    """Equal optimizers, 3 seeds, 4 workloads: told apart in at most 5 % of 1000 races."""
    random = np.random.default_rng(2)
    races = random.lognormal(0, 1, (1000, 4, 2, 3))
    p_values = [difference_test([(w[0], w[1]) for w in race]) for race in races]
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize(
    ("trials", "workloads", "comparisons", "expected"),
    [
        (3, 1, 1, math.nan),  # 2 of 20 splits: 0.1
        (4, 1, 1, 0.5),  # 2 of 70: 0.029; one pair of trials lost already gives 4 of 70
        (4, 1, 2, math.nan),
        (3, 2, 5, 0.5),  # 4 of 400 = 0.05 / 5
        (3, 2, 6, math.nan),
        (1, 10, 1, math.nan),  # of one trial each, every split is as far apart as any other
    ],
)
def test_smallest_effect_by_hand(trials: int, workloads: int, comparisons: int, expected: float):
    found = smallest_effect(trials, workloads, comparisons, 0.95)
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("trials", "workloads"), [(2, 3), (3, 2), (3, 3), (4, 2)])
def test_smallest_effect_is_where_the_test_turns(trials: int, workloads: int):
    every = [
        (np.array(ranks, dtype=float), np.setdiff1d(np.arange(2.0 * trials), ranks))
        for ranks in itertools.combinations(range(2 * trials), trials)
    ]
    unlike = {round(effect([pair]), 9): pair for pair in every}  # all that matters of a split
    races = itertools.combinations_with_replacement(unlike.values(), workloads)
    found = {round(effect(list(race)), 9): difference_test(list(race)) for race in races}
    limit = min((size for size, p in found.items() if p <= 0.05), default=math.nan)
    assert smallest_effect(trials, workloads, 1, 0.95) == pytest.approx(limit, nan_ok=True)
    assert all(p > 0.05 for size, p in found.items() if size < limit - 1e-9)


def test_more_trials_show_less():
    limits = [smallest_effect(n, 4, 6, 0.95) for n in (3, 5, 10, 20, 40)]
    assert limits == sorted(limits, reverse=True)
    critical = 13.698  # chi-square with 4 degrees of freedom at 1 - 0.05 / 6
    assert limits[-1] == pytest.approx(math.sqrt(critical * 81 / 12 / 1600 / 4), rel=0.02)
