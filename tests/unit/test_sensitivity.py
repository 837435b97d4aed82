"""Scores under other targets, other setters and other limits."""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import pandas as pd
import pytest
from race import race

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.scores.fixed_targets import give_targets
from timetrial.tracking.scores.ranks import ranks
from timetrial.tracking.scores.scoring import scores
from timetrial.tracking.scores.sensitivity import KINDS, LIMITS, RELAXATIONS, SHARES, sensitivity
from timetrial.tracking.scores.targets import target_table, targets, time_to_target

INF, NAN = math.inf, math.nan
RACE = race()


def table_of(records: list[RunRecord], condition: str = "step", **settings: object) -> pd.DataFrame:
    arguments = {"r_max": 1.5, **settings}
    return sensitivity(records, split="validation", condition=condition, **arguments)


def score_of(records: list[RunRecord], goals: pd.Series, condition: str, r_max: float) -> dict:
    unit = "seconds" if condition == "time" else "steps"
    times = time_to_target(
        records, goals, "validation", unit, condition=condition, mixed_machines=True
    )
    return scores(times, r_max=r_max).to_dict()


def variant(table: pd.DataFrame, label: str, kind: str) -> pd.DataFrame:
    found = table[(table["kind"] == kind) & (table["label"] == label)].set_index("optimizer")
    assert len(found)
    return found


@pytest.mark.parametrize("condition", ["time", "step"])
def test_shares_setters_and_limits_are_those_of_the_race_scored_that_way(condition: str):
    table = table_of(RACE, condition)
    how = {"split": "validation", "condition": condition}
    goals = targets(RACE, **how)
    expected = score_of(RACE, goals, condition, 1.5)
    assert variant(table, "as scored", "chosen")["score"].to_dict() == pytest.approx(expected)
    for share in SHARES:
        at = targets(RACE, at=share, **how)
        found = variant(table, f"{100 * share:.0f} %", "share")
        assert found["score"].to_dict() == pytest.approx(score_of(RACE, at, condition, 1.5))
        assert (found["value"] == share).all()
        assert found["rank"].to_dict() == ranks(found["score"]).to_dict()
    for limit in LIMITS:
        found = variant(table, f"{limit:g}", "r_max")
        assert found["score"].to_dict() == pytest.approx(score_of(RACE, goals, condition, limit))
    everybody = {run.optimizer for run in RACE} - {"velo_short"}
    set_by = target_table(RACE, **how)["set_by"]
    for label in set(set_by):
        rest = targets(RACE, setters=everybody - {label}, **how)
        found = variant(table, f"without {label}", "setter")["score"].to_dict()
        assert found == pytest.approx(score_of(RACE, rest, condition, 1.5))
    own = {w: targets(RACE, setters=everybody - {by}, **how)[w] for w, by in set_by.items()}
    found = variant(table, "without each setter", "setter")["score"].to_dict()
    assert found == pytest.approx(score_of(RACE, pd.Series(own), condition, 1.5))


@pytest.mark.parametrize("condition", ["time", "step"])
def test_relaxed_targets_lie_part_of_the_way_back_to_the_untrained_model(condition: str):
    table = table_of(RACE, condition)
    goals = targets(RACE, split="validation", condition=condition)
    # The untrained value of each workload, recorded before the first update.
    start = {run.workload: run.evaluations[0].metrics[f"validation/{run.metric}"] for run in RACE}
    for part in RELAXATIONS:
        moved = pd.Series({w: goal + part * (start[w] - goal) for w, goal in goals.items()})
        found = variant(table, f"+{100 * part:.0f} %", "relaxed")["score"].to_dict()
        assert found == pytest.approx(score_of(RACE, moved, condition, 1.5))
    for workload, goal in goals.items():  # accuracies fall, losses rise
        up = next(r for r in RACE if r.workload == workload).direction is Direction.MAXIMIZE
        assert (start[workload] < goal) == up


def run(optimizer: str, curve: list[float], **changes: object) -> RunRecord:
    rows = [Row(i * 10, i * 5.0, {"validation/loss": v}) for i, v in enumerate(curve)]
    record = RunRecord(
        run_id=optimizer,
        workload="w",
        optimizer=optimizer,
        seed=0,
        condition="step",
        budget=40,
        metric="loss",
        direction=Direction.MINIMIZE,
        status="FINISHED",
        reason="BUDGET",
        step=rows[-1].step,
        train_seconds=rows[-1].train_seconds,
        evaluations=rows,
    )
    return dataclasses.replace(record, **changes)


