from __future__ import annotations

import dataclasses

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Direction
from timetrial.tracking.scores.conditions import by_condition

RECORD = RunRecord(
    run_id="r",
    workload="w",
    optimizer="o",
    seed=0,
    condition="step",
    budget=20,
    metric="loss",
    direction=Direction.MINIMIZE,
    status="FINISHED",
    reason="BUDGET",
    step=20,
    train_seconds=10.0,
    evaluations=tuple(Row(s, s / 2, {"validation/loss": 1.0 / (1 + s)}) for s in range(0, 21, 5)),
    config={"budget.also_seconds": "None"},
)


def both(**changes):
    return by_condition([dataclasses.replace(RECORD, **changes)])


def test_a_plain_run_passes_unchanged():
    assert by_condition([RECORD]) == [RECORD]
    timed = dataclasses.replace(RECORD, condition="time", budget=10.0)
    assert by_condition([timed]) == [timed]


def test_the_time_budget_ends_before_the_step_budget():
    step, time = both(config={"budget.also_seconds": "6.0"})
    assert step == dataclasses.replace(RECORD, config={"budget.also_seconds": "6.0"})
    assert (time.condition, time.budget, time.step, time.train_seconds) == ("time", 6.0, 15, 7.5)
    assert [e.step for e in time.evaluations] == [0, 5, 10, 15]


def test_the_step_budget_ends_before_the_time_budget():
    step, time = both(budget=10, config={"budget.also_seconds": "9.9"})
    assert (step.condition, step.budget, step.step, step.train_seconds) == ("step", 10, 10, 5.0)
    assert [e.step for e in step.evaluations] == [0, 5, 10]
    assert (time.step, time.train_seconds) == (20, 10.0)


def test_the_run_that_sets_the_time_budget_serves_it_with_all_its_seconds():
    step, time = both(tags={"sets_time_budget": "true"})
    assert (time.budget, time.step, len(time.evaluations)) == (10.0, 20, 5)
    assert step.budget == 20


def test_a_run_that_was_cut_short_shows_what_it_has_in_both():
    step, time = both(
        evaluations=RECORD.evaluations[:2],
        step=7,
        status="KILLED",
        reason="",
        config={"budget.also_seconds": "6.0"},
    )
    assert len(step.evaluations) == len(time.evaluations) == 2
    assert step.step == time.step == 7
    assert {step.status, time.status} == {"KILLED"}


def test_diverging_after_a_budget_was_met_does_not_count_against_it():
    step, time = both(
        budget=10,
        reason="DIVERGED",
        config={"budget.also_seconds": "99.0"},
        tags={"diverged": "true"},
    )
    assert (step.reason, step.tags["diverged"]) == ("BUDGET", "false")
    assert (time.reason, time.tags["diverged"]) == ("DIVERGED", "true")
