"""Ratios, profiles and scores from tables of times."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timetrial.tracking.scores.scoring import performance_profile, performance_ratios, scores

INF, NAN = np.inf, np.nan


def table(rows: dict[str, list[float]], workloads: str = "abcdefgh") -> pd.DataFrame:
    width = len(next(iter(rows.values())))
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(workloads[:width]))


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    value = st.one_of(
        st.sampled_from([0.0, 1.0, 2.0, INF, NAN]), st.floats(1e-6, 1e6, allow_nan=False)
    )
    cells = draw(st.lists(value, min_size=rows * columns, max_size=rows * columns))
    return pd.DataFrame(
        np.reshape(cells, (rows, columns)),
        index=[f"o{i}" for i in range(rows)],
        columns=[f"w{i}" for i in range(columns)],
    )


def test_ratios_against_the_fastest_of_each_workload() -> None:
    times = table({"x": [10, 6, INF], "y": [20, 3, 5], "z": [NAN, 3, 10]})
    expected = table({"x": [1, 2, INF], "y": [2, 1, 1], "z": [INF, 1, 2]})
    pd.testing.assert_frame_equal(performance_ratios(times), expected, check_dtype=False)


def test_a_workload_nobody_reaches_is_inf_for_all_and_stays_in_the_denominator() -> None:
    times = table({"x": [1, INF], "y": [4, NAN]})
    assert performance_ratios(times)["b"].tolist() == [INF, INF]
    assert scores(times, r_max=2).tolist() == [0.5, 0.0]
    assert performance_profile(times, [1, 4, 1e300]).loc["y"].tolist() == [0.0, 0.5, 0.5]


def test_best_time_zero_gives_one_to_the_zeros_and_inf_to_the_others() -> None:
    ratios = performance_ratios(table({"x": [0], "y": [-0.0], "z": [1e-300], "n": [NAN]}))
    assert ratios["a"].tolist() == [1, 1, INF, INF]


def test_single_optimizer_is_fastest_wherever_it_arrives() -> None:
    times = table({"only": [3, INF, 7, 1]})
    assert performance_ratios(times).loc["only"].tolist() == [1, INF, 1, 1]
    assert scores(times, r_max=1.5).tolist() == [0.75]


def test_equal_times_share_the_best() -> None:
    times = table({"x": [0.1 + 0.2, 5], "y": [0.1 + 0.2, 5]})
    assert scores(times, r_max=3).tolist() == [1, 1]


def test_profile_counts_a_ratio_equal_to_tau() -> None:
    times = table({"x": [1, 1], "y": [2, 4]})
    profile = performance_profile(times, [0.5, 1, 2, 3.999, 4])
    assert profile.loc["y"].tolist() == [0, 0, 0.5, 0.5, 1]
    assert profile.columns.tolist() == [0.5, 1, 2, 3.999, 4]


def test_exact_integral_by_hand() -> None:
    # y is within tau on half of the workloads from 1.5 on, on all of them from 2 on; r_max = 4.
    times = table({"x": [2, 2], "y": [3, 4]})
    assert scores(times, r_max=4)["y"] == pytest.approx((0.5 * 0.5 + 1.0 * 2) / 3)
    assert scores(times, r_max=1.5)["y"] == 0


def test_trapezoid_over_given_taus_by_hand() -> None:
    times = table({"x": [2, 2], "y": [3, 4]})
    # Profile of y at 1, 2, 4: 0, 1, 1.
    assert scores(times, r_max=4, taus=[1, 2, 4])["y"] == pytest.approx((0.5 + 2) / 3)


@settings(max_examples=20)
@given(tables(), st.floats(1.1, 10))
def test_a_fine_trapezoid_approaches_the_exact_integral(times: pd.DataFrame, r_max: float) -> None:
    fine = scores(times, r_max=r_max, taus=np.linspace(1, r_max, 4001))
    np.testing.assert_allclose(fine, scores(times, r_max=r_max), atol=2 / 4000)


@settings(max_examples=60)
@given(tables(), st.randoms())
def test_order_of_rows_and_columns_never_matters(times: pd.DataFrame, random) -> None:  # type: ignore[no-untyped-def]
    rows, columns = list(times.index), list(times.columns)
    random.shuffle(rows)
    random.shuffle(columns)
    shuffled = times.loc[rows, columns]
    ratios = performance_ratios(shuffled)
    assert list(ratios.index) == rows
    assert list(ratios.columns) == columns
    pd.testing.assert_frame_equal(ratios, performance_ratios(times).loc[rows, columns])
    score = scores(shuffled, r_max=3)
    assert list(score.index) == rows
    np.testing.assert_allclose(score, scores(times, r_max=3)[rows], rtol=1e-12)


@settings(max_examples=60)
@given(tables())
def test_ratios_and_scores_stay_in_their_range(times: pd.DataFrame) -> None:
    ratios = performance_ratios(times)
    assert (ratios.to_numpy() >= 1).all()
    somebody = np.isfinite(times.min(axis=0))
    assert (ratios.min(axis=0)[somebody] == 1).all()
    for r_max, taus in itertools.product([1.5, 4.0], [None, 50]):
        grid = None if taus is None else np.linspace(1, r_max, taus)
        assert scores(times, r_max=r_max, taus=grid).between(0, 1 + 1e-12).all()


def test_nan_and_inf_are_the_same() -> None:
    never = table({"x": [1, INF], "y": [INF, 2], "z": [3, INF]})
    missing = never.replace(INF, NAN)
    pd.testing.assert_frame_equal(performance_ratios(never), performance_ratios(missing))


def test_input_is_left_alone() -> None:
    times = table({"x": [1.0, NAN], "y": [2.0, 3.0]})
    before = times.copy()
    scores(times, r_max=3)
    pd.testing.assert_frame_equal(times, before)


def test_empty_tables() -> None:
    no_workload = pd.DataFrame(index=["x", "y"])
    assert performance_ratios(no_workload).shape == (2, 0)
    assert performance_profile(no_workload, [1, 2]).isna().all(axis=None)
    assert scores(no_workload, r_max=3).isna().all()
    assert scores(no_workload, r_max=3, taus=[1, 3]).isna().all()
    no_optimizer = pd.DataFrame(columns=["a", "b"], dtype=float)
    assert performance_ratios(no_optimizer).shape == (0, 2)
    assert performance_profile(no_optimizer, [1, 2]).shape == (0, 2)
    assert scores(no_optimizer, r_max=3).empty
    assert scores(pd.DataFrame(), r_max=3).empty


@pytest.mark.parametrize("r_max", [1, 0.5, 0, -3, INF, NAN, "3", None])
def test_r_max_must_be_finite_and_above_one(r_max: float) -> None:
    with pytest.raises(ValueError, match="r_max: expected a finite number > 1"):
        scores(table({"x": [1.0]}), r_max=r_max)


@pytest.mark.parametrize(
    "taus", [[], [1], [1, 1, 3], [3, 1], [1, NAN, 3], [[1, 3]], [1, 2], [2, 3]]
)
def test_taus_must_increase_from_one_to_r_max(taus: list[float]) -> None:
    with pytest.raises(ValueError, match="taus: expected"):
        scores(table({"x": [1.0]}), r_max=3, taus=taus)


@pytest.mark.parametrize("value", [-1.0, -1e-300, -INF])
def test_negative_times_are_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match=r">= 0, got .* for y on b"):
        performance_ratios(table({"x": [1, 1], "y": [1, value]}))


def test_duplicates_are_refused_by_name() -> None:
    twice = pd.DataFrame([[1.0], [2.0]], index=["adam", "adam"], columns=["a"])
    with pytest.raises(ValueError, match="each optimizer must occur once, got twice: adam"):
        performance_ratios(twice)
    with pytest.raises(ValueError, match="each workload must occur once, got twice: adam"):
        performance_ratios(twice.T)


def test_other_things_than_tables_of_numbers_are_refused() -> None:
    with pytest.raises(TypeError, match="expected a pandas DataFrame"):
        performance_ratios({"x": [1.0]})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected numbers"):
        performance_ratios(pd.DataFrame({"a": ["soon"]}))
