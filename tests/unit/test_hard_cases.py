"""Hard cases of scoring recorded runs, with silent errors as the risk, end to end."""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import pandas as pd
import pytest
from race import race

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Direction
from timetrial.tracking.report.sections.notes import notes
from timetrial.tracking.report.standings import standings
from timetrial.tracking.scores import algoperf
from timetrial.tracking.scores.algoperf import study_times
from timetrial.tracking.scores.algoperf_rules import Rules
from timetrial.tracking.scores.evaluations import evaluations_of, last_metrics, metric_values
from timetrial.tracking.scores.final_quality import final_quality, final_value, final_values
from timetrial.tracking.scores.machines import MixedMachinesError, check_one_machine, differences
from timetrial.tracking.scores.ranks import leave_one_workload_out
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.scores.scoring import performance_ratios, scores, speedups, wins
from timetrial.tracking.scores.targets import targets, time_to_target, trial_times
from timetrial.tracking.scores.uncertainty import (
    probability_of_improvement,
    quality_intervals,
    race_intervals,
)

INF, NAN = math.inf, math.nan
FEW = Bootstrap(samples=200)


def run(
    optimizer: str,
    values: list[float],
    *,
    workload: str = "w",
    seed: int = 0,
    every: int = 10,
    **fields: object,
) -> RunRecord:
    """A run of 100 steps that evaluates ``values`` every so many steps, a second per step."""
    rows = [
        Row(every * i, float(every * i), {"validation/accuracy": value})
        for i, value in enumerate(values, start=1)
    ]
    record = RunRecord(
        run_id=f"{workload}-{optimizer}-{seed}",
        workload=workload,
        optimizer=optimizer,
        seed=seed,
        condition="time",
        budget=100.0,
        metric="accuracy",
        direction=Direction.MAXIMIZE,
        status="FINISHED",
        reason="BUDGET",
        step=100,
        train_seconds=100.0,
        evaluations=rows,
    )
    return dataclasses.replace(record, **fields)


def times_of(records: list[RunRecord], target: float = 0.9) -> pd.DataFrame:
    goals = dict.fromkeys({record.workload for record in records}, target)
    return time_to_target(records, goals, "validation", "seconds", condition="time")


def everything(records: list[RunRecord], goals: dict[str, float] | pd.Series) -> None:
    """Whatever a report asks for; warnings are errors."""
    for unit in ("seconds", "steps"):
        times = time_to_target(records, goals, "validation", unit, condition="time")
        table = trial_times(records, goals, "validation", unit, condition="time")
        found = scores(times, r_max=3)
        assert found.between(0, 1).all()
        performance_ratios(times)
        wins(times)
        leave_one_workload_out(times, r_max=3)
        if len(times):
            speedups(times, times.index[0])
        algoperf.scores(study_times(records, goals, Rules(), unit=unit), Rules())
        for method in ("percentile", "bca"):
            options = dataclasses.replace(FEW, method=method)
            parts = race_intervals(table, r_max=3, options=options)
            for part in (parts.times, parts.ratios, parts.scores):
                assert not part[["low", "estimate", "high"]].isna().any(axis=None)
            quality_intervals(final_values(records), options=options)
        probability_of_improvement(table, options=FEW)
    final_quality(records)


def test_an_optimizer_that_never_reaches_any_target():
    records = [run(o, [0.5, v], seed=s) for o, v in (("a", 0.95), ("b", 0.6)) for s in range(3)]
    times = times_of(records)
    assert times["w"].to_dict() == {"a": 20.0, "b": INF}
    assert scores(times, r_max=3).to_dict() == {"a": 1.0, "b": 0.0}
    everything(records, {"w": 0.9})


def test_a_workload_nobody_reaches_is_never_for_all_and_counts():
    records = [run(o, [0.95], workload=w, seed=s) for o in "ab" for w in "vw" for s in range(3)]
    goals = {"v": 0.99, "w": 0.9}
    times = time_to_target(records, goals, "validation", "seconds")
    assert times["v"].tolist() == [INF, INF]
    assert scores(times, r_max=3).tolist() == [0.5, 0.5]
    everything(records, goals)
    everything(records, {"w": 0.9})  # no target at all: nobody reaches it
    everything(records, {"v": NAN, "w": 0.9})


def test_a_single_optimizer_and_a_single_run():
    records = [run("only", [0.2, 0.95])]
    assert scores(times_of(records), r_max=3)["only"] == 1.0
    everything(records, {"w": 0.9})


