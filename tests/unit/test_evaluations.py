"""One rule for reaching a target, in every scorer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Condition, Direction, Split, Status
from timetrial.tracking.scores.algoperf import study_times
from timetrial.tracking.scores.algoperf_rules import FORK, Rules
from timetrial.tracking.scores.evaluations import first_hit
from timetrial.tracking.scores.fixed_targets import give_targets
from timetrial.tracking.scores.targets import targets, time_to_target

INF, NAN = math.inf, math.nan
DOWN, UP = Direction.MINIMIZE, Direction.MAXIMIZE


def run(values: Sequence[tuple[float, float]], direction: Direction = DOWN) -> RunRecord:
    """A run with evaluations (charged seconds, loss)."""
    return RunRecord(
        run_id="r",
        workload="w",
        optimizer="a",
        seed=0,
        condition=Condition.TIME,
        budget=100.0,
        metric="loss",
        direction=direction,
        status=Status.FINISHED,
        reason="",
        step=len(values),
        train_seconds=100.0,
        evaluations=[Row(k, s, {"validation/loss": v}) for k, (s, v) in enumerate(values)],
    )


def both_scorers(record: RunRecord, target: float) -> set[float]:
    """Time to target by the paper's rules and by AlgoPerf's."""
    paper = time_to_target([record], {"w": target}, Split.VALIDATION)
    tables = [paper, *(study_times([record], {"w": target}, rules) for rules in (Rules(), FORK))]
    return {float(table.loc["a", "w"]) for table in tables}


@pytest.mark.parametrize(
    ("values", "direction", "time"),
    [
        ([(1, 0.5), (2, 0.1)], DOWN, 2.0),
        ([(1, -INF), (2, 0.1)], DOWN, 2.0),  # AlgoPerf's scorer says 1
        ([(1, -INF), (2, NAN)], DOWN, INF),
        ([(1, INF), (2, 0.1)], UP, 2.0),
        ([(1, INF)], UP, INF),
        ([(10, 0.5), (20, 0.5), (5, 0.1)], DOWN, 20.0),  # AlgoPerf's scorer says 5
        ([(10, 0.5), (5, 0.5), (7, 0.1), (30, 0.1)], DOWN, 10.0),
        ([(NAN, 0.1), (2, 0.1)], DOWN, 2.0),
        ([(INF, 0.5), (2, 0.1)], DOWN, 2.0),
        ([(INF, 0.1)], DOWN, INF),
        ([], DOWN, INF),
    ],
)
def test_both_scorers_agree_on_when_a_target_is_reached(
    values: list[tuple[float, float]], direction: Direction, time: float
):
    assert both_scorers(run(values, direction), 0.1) == {time}


@pytest.mark.parametrize("direction", [DOWN, UP])
@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_a_value_that_is_not_finite_stops_no_run(direction: Direction, value: float):
    """``Direction.reached`` also stops runs at their target."""
    assert not direction.reached(value, 0.1)
    assert direction.reached(0.1, 0.1)


numbers = st.floats(0, 100) | st.sampled_from([INF, NAN])


@given(st.lists(st.tuples(numbers, numbers), max_size=8), st.floats(0, 100))
def test_a_hit_costs_all_that_was_charged_before(values: list[tuple[float, float]], target: float):
    seconds, losses = np.array(values, dtype=float).reshape(-1, 2).T
    hit = first_hit(losses, seconds, target, DOWN)
    fine = [k for k, (s, v) in enumerate(values) if math.isfinite(s) and -INF < v <= target]
    if hit is None:
        assert fine == []
        return
    assert hit[0] == fine[0]
    assert hit[1] == max(s for s, _ in values[: hit[0] + 1] if math.isfinite(s))
    assert both_scorers(run(values), target) == {hit[1]}


def test_given_targets_replace_established_ones_and_own_ones_stay():
    records = [run([(50, 0.5), (80, 0.1)])]
    assert targets(records, split=Split.VALIDATION, condition=Condition.TIME)["w"] == 0.5
    series = targets(records, split=Split.VALIDATION, condition=Condition.TIME) * 0 + 0.3
    given_ones = give_targets(records, {(Condition.TIME, Split.VALIDATION): series})
    assert targets(given_ones, split=Split.VALIDATION, condition=Condition.TIME)["w"] == 0.3
    again = give_targets(given_ones, {(Condition.TIME, Split.VALIDATION): series * 2})
    assert again == given_ones
    elsewhere = {(Condition.STEP, Split.VALIDATION): series, (Condition.TIME, Split.TEST): series}
    other = give_targets(records, elsewhere)
    assert targets(other, split=Split.VALIDATION, condition=Condition.TIME)["w"] == 0.5


def test_runs_must_agree_on_a_given_target():
    one = run([(1, 0.1)])
    records = [
        dataclasses.replace(one, seed=seed, tags={"target.validation": text})
        for seed, text in enumerate(("0.5", "0.25"))
    ]
    with pytest.raises(ValueError, match=r"w: expected one validation target, got 0\.25, 0\.5"):
        targets(records, split=Split.VALIDATION, condition=Condition.TIME)
