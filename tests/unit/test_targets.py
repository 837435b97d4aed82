"""Targets, times to target and final quality from recorded runs."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import numpy as np
import pandas as pd
import pytest

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Direction
from timetrial.tracking.scores.final_quality import final_quality, final_value
from timetrial.tracking.scores.fixed_targets import give_targets
from timetrial.tracking.scores.scoring import performance_ratios, scores
from timetrial.tracking.scores.targets import (
    evaluations_of,
    target_table,
    targets,
    time_to_target,
    trial_times,
    trials,
)

INF, NAN = math.inf, math.nan


def run(
    optimizer: str, curve: list[float], *, seed: int = 0, every: int = 10, **changes: Any
) -> RunRecord:
    """A run evaluated every ``every`` steps, at half a charged second per step."""
    rows = [Row(i * every, i * every / 2, {"validation/acc": v}) for i, v in enumerate(curve)]
    last = rows[-1] if rows else Row(0, 0.0, {})
    record = RunRecord(
        run_id=f"{optimizer}{seed}",
        workload="w",
        optimizer=optimizer,
        seed=seed,
        condition="step",
        budget=40,
        metric="acc",
        direction=Direction.MAXIMIZE,
        status="FINISHED",
        reason="BUDGET",
        step=last.step,
        train_seconds=last.train_seconds,
        evaluations=rows,
    )
    return dataclasses.replace(record, **changes)


def target(records: list[RunRecord], condition: str = "step", **kwargs: Any) -> float:
    return float(targets(records, split="validation", condition=condition, **kwargs)["w"])


def times(records: list[RunRecord], goal: float, unit: Any = "steps") -> dict[str, float]:
    return time_to_target(records, {"w": goal}, "validation", unit)["w"].to_dict()  # type: ignore[return-value]


def test_target_is_the_best_median_at_three_quarters_of_the_budget() -> None:
    records = [
        run("x", [0, 0.1, 0.2, value, 0.99], seed=seed)
        for seed, value in enumerate([0.3, 0.5, 0.9])
    ] + [run("y", [0, 0.1, 0.2, 0.4, 0.99], seed=seed) for seed in range(3)]
    assert target(records) == 0.5
    assert target(records, at=1.0) == 0.99
    assert target(records, at=0.74) == 0.2


def test_three_quarters_of_a_time_budget_are_charged_seconds() -> None:
    slow = run("x", [0, 1, 2, 3, 4], condition="time", budget=20.0)
    assert target([slow], "time") == 3
    assert target([dataclasses.replace(slow, budget=19.9)], "time") == 2
    with pytest.raises(KeyError):
        target([slow], "step")


def test_a_run_that_is_evaluated_at_the_mark_is_read_there() -> None:
    """The first update at or beyond 75 % of a time budget is up to one update late."""
    moments = (0.0, 7.0, 7.6, 10.0)
    rows = [Row(i, moment, {"validation/acc": moment / 10}) for i, moment in enumerate(moments)]
    late = dataclasses.replace(
        run("x", [0, 1], condition="time", budget=10.0), evaluations=rows, step=3, train_seconds=10
    )
    marked = dataclasses.replace(late, tags={**late.tags, "evaluated_at": "0.75"})
    assert target([late], "time") == 0.7
    assert target([marked], "time") == 0.76
    assert target([marked], "time", at=0.7) == 0.7
    ended = dataclasses.replace(marked, evaluations=rows[:2], step=1, train_seconds=7.0)
    assert target([ended], "time") == 0.7  # it had made all its updates before the mark


def test_tuned_optimizers_and_shortened_velo_set_no_target_unless_chosen() -> None:
    """Rezk et al., 2023, Table 6: HPO ends ImageNet beyond the target, which it did not set."""
    names = ["adam", "velo[embedded]", "velo_short[embedded]", "velo_feed[google]", "hpo", "mine"]
    records = [run(name, [0, 0, 0, place / 10, 1]) for place, name in enumerate(names)]
    records[-1] = dataclasses.replace(records[-1], tags={"sets_targets": "false"})
    table = target_table(records, split="validation", condition="step")
    assert table.loc["w"].to_dict() == {"target": 0.1, "set_by": "velo[embedded]"}
    assert target(records, setters=["adam"]) == 0.0
    assert target(records, setters=["hpo", "adam"]) == 0.4
    assert math.isnan(target(records, setters=[]))
    assert target(records[2:]) == 0.5  # nobody else is there


def test_a_target_names_all_that_set_it_or_its_source() -> None:
    records = [run(name, [0, 0, 0, value, 1]) for name, value in (("x", 2), ("y", 2), ("z", 1))]
    table = target_table(records, split="validation", condition="step")
    assert table.loc["w", "set_by"] == "x, y"
    given = give_targets(records, {("step", "validation"): pd.Series({"w": 0.5})}, "Table 6")
    table = target_table(given, split="validation", condition="step")
    assert table.loc["w"].to_dict() == {"target": 0.5, "set_by": "Table 6"}


def test_minimised_metrics_take_the_smallest_median() -> None:
    low = [
        run(name, [9, 8, 7, value, 0], direction=Direction.MINIMIZE)
        for name, value in (("x", 2.0), ("y", 3.0))
    ]
    assert target(low) == 2
    assert times(low, 2.0) == {"x": 30, "y": 40}


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("direction", list(Direction))
def test_values_that_are_not_finite_neither_set_nor_reach_a_target(
    bad: float, direction: Direction
) -> None:
    records = [run("x", [bad] * 5, direction=direction), run("y", [5.0] * 5, direction=direction)]
    assert target(records) == 5
    assert times(records, 5.0) == {"x": INF, "y": 0}
    assert math.isnan(target(records[:1]))
    assert times(records, NAN) == {"x": INF, "y": INF}


def test_a_seed_without_value_counts_as_worst_in_the_median() -> None:
    curve = [0, 0, 0, 0.9, 0.9]
    one_lost = [run("x", curve, seed=s) for s in (0, 1)] + [run("x", [NAN] * 5, seed=2)]
    assert target(one_lost) == 0.9
    two_lost = [run("x", curve, seed=0)] + [run("x", [NAN] * 5, seed=s) for s in (1, 2)]
    assert math.isnan(target(two_lost))
    assert target([*two_lost, run("y", [0, 0, 0, 0.1, 0.1])]) == 0.1


def test_time_to_target_is_the_first_evaluation_at_or_beyond_without_interpolation() -> None:
    records = [run("x", [0, 0.4, 0.5, 0.3, 0.9])]
    assert times(records, 0.5) == {"x": 20}
    assert times(records, 0.45) == {"x": 20}
    assert times(records, 0.45, "seconds") == {"x": 10}
    assert times(records, 0.91) == {"x": INF}
    assert times(records, 0.0) == {"x": 0}


def test_median_over_trials_counts_inf() -> None:
    reached, never = [0, 1.0], [0, 0.0]
    assert times([run("x", reached, seed=0), run("x", never, seed=1)], 1.0) == {"x": INF}
    two = [run("x", reached, seed=s) for s in (0, 1)]
    assert times([*two, run("x", never, seed=2)], 1.0) == {"x": 10}
    assert times([run("x", never, seed=s) for s in (0, 1)], 1.0) == {"x": INF}


def test_diverged_run_keeps_its_time_but_has_no_later_metric() -> None:
    lost = run("x", [0, 0.9, NAN], status="FAILED", reason="DIVERGED")
    tagged = run("z", [0, 0.9], tags={"diverged": "true"})
    steady = run("y", [0, 0.1, 0.2, 0.3, 0.4])
    assert target([lost, tagged, steady]) == 0.3
    assert times([lost, tagged, steady], 0.3) == {"x": 10, "y": 30, "z": 10}
    assert math.isnan(final_value(lost, "validation/acc"))
    assert math.isnan(final_value(tagged, "validation/acc"))
    row = final_quality([lost]).iloc[0]
    assert math.isnan(row["mean"])
    assert (row["runs"], row["finite"], row["diverged"]) == (1, 0, 1)


def test_divergence_after_three_quarters_leaves_the_metric_at_three_quarters() -> None:
    late = run("x", [0, 0.1, 0.2, 0.3, NAN], reason="DIVERGED")
    assert target([late]) == 0.3


def test_failed_runs_count_and_unfinished_ones_do_not() -> None:
    curve = [0, 0.1, 0.2, 0.9, 0.9]
    failed = run("failed", curve[:2], status="FAILED", reason="")
    unfinished = [
        run(status + reason, curve, status=status, reason=reason)
        for status, reason in [("KILLED", ""), ("RUNNING", ""), ("FINISHED", "PRUNED")]
    ]
    records = [failed, *unfinished, run("x", [0, 0, 0, 0.1, 0.1])]
    assert [r.optimizer for r in trials(records, condition="step")] == ["failed", "x"]
    assert target(records) == 0.1
    reached = times(records, 0.1)
    assert (reached["failed"], reached["x"]) == (10, 30)
    assert sum(map(math.isnan, reached.values())) == 3
    assert math.isnan(final_value(failed, "validation/acc"))
    quality = final_quality(records).set_index("optimizer")
    assert quality["runs"].to_dict() == {
        "FINISHEDPRUNED": 0, "KILLED": 0, "RUNNING": 0, "failed": 1, "x": 1,
    }  # fmt: skip


def test_one_trial_per_seed_and_the_finished_one_goes_first() -> None:
    failed = run("x", [0, 0.9, 0.9, 0.9], status="FAILED", reason="", run_id="z")
    done = run("x", [0, 0.1, 0.2, 0.3, 0.4], run_id="a")
    again = dataclasses.replace(done, run_id="b")
    for order in ([failed, done, again], [again, done, failed]):
        assert [r.run_id for r in trials(order, condition="step")] == ["b"]


def test_a_run_stopped_at_its_target_keeps_its_last_value() -> None:
    assert target([run("x", [0, 0.9], reason="TARGET")]) == 0.9


def test_rows_that_repeat_a_step_are_merged_and_the_later_wins() -> None:
    rows = [
        Row(0, 0.0, {"validation/acc": 0.1}),
        Row(10, 5.0, {"validation/acc": 0.9}),
        Row(20, 10.0, {"validation/acc": 0.9}),
        Row(10, 5.1, {"validation/acc": 0.2}),
        Row(10, 5.1, {"validation/loss": 3.0}),
        Row(10, 5.1, {"train/acc": 0.7}),
        Row(15, 7.5, {"batch/loss": 3.0}),
    ]
    record = run("x", [], evaluations=rows)
    assert [(row.step, row.train_seconds) for row in evaluations_of(record, "validation")] == [
        (0, 0.0), (10, 5.1), (20, 10.0),
    ]  # fmt: skip
    assert evaluations_of(record, "validation")[1].metrics == {
        "validation/acc": 0.2, "validation/loss": 3.0,
    }  # fmt: skip
    assert times([record], 0.9) == {"x": 20}


def test_a_missing_value_at_the_last_evaluation_is_not_replaced_by_an_older_one() -> None:
    rows = [
        Row(10, 5.0, {"validation/acc": 0.9, "validation/loss": 1.0}),
        Row(30, 15.0, {"validation/loss": 2.0}),
    ]
    record = run("x", [], evaluations=rows, step=30)
    assert math.isnan(final_value(record, "validation/acc"))
    assert math.isnan(target([record]))


def test_zero_length_histories_and_no_runs() -> None:
    empty = run("x", [])
    assert math.isnan(target([empty]))
    assert times([empty], 0.5) == {"x": INF}
    assert final_quality([empty]).empty
    assert targets([], split="train", condition="time").empty
    assert time_to_target([], {}, "train").shape == (0, 0)
    assert trial_times([], {}, "train").empty
    assert final_quality([]).empty


@pytest.mark.parametrize("budget", [0.0, NAN, INF])
def test_a_budget_that_is_not_known_sets_no_wrong_target(budget: float) -> None:
    value = target([run("x", [0, 0.5], budget=budget)])
    assert value == 0.5 if budget == INF else math.isnan(value)


@pytest.mark.parametrize("seconds", [NAN, INF])
def test_a_time_that_is_not_finite_is_no_time(seconds: float) -> None:
    rows = [Row(10, seconds, {"validation/acc": 1.0})]
    record = run("x", [], evaluations=rows)
    assert times([record], 1.0, "seconds") == {"x": INF}
    assert times([record], 1.0, "steps") == {"x": 10}


def test_different_evaluation_steps_are_compared_as_they_are() -> None:
    records = [run("x", [0, 0.1, 0.2, 0.3, 0.4]), run("y", [0, 0.35, 0.36], every=15)]
    assert target(records) == 0.36
    assert times(records, 0.3) == {"x": 30, "y": 15}


def test_order_of_the_records_never_matters() -> None:
    maker = random.Random(0)
    records = [
        run(name, [maker.random() for _ in range(5)], seed=seed, workload=workload)
        for name in "zyx"
        for workload in "ba"
        for seed in range(3)
    ]
    goals = targets(records, split="validation", condition="step")
    first = time_to_target(records, goals, "validation", "steps")
    assert list(first.index) == ["x", "y", "z"]
    assert list(first.columns) == ["a", "b"]
    for _ in range(5):
        maker.shuffle(records)
        assert targets(records, split="validation", condition="step").equals(goals)
        assert time_to_target(records, goals, "validation", "steps").equals(first)


def test_a_race_of_two_conditions_asks_which_one() -> None:
    records = [run("x", [0, 1]), run("x", [0, 1], condition="time", budget=5.0)]
    with pytest.raises(ValueError, match="the runs are of step and time; choose one"):
        time_to_target(records, {"w": 1.0}, "validation")
    table = time_to_target(records, {"w": 1.0}, "validation", condition="time")
    assert table.loc["x", "w"] == 5


def test_final_quality_is_mean_and_sample_deviation_over_seeds() -> None:
    records = [run("x", [0, value], seed=seed) for seed, value in enumerate([1.0, 2.0, 4.5])]
    row = final_quality(records).iloc[0]
    assert (row["split"], row["metric"]) == ("validation", "acc")
    assert row["mean"] == pytest.approx(2.5)
    assert row["std"] == pytest.approx(np.std([1.0, 2.0, 4.5], ddof=1))
    assert math.isnan(final_quality(records[:1]).iloc[0]["std"])


def test_final_quality_holds_every_metric_of_every_split() -> None:
    rows = [Row(40, 20.0, {"train/acc": 1.0, "test/acc": 0.5, "validation/loss": 2.0})]
    records = [run("x", [], evaluations=rows, step=40), run("y", [0.1, 0.2])]
    quality = final_quality(records)
    keys = [tuple(row) for row in quality[quality.optimizer == "y"][["split", "metric"]].values]
    assert keys == [
        ("train", "acc"),
        ("validation", "acc"),
        ("validation", "loss"),
        ("test", "acc"),
    ]
    assert len(quality) == 8
    assert quality["finite"].sum() == 4


def test_from_runs_to_scores() -> None:
    """x is first on both, y needs twice as long on one and never gets there on the other."""
    records = []
    for seed in range(3):
        records += [
            run("x", [0, 0.5, 0.6, 0.6, 0.7], seed=seed, workload="a"),
            run("y", [0, 0.1, 0.6, 0.6, 0.6], seed=seed, workload="a"),
            run("x", [0, 0.9, 0.9, 0.9, 0.9], seed=seed, workload="b"),
            run("y", [0, 0.1, 0.2, 0.3, 0.4], seed=seed, workload="b"),
        ]
    table = time_to_target(records, {"a": 0.5, "b": 0.9}, "validation", "steps")
    assert performance_ratios(table).loc["y"].tolist() == [2, INF]
    assert scores(table, r_max=4).to_dict() == pytest.approx({"x": 1.0, "y": 0.5 * 2 / 3})


def test_wrong_arguments_are_refused() -> None:
    one = run("x", [0, 1])
    with pytest.raises(ValueError, match="condition: expected one of time, step, got 'steps'"):
        targets([one], split="validation", condition="steps")
    with pytest.raises(ValueError, match="unit: expected one of seconds, steps, got 'minutes'"):
        time_to_target([one], {}, "validation", "minutes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at: expected a share of the budget in \(0, 1\], got 75"):
        targets([one], split="validation", condition="step", at=75)
    other = run("y", [0, 1], direction=Direction.MINIMIZE)
    with pytest.raises(ValueError, match="one deciding metric, got maximize acc, minimize acc"):
        targets([one, other], split="validation", condition="step")