def test_equal_times_share_the_best():
    records = [run(o, [0.2, 0.95], seed=s) for o in "ab" for s in range(3)]
    assert scores(times_of(records), r_max=3).tolist() == [1.0, 1.0]
    assert wins(times_of(records)).tolist() == [1, 1]
    everything(records, {"w": 0.9})


def test_runs_with_different_evaluation_steps_are_never_interpolated():
    fine = [run("fine", [0.1 * i for i in range(1, 11)], every=5, seed=s) for s in range(3)]
    coarse = [run("coarse", [0.3, 1.0], every=50, seed=s) for s in range(3)]
    times = times_of([*fine, *coarse], target=0.55)
    assert times["w"].to_dict() == {"coarse": 100.0, "fine": 30.0}
    # At 75 of 100 seconds the coarse run has shown 0.3 only.
    goals = targets([*fine, *coarse], split="validation", condition="time")
    assert goals["w"] == pytest.approx(1.0)
    assert targets(coarse, split="validation", condition="time")["w"] == 0.3
    everything([*fine, *coarse], {"w": 0.55})


def test_rows_repeated_after_a_resume_count_once_and_the_later_wins():
    before = [Row(s, s, {"validation/accuracy": v}) for s, v in ((10, 0.1), (20, 0.95))]
    after = [Row(s, s + 0.5, {"validation/accuracy": v}) for s, v in ((20, 0.5), (30, 0.95))]
    record = run("a", [], evaluations=[*before, *after])
    assert [(e.step, e.train_seconds) for e in evaluations_of(record, "validation")] == [
        *[(10, 10), (20, 20.5), (30, 30.5)],
    ]
    assert times_of([record]).loc["a", "w"] == 30.5
    assert final_value(record, "validation/accuracy") == 0.95
    assert targets([record], split="validation", condition="time")["w"] == 0.95
    whole = run("a", [], evaluations=[before[0], *after])
    assert times_of([record]).equals(times_of([whole]))
    everything([record], {"w": 0.9})


def test_a_diverged_run_keeps_the_targets_it_reached_and_has_no_final_metric():
    fields = {"status": "FAILED", "reason": "DIVERGED", "step": 35, "train_seconds": 35.0}
    diverged = [run("d", [0.2, 0.99, NAN], seed=s, **fields) for s in range(3)]
    steady = [run("s", [0.2, 0.5, 0.7, 0.8], every=25, seed=s) for s in range(3)]
    records = [*diverged, *steady]
    assert targets(records, split="validation", condition="time")["w"] == 0.7  # not 0.99
    assert times_of(records, target=0.9)["w"].to_dict() == {"d": 20.0, "s": INF}
    assert math.isnan(final_value(diverged[0], "validation/accuracy"))
    quality = final_quality(records).set_index("optimizer")
    assert (quality.loc["d", "finite"], quality.loc["d", "runs"]) == (0, 3)
    everything(records, {"w": 0.9})


def test_zero_length_histories():
    empty = [run("e", [], seed=s) for s in range(3)]
    assert times_of(empty)["w"].to_dict() == {"e": INF}
    assert len(metric_values(empty[0], "validation/accuracy").steps) == 0
    assert last_metrics(empty[0], "validation") == {}
    everything(empty, {"w": 0.9})
    everything([*empty, run("a", [0.95])], {"w": 0.9})
    everything([], {})


@pytest.mark.parametrize("target", [0.0, -INF, INF, NAN, 0.9])
def test_zero_nan_and_inf_everywhere(target: float):
    values = [[0.0, 0.0], [NAN, 0.95], [INF, -INF], [0.95, NAN], [-0.0, INF], [NAN, NAN]]
    records = [
        run(o, v, seed=s, direction=direction, workload=w)
        for w, direction in (("up", Direction.MAXIMIZE), ("down", Direction.MINIMIZE))
        for o in "ab"
        for s, v in enumerate(values)
    ]
    records += [
        run("c", [0.95], seed=s, budget=b, workload="up") for s, b in enumerate((0.0, NAN, INF))
    ]
    untimed = [Row(s, t, {"validation/accuracy": 1.0}) for s, t in ((1, NAN), (2, INF))]
    records.append(run("d", [], evaluations=untimed, workload="up"))
    everything(records, {"up": target, "down": target})
    everything(records, targets(records, split="validation", condition="time"))
    never = trial_times([records[-1]], {"up": 0.5}, "validation", "seconds", condition="time")
    assert never["value"].tolist() == [INF]


