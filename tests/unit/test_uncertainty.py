"""Intervals, probability of improvement and rank stability."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from race import race
from scipy import stats

from timetrial.framework.types import Direction
from timetrial.tracking.scores.final_quality import final_quality, final_values
from timetrial.tracking.scores.ranks import (
    agreement,
    leave_one_workload_out,
    over_r_max,
    ranks,
    scores_over_r_max,
    stability,
)
from timetrial.tracking.scores.resampling import (
    Bootstrap,
    accelerate,
    draw,
    interval,
    median_of_draws,
    medians_without_one,
)
from timetrial.tracking.scores.scoring import (
    areas,
    performance_profile,
    performance_ratios,
    scores,
    speedups,
    wins,
)
from timetrial.tracking.scores.targets import targets, time_to_target, trial_times
from timetrial.tracking.scores.uncertainty import (
    probability_of_improvement,
    quality_intervals,
    race_intervals,
)

INF, NAN = np.inf, np.nan
FEW = Bootstrap(samples=500)


def trials(cells: dict[tuple[str, str], list[float]]) -> pd.DataFrame:
    rows = [(w, o, s, v) for (o, w), values in cells.items() for s, v in enumerate(values)]
    return pd.DataFrame(rows, columns=["workload", "optimizer", "seed", "value"])


def random_trials(seed: int, count: int = 5) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return trials(
        {
            (o, w): np.where(
                random.random(count) < 0.1, INF, random.lognormal(3, 0.5, count)
            ).tolist()
            for o in "abc"
            for w in ("u", "v", "w")
        }
    )


def test_bca_of_a_mean_is_scipys():
    values = np.random.default_rng(1).lognormal(0, 1, 25)
    options = Bootstrap(samples=20_000, method="bca")
    samples = values[draw(len(values), ("w", "a"), options)].mean(axis=0)
    speed = accelerate([(values.sum() - values) / (len(values) - 1)])
    low, high = interval(samples, np.asarray(values.mean()), options, speed)
    theirs = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    spread = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.03 * spread)
    assert high == pytest.approx(theirs.high, abs=0.05 * spread)
    percentile = interval(samples, np.asarray(values.mean()), Bootstrap(samples=20_000))
    assert high > percentile[1] + 0.05 * spread  # the correction moves a skewed mean's interval


def test_acceleration_of_several_samples_by_hand():
    # Two samples of 2: l = (n - 1)(mean - without) = (+-1/2), (+-1); scaled by 1/n.
    found = accelerate([np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])])
    assert found.shape == (1,)
    assert found[0] == 0  # symmetric
    skewed = [np.array([0.0, 0.0, 3.0])]
    scaled = (2 / 3) * (1 - skewed[0])
    assert accelerate(skewed) == pytest.approx(
        (scaled**3).sum() / (scaled**2).sum() ** 1.5 / 6, abs=1e-12
    )
    assert accelerate([np.array([INF, 1.0, 2.0])]) == 0
    assert accelerate([np.array([1.0, 1.0])]) == 0


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10])
def test_medians_are_numpys(count: int):
    random = np.random.default_rng(count)
    values = np.where(random.random(count) < 0.3, INF, random.random(count))
    draws = draw(count, ("w", "a"), FEW)
    assert draws.shape == (count, 500)
    expected = [np.median(np.sort(values[column])) for column in draws.T]
    np.testing.assert_allclose(median_of_draws(values, draws), expected)
    if count > 1:
        left = [np.median(np.delete(values, k)) for k in range(count)]
        np.testing.assert_allclose(medians_without_one(values), left)


def test_draws_depend_on_seed_and_cell_only():
    one = draw(4, ("w", "a"), FEW)
    assert np.array_equal(one, draw(4, ("w", "a"), FEW))
    assert not np.array_equal(one, draw(4, ("w", "b"), FEW))
    assert not np.array_equal(one, draw(4, ("w", "a"), dataclasses.replace(FEW, seed=1)))
    shares = np.bincount(draw(4, ("w", "a"), Bootstrap()).ravel()) / 40_000
    assert np.abs(shares - 0.25).max() < 0.02


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_estimates_are_those_of_scoring_and_lie_inside(method: str):
    table = random_trials(0)
    options = dataclasses.replace(FEW, method=method)
    found = race_intervals(table, r_max=3, options=options)
    medians = table.groupby(["optimizer", "workload"])["value"].median().unstack()
    pivot = found.times.pivot(index="optimizer", columns="workload", values="estimate")
    pd.testing.assert_frame_equal(pivot, medians, check_names=False)
    ratios = found.ratios.pivot(index="optimizer", columns="workload", values="estimate")
    pd.testing.assert_frame_equal(ratios, performance_ratios(medians), check_names=False)
    score = found.scores.set_index("optimizer")["estimate"]
    np.testing.assert_allclose(score, scores(medians, r_max=3))
    for part in (found.times, found.ratios, found.scores):
        assert (part["low"] <= part["high"]).all()
        assert (part["trials"] == 5).all()
        assert not part["few"].any()
    for part in (found.times, found.ratios):
        assert ((part["low"] <= part["estimate"]) & (part["estimate"] <= part["high"])).all()
    assert found.score_samples.shape == (3, 500)
    assert 1 <= found.first.sum() <= 1.5
    trapezoid = race_intervals(table, r_max=4, taus=np.linspace(1, 4, 100), options=options)
    expected = scores(medians, r_max=4, taus=np.linspace(1, 4, 100))
    np.testing.assert_allclose(trapezoid.scores["estimate"], expected)


def test_resampled_scores_against_a_loop():
    table = random_trials(3, count=3)
    options = Bootstrap(samples=40)
    found = race_intervals(table, r_max=2, options=options)
    values = {key: g["value"].to_numpy() for key, g in table.groupby(["optimizer", "workload"])}
    for k in range(options.samples):
        medians = pd.Series(
            {
                (o, w): np.median(cell[draw(3, (w, o), options)[:, k]])
                for (o, w), cell in values.items()
            }
        ).unstack()
        np.testing.assert_allclose(found.score_samples[k], scores(medians, r_max=2))


def test_bca_jackknife_of_scores_against_a_loop():
    table = random_trials(5, count=3)
    table = table[table["value"] < INF]
    groups = {key: g["value"].to_numpy() for key, g in table.groupby(["optimizer", "workload"])}

    def score(cells: dict[tuple[str, str], np.ndarray]) -> np.ndarray:
        medians = pd.Series({key: np.median(v) for key, v in cells.items()}).unstack()
        return scores(medians, r_max=3).to_numpy()

    influences = [
        np.array([score({**groups, key: np.delete(v, k)}) for k in range(len(v))])
        for key, v in groups.items()
        if len(v) > 1
    ]
    options = Bootstrap(samples=3000, method="bca")
    found = race_intervals(table, r_max=3, options=options)
    low, high = interval(
        found.score_samples.to_numpy(), score(groups), options, accelerate(influences)
    )
    np.testing.assert_allclose(found.scores["low"], low)
    np.testing.assert_allclose(found.scores["high"], high)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_order_of_rows_and_other_optimizers_never_matter(method: str):
    table = random_trials(1)
    options = dataclasses.replace(FEW, method=method)
    found = race_intervals(table, r_max=3, options=options)
    mixed = race_intervals(table.sample(frac=1, random_state=0), r_max=3, options=options)
    pd.testing.assert_frame_equal(found.scores, mixed.scores)
    pd.testing.assert_frame_equal(found.times, mixed.times)
    without = race_intervals(table[table["optimizer"] != "c"], r_max=3, options=options)
    both = found.times[found.times["optimizer"] != "c"].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, without.times)


def test_one_trial_has_a_point_for_an_interval_and_is_marked():
    table = trials({("a", "w"): [5.0], ("b", "w"): [5.0, 7.0, 9.0], ("b", "v"): [1.0, 2.0]})
    for method in ("percentile", "bca"):
        found = race_intervals(table, r_max=3, options=dataclasses.replace(FEW, method=method))
        times = found.times.set_index(["optimizer", "workload"])
        assert times.loc[("a", "w"), ["low", "high", "trials", "few"]].tolist() == [5, 5, 1, True]
        nobody = times.loc[("a", "v")]
        assert nobody.drop("coverage").tolist() == [INF, INF, INF, 0, True]
        assert math.isnan(nobody["coverage"])
        assert not times.loc[("b", "w"), "few"]
        assert times.loc[("b", "v"), "few"]
        assert found.scores.set_index("optimizer")["trials"].to_dict() == {"a": 0, "b": 2}


def test_never_inf_zero_and_nan_times():
    cells = {
        ("a", "w"): [INF, INF, INF],
        ("b", "w"): [NAN, NAN, 3.0],
        ("a", "v"): [0.0, 0.0, 0.0],
        ("b", "v"): [0.0, 1.0, INF],
    }
    for method in ("percentile", "bca"):
        options = dataclasses.replace(FEW, method=method)
        found = race_intervals(trials(cells), r_max=3, options=options)
        for part in (found.times, found.ratios, found.scores):
            assert not part[["estimate", "low", "high"]].isna().any(axis=None)
        b = found.times.set_index(["optimizer", "workload"]).loc[("b", "w")]
        assert (b["estimate"], b["low"], b["high"]) == (INF, 3.0, INF)
    assert race_intervals(trials({}), r_max=3, options=FEW).scores.empty
    with pytest.raises(ValueError, match="times >= 0"):
        race_intervals(trials({("a", "w"): [-1.0]}), r_max=3)
    twice = pd.concat([trials(cells)] * 2)
    with pytest.raises(ValueError, match="got twice w, a, 0"):
        race_intervals(twice, r_max=3)


def test_intervals_of_a_race_shrink_with_trials_and_cover_the_truth():
    """Coverage of a 90 % interval of a mean of 20 normal values, over 300 repetitions."""
    options = Bootstrap(samples=400, level=0.9)
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        values = random.normal(1.0, 1.0, 20)
        samples = values[draw(20, ("w", "a"), options)].mean(axis=0)
        low, high = interval(samples, np.asarray(values.mean()), options)
        hits += bool(low <= 1.0 <= high)
    assert 0.80 < hits / 300 < 0.96


def test_quality_intervals_rest_on_the_finite_trials():
    records = race()
    finals = final_values(records)
    found = quality_intervals(finals, options=FEW)
    quality = final_quality(records)
    keys = ["condition", "workload", "optimizer", "split", "metric"]
    both = found.merge(quality, on=keys)
    assert len(both) == len(found) > 190
    np.testing.assert_allclose(both["estimate"], both["mean"])
    assert (both["trials"] == both["finite"]).all()
    assert (found["few"] == (found["trials"] < 3)).all()
    known = found[found["trials"] > 1]
    assert ((known["low"] <= known["estimate"]) & (known["estimate"] <= known["high"])).all()
    assert (known["low"] < known["high"]).all()
    lost = found[found["trials"] == 0]
    assert len(lost)
    assert lost["low"].isna().all()
    for row in known.itertuples():
        here = both.loc[row.Index]
        half = stats.t.ppf(0.975, row.trials - 1) * here["std"] / math.sqrt(row.trials)
        assert row.high - row.estimate == pytest.approx(half)
        assert row.estimate - row.low == pytest.approx(half)
    assert (known["coverage"] == 0.95).all()
    assert lost["coverage"].isna().all()
    narrow = quality_intervals(finals, options=dataclasses.replace(FEW, level=0.8))
    assert (narrow["high"] < found["high"])[found["trials"] > 1].all()
    assert set(narrow["coverage"].dropna()) == {0.8}


def test_quality_of_one_trial_or_of_equal_ones_tells_nothing_about_the_spread():
    columns = ["condition", "workload", "optimizer", "split", "metric", "seed", "value"]
    rows = [("step", "w", name, "train", "loss", seed, 0.5) for name, seed in ("a0", "b0", "b1")]
    found = quality_intervals(pd.DataFrame(rows, columns=columns)).set_index("optimizer")
    assert found["estimate"].tolist() == [0.5, 0.5]
    assert found.loc["a", ["low", "high", "coverage"]].isna().all()
    assert found.loc["b", ["low", "high"]].tolist() == [0.5, 0.5]
    assert math.isnan(found.loc["b", "coverage"])


def test_probability_of_improvement_by_hand():
    table = trials(
        {("a", "w"): [1, 2], ("b", "w"): [2, 3], ("a", "v"): [INF, INF], ("b", "v"): [INF, NAN]}
    )
    found = probability_of_improvement(table, options=FEW).set_index(["optimizer", "other"])
    # w: (1<2) (1<3) (2=2) (2<3) -> 3.5/4; v: nobody arrives: 1/2.
    assert found.loc[("a", "b"), "probability"] == (3.5 / 4 + 0.5) / 2
    assert found.loc[("b", "a"), "probability"] == 1 - (3.5 / 4 + 0.5) / 2
    assert found.loc[("a", "b"), "low"] == 1 - found.loc[("b", "a"), "high"]
    assert found["few"].all()
    assert found["workloads"].tolist() == [2, 2]


def test_probability_of_improvement_resamples_trials():
    table = random_trials(2)
    found = probability_of_improvement(table, options=FEW)
    assert len(found) == 6
    assert ((found["low"] <= found["probability"]) & (found["probability"] <= found["high"])).all()
    assert (found["low"] < found["high"]).all()
    a, b = (
        table[(table["optimizer"] == o) & (table["workload"] == "w")]["value"].to_numpy()
        for o in "ab"
    )
    alone = table[(table["workload"] == "w") & table["optimizer"].isin(["a", "b"])]
    samples = [
        np.mean([(x < y) + (x == y) / 2 for x, y in itertools.product(a[i], b[j])])
        for i, j in zip(draw(5, ("w", "a"), FEW).T, draw(5, ("w", "b"), FEW).T, strict=True)
    ]
    expected = interval(np.array(samples), np.asarray(0.5), FEW)
    row = probability_of_improvement(alone, options=FEW).iloc[0]
    assert (row["low"], row["high"]) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_probability_of_improvement_knows_the_direction():
    table = trials({("a", "w"): [0.9, NAN], ("b", "w"): [0.5, 0.6]})
    up = {"w": Direction.MAXIMIZE}
    found = probability_of_improvement(table, directions=up, options=FEW)
    assert found["probability"].tolist() == [0.5, 0.5]  # the run that diverged loses both pairs
    down = {"w": Direction.MINIMIZE}
    assert probability_of_improvement(table, directions=down, options=FEW)["probability"][0] == 0
    apart = trials({("a", "w"): [1.0], ("b", "v"): [1.0]})
    assert probability_of_improvement(apart, options=FEW).empty


@pytest.mark.parametrize(
    ("field", "value"),
    [("samples", 0), ("seed", -1), ("level", 1.0), ("level", 0.0), ("method", "normal")],
)
def test_options_are_checked(field: str, value: object):
    with pytest.raises(ValueError, match=f"{field}: expected"):
        Bootstrap(**{field: value})


TIMES = pd.DataFrame(
    {"u": [1.0, 2.0, INF], "v": [4.0, 2.0, INF], "w": [1.0, 2.0, 1.1]}, index=["a", "b", "c"]
)


def test_ranks_share_the_better_place():
    score = pd.Series({"a": 0.5, "b": 0.5 + 1e-15, "c": NAN, "d": 0.7})
    assert ranks(score).to_dict() == {"d": 1, "a": 2, "b": 2, "c": 4}


def test_leaving_a_workload_out_and_r_max_change_ranks():
    left = leave_one_workload_out(TIMES, r_max=4)
    assert left.index.tolist() == ["none", "u", "v", "w"]
    for workload in "uvw":
        expected = ranks(scores(TIMES.drop(columns=workload), r_max=4))
        assert left.loc[workload].to_dict() == expected.to_dict()
    limits = over_r_max(TIMES, [1.05, 4])
    assert limits.index.tolist() == [1.05, 4]
    assert limits.loc[4].to_dict() == ranks(scores(TIMES, r_max=4)).to_dict()
    assert scores_over_r_max(TIMES, [4]).loc[4, "a"] == scores(TIMES, r_max=4)["a"]
    table = pd.DataFrame({"a": [1, 2], "b": [2, 1], "c": [3, 3]})
    assert stability(table).loc["a"].tolist() == [1, 1, 2, 0.5]
    assert agreement(table).tolist() == [1, pytest.approx(2 / 3)]
    assert agreement(table[["a"]]).isna().all()
    assert leave_one_workload_out(TIMES[["u"]], r_max=4).index.tolist() == ["none"]


def test_wins_and_speedups_by_hand():
    assert wins(TIMES).to_dict() == {"a": 2, "b": 1, "c": 0}
    found = speedups(TIMES, "b")
    assert found["workloads"].to_dict() == {"a": 3, "b": 3, "c": 1}
    assert found["speedup"]["a"] == pytest.approx((2 * 0.5 * 2) ** (1 / 3))
    assert found["speedup"]["b"] == 1
    assert found["speedup"]["c"] == pytest.approx(2 / 1.1)
    budgets = {"u": 9, "v": 9, "w": 9}
    within = speedups(TIMES, "b", budgets=budgets)
    assert within["speedup"]["c"] == pytest.approx((2 / 9 * 2 / 9 * 2 / 1.1) ** (1 / 3))
    assert within["workloads"].tolist() == [3, 3, 3]
    nobody = speedups(TIMES[["u"]].loc[["c", "a"]], "c")
    assert math.isnan(nobody["speedup"]["a"])
    with pytest.raises(KeyError, match="baseline: expected one of a, b, c"):
        speedups(TIMES, "d")
    with pytest.raises(KeyError, match="got none for \\['w'\\]"):
        speedups(TIMES, "b", budgets={"u": 1, "v": 1})


def test_areas_are_those_under_the_profile():
    taus = np.linspace(1, 4, 7)
    for ratio in (1, 1.5, 1.6, 2, 2.5, 4, 4.1, INF):
        times = pd.DataFrame({"w": [1.0, ratio]}, index=["best", "x"])
        profile = performance_profile(times, taus).loc["x"]
        under = np.trapezoid(profile, taus) / 3
        assert areas(np.array([ratio]), r_max=4, taus=taus)[0] == pytest.approx(under)
        assert areas(np.array([ratio]), r_max=4)[0] == pytest.approx(max(4 - ratio, 0) / 3)


def test_intervals_read_off_by_hand():
    samples = np.random.default_rng(0).permutation(np.arange(1.0, 1001.0))
    options = Bootstrap(samples=1000, level=0.9)
    assert interval(samples, np.asarray(500.5), options) == (50, 950)
    # 699 values below 700 and one equal: bias = z(0.6995); without acceleration the ends are at
    # Phi(2 bias -+ 1.645).
    bca = dataclasses.replace(options, method="bca")
    low, high = interval(samples, np.asarray(700.0), bca)
    bias = stats.norm.ppf(0.6995)
    expected = [
        math.ceil(1000 * stats.norm.cdf(2 * bias + z)) for z in stats.norm.ppf([0.05, 0.95])
    ]
    assert [low, high] == expected == [275, 997]
    moved = bias + stats.norm.ppf([0.05, 0.95])
    expected = [math.ceil(1000 * p) for p in stats.norm.cdf(bias + moved / (1 - 0.05 * moved))]
    assert [*interval(samples, np.asarray(700.0), bca, np.asarray(0.05))] == expected


def test_intervals_leave_nan_out_and_keep_inf():
    samples = np.array([[1.0, NAN, 3.0, INF], [NAN, NAN, NAN, NAN]])
    low, high = interval(samples, np.array([1.0, NAN]), Bootstrap(samples=4, level=0.5))
    assert (low[0], high[0]) == (1.0, INF)
    assert np.isnan([low[1], high[1]]).all()


def test_scoring_a_recorded_race_with_intervals():
    records = race()
    for condition, unit in (("time", "seconds"), ("step", "steps")):
        goals = targets(records, split="validation", condition=condition)
        table = trial_times(records, goals, "validation", unit, condition=condition)
        times = time_to_target(records, goals, "validation", unit, condition=condition)
        found = race_intervals(table, r_max=3, options=FEW)
        np.testing.assert_allclose(
            found.scores.set_index("optimizer")["estimate"], scores(times, r_max=3)
        )
