"""Holm's adjustment, the stratified permutation test, the smallest difference that can be shown."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from timetrial.tracking.scores import multiple
from timetrial.tracking.scores.multiple import holm, permutation_test, smallest_difference
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.scores.uncertainty import probability_of_improvement

INF, NAN = math.inf, math.nan


def share(one: np.ndarray, other: np.ndarray) -> float:
    return float(((one[:, None] < other) + (one[:, None] == other) / 2).mean())


def by_enumeration(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """All combinations of all splits, one by one."""
    choices = []
    for one, other in pairs:
        pool = np.concatenate([one, other])
        splits = itertools.combinations(range(len(pool)), len(one))
        choices.append([share(pool[list(c)], np.delete(pool, c)) for c in splits])
    observed = abs(np.mean([share(*pair) for pair in pairs]) - 0.5)
    means = [np.mean(combination) for combination in itertools.product(*choices)]
    return float(np.mean(np.abs(np.array(means) - 0.5) >= observed - 1e-12))


def test_holm_by_hand():
    # 4 x 0.01, 3 x 0.02 = 0.06, 2 x 0.03 = 0.06, 1 x 0.5
    found = holm({"d": 0.5, "b": 0.02, "a": 0.01, "c": 0.03})
    assert list(found) == ["d", "b", "a", "c"]
    assert found == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.5})
    # Steps down, never back: 3 x 0.4 is cut at 1, and so are the larger ones.
    assert holm({"x": 0.4, "y": 0.5, "z": 0.9}) == {"x": 1.0, "y": 1.0, "z": 1.0}
    assert holm({"x": 0.04}) == {"x": 0.04}
    assert holm({}) == {}


def test_holm_leaves_out_comparisons_that_were_not_made():
    found = holm({"x": 0.02, "y": NAN, "z": 0.03})
    assert found["x"] == pytest.approx(0.04)
    assert math.isnan(found["y"])
    with pytest.raises(ValueError, match=r"p_values: expected values in \[0, 1\], got 1.5 for 'x'"):
        holm({"x": 1.5})


def test_holm_keeps_its_promise_where_simple_comparisons_do_not():
    """Five true null hypotheses at once: any false statement in 5 % of the cases, not in 23 %."""
    random = np.random.default_rng(0)
    p_values = random.random((4000, 5))
    adjusted = np.array([list(holm(dict(enumerate(row))).values()) for row in p_values])
    for values, expected in ((p_values, 1 - 0.95**5), (adjusted, 1 - 0.99**5)):
        false = (values.min(axis=1) <= 0.05).mean()
        assert abs(false - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)


def test_complete_separation_by_hand():
    apart = (np.array([1.0, 2, 3]), np.array([4.0, 5, 6]))
    assert permutation_test([apart]) == pytest.approx(2 / math.comb(6, 3))
    assert permutation_test([apart] * 3) == pytest.approx(2 / math.comb(6, 3) ** 3)
    assert permutation_test([apart, apart[::-1]]) == 1
    never = np.array([INF, INF])
    assert permutation_test([(never, never)]) == 1
    assert math.isnan(permutation_test([]))
    assert math.isnan(permutation_test([(np.array([1.0]), np.array([]))]))


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
    found = permutation_test(pairs)
    assert found == pytest.approx(by_enumeration(pairs), abs=1e-12)
    assert found == pytest.approx(permutation_test([pair[::-1] for pair in pairs]), abs=1e-12)


@pytest.mark.parametrize("sizes", [(4, 4), (7, 5), (12, 20)])
def test_one_workload_is_mann_whitney(sizes: tuple[int, int]):
    random = np.random.default_rng(sum(sizes))
    one, other = random.normal(0.7, 1, sizes[0]), random.normal(0, 1, sizes[1])
    theirs = stats.mannwhitneyu(one, other, method="exact").pvalue
    assert permutation_test([(one, other)]) == pytest.approx(theirs, rel=1e-9)


def test_drawn_relabellings_agree_with_counted_ones(monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(1)
    pairs = [(random.normal(0.5, 1, 6).round(1), random.normal(0, 1, 4).round(1)) for _ in "uvw"]
    exact = permutation_test(pairs)
    monkeypatch.setattr(multiple, "_LARGEST_COUNT", 0)
    drawn = permutation_test(pairs)
    assert drawn != exact
    assert abs(drawn - exact) < 4 * math.sqrt(exact * (1 - exact) / multiple.DRAWS)
    assert drawn == permutation_test(pairs)
    far = [(np.arange(300.0), np.arange(300.0, 600.0))]
    assert permutation_test(far) == 1 / (1 + multiple.DRAWS)


def test_level_of_the_test_is_kept():
    """Equal optimizers, 3 seeds, 4 workloads: rejected in at most 5 % of 2000 races."""
    random = np.random.default_rng(2)
    races = random.lognormal(0, 1, (2000, 4, 2, 3))
    p_values = [permutation_test([(w[0], w[1]) for w in race]) for race in races]
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize(
    ("trials", "workloads", "comparisons", "expected"),
    [
        (3, 1, 1, NAN),  # 2 of 20 splits: p = 0.1 at best
        (4, 1, 1, 1.0),  # 2 of 70: 0.029; one pair lost already gives 4 of 70: 0.057
        (4, 1, 2, NAN),
        (3, 2, 5, 1.0),  # 2 of 400: 0.005; one pair lost 6 of 400: 0.015 > 0.05 / 5
        (3, 2, 1, 16 / 18),  # two pairs lost: 16 of 400: 0.04; three: 36 of 400: 0.09
        (1, 5, 1, NAN),  # 2 of 32
        (1, 6, 1, 1.0),  # 2 of 64
    ],
)
def test_smallest_difference_by_hand(
    trials: int, workloads: int, comparisons: int, expected: float
):
    found = smallest_difference(trials, workloads, comparisons, 0.95)
    assert found == pytest.approx(expected, nan_ok=True)


def test_smallest_difference_is_where_the_test_turns():
    """The next smaller estimate of a race of the same size is not significant."""
    limit = smallest_difference(3, 2, 1, 0.95)
    p_values = {}
    for order in itertools.product(itertools.combinations(range(6), 3), repeat=2):
        pairs = [
            (np.array(ranks, dtype=float), np.setdiff1d(np.arange(6.0), ranks)) for ranks in order
        ]
        p_values[round(np.mean([share(*pair) for pair in pairs]), 9)] = permutation_test(pairs)
    shown = min(p for p, value in p_values.items() if p > 0.5 and value <= 0.05)
    assert shown == pytest.approx(limit)
    more = [smallest_difference(n, 4, 5, 0.95) for n in (3, 5, 10, 20)]
    assert more == sorted(more, reverse=True)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("trials", (0, 1, 1, 0.95)),
        ("workloads", (1, 0, 1, 0.95)),
        ("comparisons", (1, 1, 0, 0.95)),
        ("level", (1, 1, 1, 1.0)),
    ],
)
def test_arguments_are_checked(name: str, arguments: tuple[int, int, int, float]):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        smallest_difference(*arguments)


def test_probabilities_of_improvement_have_p_values():
    cells = {
        ("a", "w"): [1.0, 2, 3],
        ("b", "w"): [4.0, 5, 6],
        ("a", "v"): [1.0, NAN],
        ("b", "v"): [2.0, 2.0, INF],
    }
    rows = [(w, o, s, v) for (o, w), values in cells.items() for s, v in enumerate(values)]
    table = pd.DataFrame(rows, columns=["workload", "optimizer", "seed", "value"])
    found = probability_of_improvement(table, options=Bootstrap(samples=100))
    pairs = [
        (np.array([1.0, 2, 3]), np.array([4.0, 5, 6])),
        (np.array([1.0, INF]), np.array([2.0, 2.0, INF])),
    ]
    expected = by_enumeration(pairs)
    assert found["p_value"].tolist() == pytest.approx([expected] * 2)