def test_nan_and_infinite_metrics_never_reach_a_target():
    for direction, bad in ((Direction.MAXIMIZE, INF), (Direction.MINIMIZE, -INF)):
        record = run("a", [NAN, bad, 0.9], direction=direction)
        assert times_of([record]).loc["a", "w"] == 30.0


def test_order_of_records_and_of_evaluations_never_matters():
    records = race()
    shuffled = list(records)
    random.Random(3).shuffle(shuffled)
    mixed = [
        dataclasses.replace(
            r, evaluations=random.Random(i).sample(r.evaluations, len(r.evaluations))
        )
        for i, r in enumerate(shuffled)
    ]
    pd.testing.assert_frame_equal(final_values(records), final_values(mixed))
    for ours, theirs in zip(standings(records), standings(mixed), strict=True):
        pd.testing.assert_frame_equal(ours.times, theirs.times)
        pd.testing.assert_series_equal(ours.scores, theirs.scores)
        tables = [
            trial_times(r, ours.targets, ours.split, ours.unit, condition=ours.condition)
            for r in (records, mixed)
        ]
        one, other = (race_intervals(t, r_max=3, options=FEW).scores for t in tables)
        pd.testing.assert_frame_equal(one, other)


def on(cpu: str, **tags: str) -> list[RunRecord]:
    tags = {"host_cpu": cpu, **tags}
    return [run(cpu, [0.2, 0.95], seed=s, tags=tags) for s in range(3)]


def test_seconds_of_two_machines_are_refused_unless_said_otherwise():
    records = [*on("alpha"), *on("beta")]
    refusal = r"w: .*host_cpu: alpha / beta.*mixed_machines=True"
    with pytest.raises(MixedMachinesError, match=refusal):
        times_of(records)
    goals = {"w": 0.9}
    allowed = time_to_target(records, goals, "validation", "seconds", mixed_machines=True)
    assert allowed["w"].tolist() == [20.0, 20.0]
    steps = time_to_target(records, goals, "validation", "steps")
    assert steps["w"].tolist() == [20.0, 20.0]


def test_two_nodes_of_one_kind_are_one_machine():
    """The name of the host is no hardware."""
    records = [*on("alpha", host="node1"), *on("alpha", host="node2")]
    records = [dataclasses.replace(r, optimizer=r.tags["host"]) for r in records]
    check_one_machine(records)
    assert differences(records) == {}
    assert times_of(records)["w"].tolist() == [20.0, 20.0]
    here = [
        dataclasses.replace(r, tags={**r.tags, "host": f"node{r.seed}", "host_cpu": "alpha"})
        for r in race()
    ]
    assert {s.condition for s in standings(here)} == {"time", "step"}
    assert "different machines" not in " ".join(notes(here, standings(here)))


@pytest.mark.parametrize(
    "tag", ["calibration", "device_kind", "device_count", "device_platform", "host_cpu"]
)
def test_other_devices_or_another_calibration_are_another_machine(tag: str):
    records = [*on("alpha", **{tag: "one"}), *on("alpha", **{tag: "two"})]
    records = [dataclasses.replace(r, optimizer=r.tags[tag]) for r in records]
    with pytest.raises(MixedMachinesError, match=f"{tag}: one / two"):
        times_of(records)
    assert differences(records) == {"w": {tag: ["one", "two"]}}


def test_only_runs_that_are_compared_must_be_of_one_machine():
    spread = [*on("alpha"), *(dataclasses.replace(r, workload="v") for r in on("beta"))]
    check_one_machine(spread)
    unknown = [dataclasses.replace(r, optimizer="x", tags={}) for r in on("alpha")]
    check_one_machine([*on("alpha"), *unknown])
    killed = [dataclasses.replace(r, status="KILLED", reason="INTERRUPTED") for r in on("beta")]
    assert times_of([*on("alpha"), *killed]).loc["alpha", "w"] == 20.0


def test_a_report_has_no_scores_under_time_control_from_two_machines():
    records = race()
    moved = [
        dataclasses.replace(r, tags={**r.tags, "host_cores": "4"}) if r.seed == 2 else r
        for r in records
    ]
    assert {s.condition for s in standings(moved)} == {"step"}
    said = " ".join(notes(moved, standings(moved)))
    assert "There are no scores under time control" in said
    assert "host_cores: 2, 4" in said
    assert "The runs come from different machines" in said
    allowed = standings(moved, mixed_machines=True)
    assert {s.condition for s in allowed} == {"time", "step"}
    for one, other in zip(allowed, standings(records), strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
