"""Gaps under exchanged labels, against all relabellings scored one by one."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import numpy as np
import pandas as pd
import pytest
from race import race

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.scores.fixed_targets import give_targets
from timetrial.tracking.scores.null_test import QUANTILES, NullTest, null_test
from timetrial.tracking.scores.scoring import scores
from timetrial.tracking.scores.targets import targets, time_to_target

INF, NAN = math.inf, math.nan


def run(optimizer: str, seed: int, speed: float, workload: str = "w") -> RunRecord:
    """A curve that rises to 1; evaluated every step of 20."""
    rows = [Row(i, i / 2, {"validation/acc": 1 - math.exp(-speed * i / 20)}) for i in range(21)]
    return RunRecord(
        run_id=f"{workload}-{optimizer}-{seed}",
        workload=workload,
        optimizer=optimizer,
        seed=seed,
        condition="step",
        budget=20,
        metric="acc",
        direction=Direction.MAXIMIZE,
        status="FINISHED",
        reason="BUDGET",
        step=20,
        train_seconds=10.0,
        evaluations=rows,
    )


def null_of(records: list[RunRecord], **settings: object) -> NullTest:
    return null_test(
        records, **{"split": "validation", "condition": "step", "r_max": 2, **settings}
    )


def gaps(records: list[RunRecord], **settings: object) -> tuple[float, float]:
    how = {"split": "validation", "condition": "step"}
    goals = targets(records, **how, **settings)
    times = time_to_target(records, goals, "validation", "steps", condition="step")
    ordered = np.sort(scores(times, r_max=2).to_numpy())
    return float(ordered[-1] - ordered[-2]), float(ordered[-1] - ordered[0])


SPEEDS = {"a": (9.0, 7.0), "b": (4.0, 5.0), "hpo": (3.0, 6.0)}
SMALL = [run(o, s, speed) for o, speeds in SPEEDS.items() for s, speed in enumerate(speeds)]


def relabelled(records: list[RunRecord]) -> list[list[RunRecord]]:
    """Every way to exchange the labels of the runs of one seed."""
    seeds = sorted({r.seed for r in records})
    by_seed = [[r for r in records if r.seed == seed] for seed in seeds]
    orders = [itertools.permutations([r.optimizer for r in group]) for group in by_seed]
    return [
        [
            dataclasses.replace(r, optimizer=label)
            for group, labels in zip(by_seed, order, strict=True)
            for r, label in zip(group, labels, strict=True)
        ]
        for order in itertools.product(*orders)
    ]


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("setters", [None, ["b"]])
def test_gaps_and_p_values_are_those_of_all_relabellings(fixed: bool, setters: list[str] | None):
    records = SMALL
    if fixed:
        records = give_targets(SMALL, {(Condition.STEP, Split.VALIDATION): pd.Series({"w": 0.95})})
    every = np.array([gaps(one, setters=setters) for one in relabelled(records)])
    assert len(every) == 36
    own = gaps(records, setters=setters)
    found = null_of(records, setters=setters, permutations=20_000)
    assert (found.lead, found.spread) == pytest.approx(own)
    for p_value, row, observed in (
        (found.lead_p_value, every[:, 0], own[0]),
        (found.spread_p_value, every[:, 1], own[1]),
    ):
        exact = float((row >= observed - 1e-12).mean())
        assert abs(p_value - exact) <= 4 * math.sqrt(exact * (1 - exact) / 20_000) + 1e-4
    for name, row in zip(("lead", "spread"), every.T, strict=True):
        for quantile in QUANTILES:
            at_most = (row <= found.quantiles.loc[name, quantile] + 1e-12).mean()
            below = (row < found.quantiles.loc[name, quantile] - 1e-12).mean()
            assert below - 0.02 <= quantile <= at_most + 0.02


def suite(random_: np.random.Generator, speeds: dict[str, float], seeds: int) -> list[RunRecord]:
    return [
        run(o, s, speed * math.exp(0.3 * random_.normal()), workload=w)
        for o, speed in speeds.items()
        for w in "uvwx"
        for s in range(seeds)
    ]


def test_six_identical_optimizers_are_told_apart_in_the_nominal_share_of_the_suites():
    """Gaps are large (spread 0.5 and more), and yet chance: 300 suites, 3 seeds, 4 workloads."""
    random_ = np.random.default_rng(0)
    found = [
        null_of(suite(random_, dict.fromkeys("abcdef", 5.0), 3), permutations=199)
        for _ in range(300)
    ]
    assert np.mean([one.spread for one in found]) > 0.4
    for level in (0.05, 0.2):
        allowed = level + 3 * math.sqrt(level * (1 - level) / 300)
        assert np.mean([one.lead_p_value <= level for one in found]) <= allowed
        assert np.mean([one.spread_p_value <= level for one in found]) <= allowed
    # Not merely never: a test that finds nothing would pass the above.
    assert np.mean([one.spread_p_value <= 0.2 for one in found]) > 0.08


def test_an_optimizer_twice_as_fast_is_told_apart():
    random_ = np.random.default_rng(1)
    speeds = {**dict.fromkeys("abcde", 5.0), "f": 10.0}
    found = null_of(suite(random_, speeds, 3))
    assert found.leaders == ("f",)
    assert found.lead_p_value < 0.01
    assert found.lead > found.quantiles.loc["lead", 0.99]


def test_a_race_with_failures_missing_runs_and_uneven_seeds():
    records = race()
    for condition, r_max in (("time", 3.0), ("step", 1.5)):
        unit = "seconds" if condition == "time" else "steps"
        goals = targets(records, split="validation", condition=condition)
        times = time_to_target(
            records, goals, "validation", unit, condition=condition, mixed_machines=True
        )
        score = scores(times, r_max=r_max)
        found = null_of(records, condition=condition, r_max=r_max)
        ordered = np.sort(score)
        assert found.leaders == (score.idxmax(),)
        assert found.lead == pytest.approx(ordered[-1] - ordered[-2])
        assert found.spread == pytest.approx(ordered[-1] - ordered[0])
        assert found.quantiles.loc["lead"].is_monotonic_increasing
        assert found.quantiles.notna().all(axis=None)
    shuffled = list(records)
    random.Random(0).shuffle(shuffled)
    pd.testing.assert_frame_equal(
        null_of(records).quantiles, null_of(shuffled).quantiles, check_exact=True
    )
    assert not null_of(records, seed=1).quantiles.equals(null_of(records).quantiles)


def test_labels_are_exchanged_among_those_that_ran():
    """Two optimizers never meet on a workload: nothing can be exchanged, the gap is certain."""
    records = [run("a", s, 5.0, "v") for s in range(2)] + [run("b", 0, 4.0, "w")]
    found = null_of(records)
    assert (found.lead, found.lead_p_value) == (0, 1)
    assert found.leaders == ("a", "b")
    assert (found.quantiles == 0).all(axis=None)


def test_ties_and_single_optimizers():
    found = null_of([run(o, s, 5.0) for o in "ab" for s in range(3)])
    assert found.leaders == ("a", "b")
    assert (found.lead, found.spread, found.lead_p_value) == (0, 0, 1)
    alone = null_of([run("a", 0, 5.0)])
    assert alone.leaders == ("a",)
    assert math.isnan(alone.lead)
    assert math.isnan(alone.lead_p_value)
    assert alone.quantiles.isna().all(axis=None)
    assert null_of([]).leaders == ()
    with pytest.raises(ValueError, match="permutations: expected a whole number >= 1, got 0"):
        null_of(SMALL, permutations=0)