def test_a_race_by_hand():
    records = [
        run("a", [10, 8, 6, 2, 1]),
        run("b", [10, 9, 6, 3, 2.6]),
        run("c", [10, 10, 10, 9, 9]),
    ]
    table = table_of(records, r_max=2)
    # At 75 % the target is 2: a needs 30 steps, nobody else arrives.
    assert variant(table, "as scored", "chosen")["score"].to_dict() == {"a": 1, "b": 0, "c": 0}
    assert variant(table, "as scored", "chosen")["tie"].to_dict() == {"a": 0, "b": 1, "c": 1}
    # At 60 and 70 % it is 6, after 20 steps for a and b.
    assert variant(table, "60 %", "share")["score"].to_dict() == {"a": 1, "b": 1, "c": 0}
    assert variant(table, "60 %", "share")["rank"].to_dict() == {"a": 1, "b": 1, "c": 3}
    # Without a, b sets 3: a needs 30 steps, b 30. 2 + 10 % of 8 is 2.8: 30 and 40 steps.
    assert variant(table, "without a", "setter")["score"].to_dict() == {"a": 1, "b": 1, "c": 0}
    relaxed = variant(table, "+10 %", "relaxed")["score"].to_dict()
    assert relaxed == pytest.approx({"a": 1, "b": 2 - 4 / 3, "c": 0})
    assert variant(table, "4", "r_max")["score"].to_dict() == {"a": 1, "b": 0, "c": 0}
    assert list(dict.fromkeys(table["kind"])) == list(KINDS)
    assert set(table.columns) == {"kind", "value", "label", "optimizer", "score", "rank", "tie"}
    assert table.loc[table["kind"].isin(["chosen", "setter"]), "value"].isna().all()


def test_fixed_targets_depend_neither_on_shares_nor_on_setters():
    records = [run("a", [10, 8, 6, 2, 1]), run("b", [10, 9, 6, 3, 2])]
    fixed = {(Condition.STEP, Split.VALIDATION): pd.Series({"w": 6.0})}
    table = table_of(give_targets(records, fixed), r_max=3)
    assert set(table["kind"]) == {"chosen", "relaxed", "r_max"}
    assert variant(table, "as scored", "chosen")["score"].tolist() == [1, 1]
    # Half of the workloads fixed: the others vary.
    more = [dataclasses.replace(r, workload="v", run_id=f"v{r.run_id}") for r in records]
    both = table_of([*give_targets(records, fixed), *more], r_max=3)
    assert set(both["kind"]) == set(KINDS)
    assert variant(both, "75 %", "share")["score"].to_dict() == pytest.approx(
        {"a": 1, "b": (1 + (3 - 4 / 3) / 2) / 2}
    )


def test_a_target_that_nobody_else_can_set_stays():
    alone = [run("a", [10, 8, 6, 2, 1]), run("hpo", [10, 5, 4, 3, 2])]
    table = table_of(alone)
    chosen = variant(table, "as scored", "chosen")["score"].to_dict()
    assert variant(table, "without a", "setter")["score"].to_dict() == chosen
    assert variant(table, "without each setter", "setter")["score"].to_dict() == chosen
    chosen = table_of(alone, setters=["hpo"])
    assert "without hpo" in set(chosen["label"])


def test_runs_without_values_and_no_runs():
    lost = [run("a", [NAN] * 5), run("b", [NAN] * 5)]
    table = table_of(lost)
    assert (table["score"] == 0).all()
    assert table["tie"].all()
    started = run("c", [10, 9, 8, 7, 6], status="RUNNING", reason="")
    table = table_of([run("a", [10, 8, 6, 2, 1]), started])
    assert variant(table, "as scored", "chosen")["score"].to_dict() == {"a": 1, "c": 0}
    assert table_of([]).empty


def test_order_of_the_runs_never_matters():
    shuffled = list(RACE)
    random.Random(0).shuffle(shuffled)
    pd.testing.assert_frame_equal(table_of(RACE), table_of(shuffled))
    assert np.isfinite(table_of(RACE)["score"]).all()
