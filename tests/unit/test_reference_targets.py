"""Reference targets: the level of the median optimizer at 75 % of the budget."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Condition, Direction
from timetrial.tracking.scores.reference_targets import reference_targets


def run(optimizer: str, value: float, seed: int = 0, split: str = "validation") -> RunRecord:
    rows = [Row(s, s, {f"{split}/acc": v}) for s, v in ((0, 0.0), (75, value), (100, 9.0))]
    return RunRecord(
        f"{optimizer}{seed}{split}", "w", optimizer, seed, "step", 100, "acc", Direction.MAXIMIZE,
        "FINISHED", "BUDGET", 100, 100.0, rows, {}, {},
    )  # fmt: skip


def test_the_target_is_the_median_over_optimizers_of_their_median_seed() -> None:
    runs = [run("a", v, s) for s, v in enumerate([0.1, 0.2, 0.9])]
    runs += [run("b", 0.5, s) for s in range(3)] + [run("c", 0.7, s) for s in range(2)]
    runs += [run("hpo", 1.0), run("velo_short[embedded]", 1.0)]  # they set no target
    table = reference_targets(runs, condition=Condition.STEP)
    assert table.to_dict("records") == [
        {"split": "validation", "workload": "w", "target": 0.5, "optimizers": 3, "trials": 2}
    ]


def test_half_of_the_setters_reach_it_whoever_they_are() -> None:
    for order in (("a", "b", "c", "d"), ("d", "c", "b", "a")):
        runs = [run(name, place / 10) for place, name in enumerate(order)]
        (target,) = reference_targets(runs, condition=Condition.STEP)["target"]
        assert sum(place / 10 >= target for place in range(4)) == 2


def test_a_level_that_is_not_finite_is_an_error_not_a_target() -> None:
    runs = [run("a", math.nan), run("b", math.nan), run("c", 0.5)]
    with pytest.raises(ValueError, match="w, validation: expected finite levels, got -inf"):
        reference_targets(runs, condition=Condition.STEP)
    assert isinstance(reference_targets([], condition=Condition.STEP), pd.DataFrame)
