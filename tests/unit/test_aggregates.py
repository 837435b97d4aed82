"""Aggregates without a floor: by hand, against SciPy, and their coverage against simulations."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from race import race
from scipy import stats

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Direction
from timetrial.tracking.scores.aggregates import (
    COLUMNS,
    aggregates,
    common_speedup,
    curve_area,
    normalised_final,
    optimality_gap,
)
from timetrial.tracking.scores.curves import Curve, curves
from timetrial.tracking.scores.evaluations import first_hit
from timetrial.tracking.scores.interquartile import (
    interquartile_mean,
    interval_coverage,
    pooled_deviations,
)
from timetrial.tracking.scores.levels import common_levels, level_times
from timetrial.tracking.scores.normalised import area_cells, final_cells, scales
from timetrial.tracking.scores.ranks import places
from timetrial.tracking.scores.resampling import Bootstrap, draw, interval

INF, NAN = math.inf, math.nan
FEW = Bootstrap(samples=400)


def run(
    optimizer: str, curve: list[float], *, workload: str = "w", seed: int = 0, **changes: Any
) -> RunRecord:
    """A run of 40 steps, evaluated every 10; smaller is better."""
    rows = [Row(i * 10, i * 5.0, {"validation/loss": v}) for i, v in enumerate(curve)]
    record = RunRecord(
        run_id=f"{workload}{optimizer}{seed}",
        workload=workload,
        optimizer=optimizer,
        seed=seed,
        condition="step",
        budget=40,
        metric="loss",
        direction=Direction.MINIMIZE,
        status="FINISHED",
        reason="BUDGET",
        step=rows[-1].step if rows else 0,
        train_seconds=rows[-1].train_seconds if rows else 0.0,
        evaluations=rows,
    )
    return dataclasses.replace(record, **changes)


def loaded(records: list[RunRecord]) -> list[Curve]:
    return curves(records, split="validation", condition="step")


def by_optimizer(table: pd.DataFrame) -> pd.DataFrame:
    assert tuple(table.columns) == COLUMNS
    return table.set_index("optimizer")


DIVERGED = {"status": "FAILED", "reason": "DIVERGED"}


def test_normalised_values_by_hand():
    records = [
        run("a", [10, 8, 6, 4, 2]),
        run("b", [10, 9, 8, 7, 6]),
        run("c", [10, 20, NAN, 11, 12]),
        run("d", [10, 1, 1], **DIVERGED),
    ]
    found = loaded(records)
    known = scales(found)
    assert dataclasses.astuple(known["w"]) == (10, 2)
    finals = {o: values.tolist() for (o, _), values in final_cells(found, known).items()}
    assert finals == {"a": [0.0], "b": [0.5], "c": [1.0], "d": [1.0]}
    area = {o: float(values[0]) for (o, _), values in area_cells(found, known).items()}
    # d: 1 to -1/8 in the first quarter, -1/8 in the second; the worst possible behind its end.
    quarter = 0.25
    assert area == pytest.approx(
        {"a": 0.5, "b": 0.75, "c": 1.0, "d": quarter * ((1 - 1 / 8) / 2 - 1 / 8 + 2)}
    )


def test_metrics_that_rise_are_normalised_alike():
    up = {"direction": Direction.MAXIMIZE}
    records = [run("a", [0.1, 0.5, 0.5, 0.5, 0.9], **up), run("b", [0.1, 0.1, 0.1, 0.3, 0.5], **up)]
    table = by_optimizer(normalised_final(loaded(records), options=FEW))
    assert table["estimate"].to_dict() == pytest.approx({"a": 0.0, "b": 0.5})
    assert table["rank"].to_dict() == {"a": 1, "b": 2}


def test_a_workload_without_any_progress_says_nothing():
    records = [
        *(run(o, [5, 6, 7, 8, 9], workload="stuck") for o in "ab"),
        run("a", [5, 4, 3, 2, 1]),
        run("b", [5, 4, 3, 2, 2]),
    ]
    assert list(scales(loaded(records))) == ["w"]
    table = aggregates(records, split="validation", condition="step", options=FEW)
    assert (table["workloads"] == 1).all()
    nothing = aggregates(records[:2], split="validation", condition="step", options=FEW)
    assert nothing["estimate"].isna().all()
    assert (nothing["workloads"] == 0).all()
    assert not nothing["tie"].any()
    assert aggregates([], split="validation", condition="step").empty


def test_area_of_runs_that_start_late_or_overshoot():
    late = run("a", [0.0, 0.0], evaluations=[Row(20, 10.0, {"validation/loss": 4.0})], budget=40)
    over = run(
        "b",
        [10.0],
        evaluations=[Row(s, float(s), {"validation/loss": v}) for s, v in ((0, 10), (80, 0))],
    )
    found = loaded([late, over])
    area = area_cells(found, scales(found))
    assert dataclasses.astuple(scales(found)["w"]) == (10, 0)
    assert area["a", "w"][0] == pytest.approx(0.5 * 1 + 0.5 * 0.4)
    assert area["b", "w"][0] == pytest.approx((1 + 0.5) / 2)  # 1 to 1/2 at the end of the budget
    nothing = area_cells(loaded([run("a", []), over]), scales(found))
    assert nothing["a", "w"][0] == 1


@pytest.mark.parametrize("count", [4, 12, 36])
def test_interquartile_means_are_scipys(count: int):
    values = np.random.default_rng(count).normal(size=(5, count))
    expected = stats.trim_mean(values, 0.25, axis=1)
    np.testing.assert_allclose(interquartile_mean(values, np.ones(count)), expected)
    uneven = np.random.default_rng(0).random(count) + 0.1
    one = interquartile_mean(values[0], uneven)
    repeated = np.repeat(values[0], (uneven * 10_000).round().astype(int))
    assert one == pytest.approx(stats.trim_mean(repeated, 0.25), abs=1e-3)


def test_interquartile_mean_by_hand():
    # Five values of 1/5: the middle half is 0.05 + 0.2 + 0.2 + 0.05 of 0.5.
    assert interquartile_mean(np.array([9.0, 1, 2, 3, 0]), np.ones(5)) == pytest.approx(
        2 * (0.15 * 1 + 0.2 * 2 + 0.15 * 3)
    )
    assert interquartile_mean(np.array([1.0]), np.ones(1)) == 1
    # A workload with one trial weighs as much as one with three.
    values, weights = np.array([0.0, 1.0, 1.0, 1.0]), np.array([3.0, 1.0, 1.0, 1.0])
    assert interquartile_mean(values, weights) == pytest.approx(0.5)


def test_every_workload_weighs_the_same_and_none_is_left_out():
    records = [
        *(run("a", [4, 3, 2, 1, 0], workload=w, seed=s) for w in "uvwx" for s in range(3)),
        *(run("b", [4, 3, 2, 1, 0], workload=w, seed=s) for w in "uvw" for s in range(3)),
    ]
    for make in (normalised_final, optimality_gap, curve_area):
        table = by_optimizer(make(loaded(records), options=FEW))
        assert table.loc["b", "trials"] == 0
        assert table.loc["b", "few"]
        assert table.loc["a", "rank"] == 1
    gap = by_optimizer(optimality_gap(loaded(records), options=FEW))
    assert gap["estimate"].to_dict() == {"a": 0.0, "b": 0.25}  # x: no run, the worst possible


def test_optimality_gap_by_hand():
    records = [
        *(run("a", [10, 5, 5, 5, v], seed=s) for s, v in enumerate((1, 2, 6))),
        *(run("b", [10, 5, 5, 5, v], seed=s) for s, v in enumerate((6, 8))),
        run("b", [10, 3], seed=2, **DIVERGED),
    ]
    table = by_optimizer(optimality_gap(loaded(records), {"w": 2.0}, options=FEW))
    # a: 0 (beyond the target), 0 (at it), 4/8; b: 4/8, 6/8, 1.
    assert table["estimate"].to_dict() == pytest.approx({"a": 0.5 / 3, "b": 2.25 / 3})
    theirs = stats.t.interval(0.95, 2, 0.5 / 3, stats.sem([0, 0, 0.5]))
    assert table.loc["a", "low"] == 0  # not below the best possible gap
    assert table.loc["a", "high"] == pytest.approx(theirs[1])
    assert table.loc["a", "coverage"] == 0.95
    assert math.isnan(
        table.loc["b", "coverage"]
    )  # one run at the worst possible is no normal error
    assert table.loc["b", "high"] == 1
    to_best = by_optimizer(optimality_gap(loaded(records), options=FEW))
    assert to_best.loc["a", "estimate"] == pytest.approx((0 + 1 / 9 + 5 / 9) / 3)
    reached = optimality_gap(loaded(records), {"w": 10.0}, options=FEW)
    assert reached["estimate"].tolist() == pytest.approx([0, 1 / 3])
    nobody = optimality_gap(loaded(records), {}, options=FEW)
    assert nobody["estimate"].isna().all()


def test_t_intervals_over_workloads_are_satterthwaites():
    """Two groups with equal spread: as many degrees of freedom as the pooled t interval has."""
    values = {"u": (3.0, 4.0, 5.0), "v": (1.0, 2.0, 3.0)}
    records = [
        run("a", [10, 9, 9, 9, v], workload=w, seed=s)
        for w, row in values.items()
        for s, v in enumerate(row)
    ] + [run("b", [10, 9, 9, 9, 0], workload=w, seed=s) for w in "uv" for s in range(3)]
    row = by_optimizer(optimality_gap(loaded(records), options=FEW)).loc["a"]
    half = stats.t.ppf(0.975, 4) * math.sqrt(2 * 0.1**2 / 3) / 2
    assert row["estimate"] == pytest.approx((0.4 + 0.2) / 2)
    assert (row["low"], row["high"]) == (pytest.approx(0.3 - half), pytest.approx(0.3 + half))


def test_single_trials_have_no_t_interval():
    table = optimality_gap(loaded([run("a", [4, 3, 2, 1, 0]), run("b", [4, 3, 2, 2, 2])]))
    assert table[["low", "high", "coverage"]].isna().all(axis=None)
    assert table["few"].all()


def test_common_level_is_what_all_reach_in_the_median():
    records = [
        *(run("a", [10, 6, 4, 3, v], seed=s) for s, v in enumerate((1, 2, 3))),
        *(run("b", [10, 9, 8, 7, v], seed=s) for s, v in enumerate((5, 6, 7))),
    ]
    assert common_levels(loaded(records)) == {"w": 6}
    table = by_optimizer(common_speedup(loaded(records), options=FEW))
    # a: 10 steps in every trial; b: 40, 40 and never, the median is 40.
    assert table["estimate"].to_dict() == pytest.approx({"a": 2.0, "b": 0.5})
    assert table["rank"].to_dict() == {"a": 1, "b": 2}
    named = by_optimizer(common_speedup(loaded(records), "b", options=FEW))
    assert named["estimate"].to_dict() == pytest.approx({"a": 4.0, "b": 1.0})
    assert named.loc["b", ["low", "high"]].tolist() == [1, 1]
    with pytest.raises(KeyError, match="baseline: expected one of a, b, got 'c'"):
        common_speedup(loaded(records), "c")
    seconds = curves(
        [dataclasses.replace(r, condition="time", budget=20.0) for r in records],
        split="validation",
        condition="time",
    )
    assert level_times(seconds, {"w": 6.0}).trials["a", "w"].tolist() == [5, 5, 5]


def test_runs_that_ended_early_set_no_level_and_never_count_as_faster():
    records = [
        *(run("a", [10, 6, 4, 3, 2], seed=s) for s in range(3)),
        *(run("b", [10, 9, 9, 8, 3], seed=s) for s in range(3)),
        *(run("c", [10, 9.5], seed=s, **DIVERGED) for s in range(3)),
    ]
    assert common_levels(loaded(records)) == {"w": 3}
    table = by_optimizer(common_speedup(loaded(records), "b", options=FEW))
    assert table["estimate"].to_dict() == pytest.approx({"a": 4 / 3, "b": 1.0, "c": 1.0})
    lost = [r for r in records if r.optimizer == "c"]
    assert common_levels(loaded(lost)) == {}
    assert common_speedup(loaded(lost)).loc[0, "workloads"] == 0
    # An optimizer without any run on a workload takes its whole budget, too.
    more = [*records, *(run(o, [10, 9, 5, 1, 1], workload="v", seed=0) for o in "ab")]
    both = by_optimizer(common_speedup(loaded(more), "a", options=FEW))
    assert both.loc["c", "estimate"] == pytest.approx(math.sqrt(30 / 40 * 30 / 40))


def test_a_level_reached_before_the_first_update_takes_the_first_moment():
    records = [
        run("a", [4.0, 6, 6, 3, 3]),
        run("b", [8.0, 6, 5, 5, 5]),
        run("c", [9.0, 5, 5, 5, 5]),
    ]
    assert common_levels(loaded(records)) == {"w": 5}
    times = level_times(loaded(records), {"w": 5.0})
    assert {o: v.tolist() for (o, _), v in times.trials.items()} == {
        "a": [10],
        "b": [20],
        "c": [10],
    }


def test_times_to_many_goals_are_those_of_first_hit():
    random_ = np.random.default_rng(0)
    for repetition in range(200):
        values = random_.normal(size=8).round(1)
        values[random_.random(8) < 0.3] = random_.choice([NAN, INF, -INF])
        direction = list(Direction)[repetition % 2]
        moments = np.sort(random_.random(8)) if repetition % 3 else random_.random(8)
        moments[random_.random(8) < 0.1] = NAN
        curve = loaded([run("a", values.tolist(), direction=direction)])[0]
        curve = dataclasses.replace(curve, moments=moments)
        goals = np.append(random_.normal(size=20).round(1), NAN)
        expected = [
            INF if (hit := first_hit(values, moments, goal, direction)) is None else hit[1]
            for goal in goals
        ]
        np.testing.assert_array_equal(curve.times_to(goals), expected)
    assert loaded([run("a", [])])[0].times_to(np.array([1.0])).tolist() == [INF]


def test_equal_optimizers_share_a_place_and_are_called_ties():
    records = [run(o, [4, 3, 2, 1, 0], seed=s) for o in "ab" for s in range(3)]
    records += [run("c", [4, 4, 4, 4, 3], seed=s) for s in range(3)]
    table = aggregates(records, split="validation", condition="step", options=FEW)
    for _, part in table.groupby("measure"):
        assert part.set_index("optimizer")["rank"].to_dict() == {"a": 1, "b": 1, "c": 3}
        assert part.set_index("optimizer")["tie"].to_dict() == {"a": True, "b": True, "c": False}
    score = pd.Series({"a": -0.5, "b": -0.5 - 1e-15, "c": NAN, "d": NAN, "e": -0.7})
    assert places(score)["rank"].to_dict() == {"a": 1, "b": 1, "e": 3, "c": 4, "d": 4}
    assert places(score)["tie"].to_dict() == {
        "a": True,
        "b": True,
        "c": False,
        "d": False,
        "e": False,
    }
    assert places(score, larger_is_better=False)["rank"]["e"] == 1


def test_a_race_in_any_order_with_bytes_that_stay():
    records = race(conditions=("step",))
    shuffled = list(records)
    random.Random(1).shuffle(shuffled)
    for metric in ("deciding", "loss"):
        tables = [
            aggregates(r, split="validation", condition="step", metric=metric, options=FEW)
            for r in (records, shuffled)
        ]
        pd.testing.assert_frame_equal(*tables)
        assert tables[0].groupby("measure", sort=False).size().to_dict() == dict.fromkeys(
            ["normalised_final", "optimality_gap", "speedup", "curve_area"], 7
        )
        known = tables[0].dropna(subset=["low", "high"])
        assert (known["low"] <= known["estimate"]).all()
        assert (known["estimate"] <= known["high"]).all()
        assert tables[0]["estimate"].notna().all()
    last = tables[0].query("measure == 'normalised_final'").sort_values("estimate").iloc[-1]
    assert last["optimizer"] == "heavy_ball"  # all its runs of one workload diverged
    with pytest.raises(ValueError, match="metric: expected deciding or loss, got 'acc'"):
        curves(records, split="validation", condition="step", metric="acc")  # type: ignore[arg-type]


def test_intervals_resample_trials_within_workloads():
    random_ = np.random.default_rng(3)
    records = [
        run(o, [10, 9, 8, 7, float(random_.uniform(1, 3))], workload=w, seed=s)
        for o in "ab"
        for w in "uvw"
        for s in range(3)
    ]
    table = by_optimizer(normalised_final(loaded(records), options=FEW))
    cells = final_cells(loaded(records), scales(loaded(records)))
    samples = []
    for k in range(FEW.samples):
        drawn = [cells["a", w][draw(3, (w, "a"), FEW)[:, k]] for w in "uvw"]
        samples.append(interquartile_mean(np.concatenate(drawn), np.ones(9)))
    low, high = interval(np.array(samples), np.asarray(0.0), FEW)
    assert table.loc["a", ["low", "high"]].tolist() == pytest.approx([float(low), float(high)])


def test_coverage_of_interquartile_means_is_that_of_the_intervals():
    random_ = np.random.default_rng(0)
    centres = {"u": 0.2, "v": 0.25, "w": 0.3, "x": 0.5}
    large = {("a", w): random_.normal(m, 0.05, 3) for w, m in centres.items()}
    recorded = {w: large["a", w] - large["a", w].mean() + m for w, m in centres.items()}
    expected = interval_coverage(recorded, dict.fromkeys(centres, 0.05), FEW)
    exact = np.concatenate([random_.normal(m, 0.05, 200_000) for m in centres.values()])
    truth = float(stats.trim_mean(exact, 0.25))
    hits = 0
    for repetition in range(400):
        cells = [random_.normal(m, 0.05, 3) for m in centres.values()]
        drawn = [v[draw(3, (str(repetition), str(k)), FEW)] for k, v in enumerate(cells)]
        samples = interquartile_mean(np.concatenate(drawn).T, np.ones(12))
        low, high = interval(samples, np.asarray(0.0), FEW)
        hits += bool(low <= truth <= high)
    assert abs(hits / 400 - expected) < 4 * math.sqrt(
        expected * (1 - expected) * (1 / 400 + 1 / 200)
    )
    assert math.isnan(interval_coverage({"u": np.ones(3)}, {"u": 0.1}, FEW))


def test_t_intervals_over_workloads_cover_what_they_say():
    random_ = np.random.default_rng(4)
    centres = {"u": 0.2, "v": 0.4, "w": 0.6}
    hits = 0
    for _ in range(300):
        records = [run("b", [1, 1, 1, 1, 0], workload=w, seed=s) for w in centres for s in range(2)]
        records += [
            run("a", [1, 1, 1, 1, random_.normal(m, 0.03)], workload=w, seed=s)
            for w, m in centres.items()
            for s in range(3)
        ]
        row = optimality_gap(loaded(records), dict.fromkeys(centres, 0.0)).iloc[0]
        hits += bool(row["low"] <= 0.4 <= row["high"])
    assert abs(hits / 300 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 300)


def test_pooled_deviations_by_hand():
    cells = {
        ("a", "w"): np.array([0.1, 0.3, 1.0]),
        ("b", "w"): np.array([0.2, 0.2, 0.5]),
        ("a", "v"): np.array([1.0, 0.4]),
    }
    # Squares 0.02 and 0.06 with 1 and 2 degrees of freedom; the worst possible does not deviate.
    assert pooled_deviations(cells) == pytest.approx({"w": math.sqrt(0.08 / 3), "v": 0.0})
