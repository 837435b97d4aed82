"""AlgoPerf's rules, one by one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Direction
from timetrial.tracking.read.algoperf_logs import METRICS
from timetrial.tracking.scores import algoperf, algoperf_rules, algoperf_workloads
from timetrial.tracking.scores.algoperf import profile, ratios, shortfalls, study_times
from timetrial.tracking.scores.algoperf_rules import FORK, Rules

INF, NAN = np.inf, np.nan


def table(**rows: list[float]) -> pd.DataFrame:
    columns = ["w", "v", "w_variant"][: len(next(iter(rows.values())))]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


RULES = Rules(("w", "v"), ("w_variant",))


def run(study: str, seed: int, hits: list[tuple[float, float]], **fields: object) -> RunRecord:
    """A run of ``a`` on ``w`` with evaluations (seconds, accuracy); the target is 0.9."""
    rows = [
        Row(10 * i, seconds, {"validation/accuracy": value})
        for i, (seconds, value) in enumerate(hits, start=1)
    ]
    record = RunRecord(
        run_id=f"{study}/{seed}",
        workload="w",
        optimizer="a",
        seed=seed,
        condition="time",
        budget=NAN,
        metric="accuracy",
        direction=Direction.MAXIMIZE,
        status="FINISHED",
        reason="",
        step=0,
        train_seconds=0.0,
        evaluations=rows,
        tags={"study": study},
    )
    return dataclasses.replace(record, **fields)


def time_of(runs: list[RunRecord], rules: Rules, **options: object) -> float:
    return float(study_times(runs, {"w": 0.9}, rules, **options).loc["a", "w"])


def test_best_trial_of_each_study_then_the_median_over_studies():
    runs = [
        run("s0", 0, [(5.0, 0.1), (10.0, 0.9)]),
        run("s0", 1, [(8.0, 0.95)]),
        run("s1", 2, [(20.0, 0.9)]),
        run("s1", 3, [(3.0, 0.2)]),
        run("s2", 4, [(99.0, 0.5)]),
    ]
    assert time_of(runs, Rules()) == 20.0  # of 8, 20 and never
    assert time_of(runs[:4], Rules()) == 14.0
    assert time_of(runs[2:], Rules()) == INF  # half-way between 20 and never is never
    assert time_of(runs, FORK) == 8.0
    assert time_of(runs, dataclasses.replace(FORK, best_trial="time")) == 8.0
    assert time_of(runs, Rules(), unit="steps") == 10.0


def test_the_best_trial_by_time_or_by_the_number_of_its_evaluation():
    late_but_quick = run("s", 0, [(1.0, 0.1), (2.0, 0.2), (3.0, 0.9)])
    early_but_slow = run("s", 1, [(50.0, 0.9)])
    as_early = run("s", 2, [(40.0, 0.9)])
    runs = [late_but_quick, early_but_slow, as_early]
    assert time_of(runs, Rules(best_trial="time")) == 3.0
    for order in (runs, runs[::-1]):
        assert time_of(order, Rules(best_trial="evaluation")) == 40.0


def test_nan_never_reaches_and_equality_does_in_either_direction():
    hits = [(1.0, NAN), (2.0, 0.9)]
    assert time_of([run("s", 0, hits)], Rules()) == 2.0
    down = run("s", 0, [(1.0, NAN), (2.0, 0.91), (3.0, 0.9)], direction=Direction.MINIMIZE)
    assert time_of([down], Rules()) == 3.0
    assert time_of([run("s", 0, [])], Rules()) == INF
    assert study_times([], {}, Rules()).empty


def test_runs_without_a_study_are_studies_of_their_own():
    runs = [run("", s, [(float(s + 1), 0.9)], tags={}) for s in range(3)]
    assert time_of(runs, Rules()) == 2.0


def test_a_miss_on_a_variant_is_a_miss_on_its_workload():
    times = table(a=[10, 10, 5], b=[20, 20, INF], c=[30, 30, NAN])
    found = ratios(times, RULES)
    assert found["w"].tolist() == [1, INF, INF]
    assert found["v"].tolist() == [1, 2, 3]
    assert algoperf.scores(times, RULES)["b"] == pytest.approx(0.5 * (4 - 2) / 3, abs=0.01)


def test_the_best_that_a_variant_disqualifies_still_sets_the_cutoff_but_not_the_ratios():
    times = table(a=[10, 1, INF], b=[39, 1, 5], c=[41, 1, 5])
    found = ratios(times, RULES)
    assert found["w"].tolist() == [INF, 1, INF]


def test_a_variant_counts_only_where_its_workload_is_reached():
    # a is the fastest on the variant but never gets to w: it must not set the variant's cut-off,
    # which would otherwise disqualify b.
    times = table(a=[INF, 1, 1], b=[10, 1, 100])
    assert ratios(times, RULES)["w"].tolist() == [INF, 1]


def test_the_cutoff_keeps_what_is_exactly_four_times_the_best():
    times = table(a=[10, 1], b=[40, 1], c=[40.001, 1])
    assert ratios(times, Rules())["w"].tolist() == [1, 4, INF]
    assert ratios(times, Rules(cutoff=None))["w"].tolist() == [1, 4, 4.0001]


def test_the_denominator_is_the_benchmarks():
    times = table(a=[10], b=[20])
    assert algoperf.scores(times, Rules())["a"] == pytest.approx(1)
    eight = Rules(("w", *"abcdefg"))
    assert algoperf.scores(times, eight)["a"] == pytest.approx(1 / 8)
    assert ratios(times, eight).shape == (2, 8)


def test_other_columns_are_ignored_or_all_variants():
    times = table(a=[10, 10, 5], b=[20, 20, INF])
    assert ratios(times, Rules(("w",), ()))["w"].tolist() == [1, 2]
    assert ratios(times, Rules(("w",), None))["w"].tolist() == [1, INF]


def test_the_fork_integrates_to_the_largest_finite_ratio():
    times = table(a=[1, 1], b=[2, INF])
    grid = profile(times, FORK).columns
    assert (grid[0], grid[-1], len(grid)) == (1, 2, 100)
    assert algoperf.scores(times, FORK)["a"] == pytest.approx(1)
    alone = table(a=[1, 1])
    assert np.isnan(algoperf.scores(alone, FORK)["a"])


def test_log_scale_by_hand():
    times = table(a=[1], b=[2])
    rules = Rules(cutoff=None, points=3, log_scale=True)
    found = profile(times, rules)
    np.testing.assert_allclose(found.columns, [0, np.log10(2), np.log10(4)])
    # 2 = 10**log10(2) up to rounding: the middle point may or may not count.
    assert algoperf.scores(times, rules)["b"] in (pytest.approx(0.75), pytest.approx(0.25))


def test_a_workload_nobody_reaches_and_times_of_zero():
    times = table(a=[0, INF], b=[0, NAN], c=[1, INF])
    assert ratios(times, Rules())["w"].tolist() == [1, 1, INF]
    assert ratios(times, Rules())["v"].tolist() == [INF, INF, INF]
    assert algoperf.scores(times, Rules()).tolist() == pytest.approx([0.5, 0.5, 0])
    assert algoperf.scores(pd.DataFrame(), Rules(("w",))).empty


@pytest.mark.parametrize(
    ("field", "value"),
    [("r_max", 1.0), ("r_max", INF), ("points", 1), ("cutoff", 0.5), ("best_trial", "first")],
)
def test_rules_are_checked_when_made(field: str, value: object):
    with pytest.raises(ValueError, match=f"{field}: expected"):
        Rules(**{field: value})


def test_the_leaderboard_is_sorted_and_says_who_reaches_what():
    times = table(slow=[20, 20, INF], fast=[10, 10, 5], base=[40, INF, 5])
    rules = Rules(("w", "v"), ("w_variant",), runtimes={"w": 99, "v": 159})
    board = algoperf.leaderboard(times, rules, "base")
    assert list(board.index) == ["fast", "slow", "base"]
    assert board["reached"].tolist() == [2, 2, 1]
    assert board["counted"].tolist() == [2, 1, 1]  # slow misses the variant of w
    assert board["wins"].tolist() == [2, 0, 0]
    assert board["workloads"].tolist() == [2, 2, 2]
    assert board["compared"].tolist() == [2, 2, 2]
    # A miss of base on v counts as 159 + 1 seconds.
    assert board["speedup"].tolist() == pytest.approx([8.0, 4.0, 1.0])
    without = algoperf.leaderboard(times, dataclasses.replace(rules, runtimes=None), "base")
    assert without["compared"].tolist() == [1, 1, 1]
    assert without["speedup"].tolist() == pytest.approx([4.0, 2.0, 1.0])
    with pytest.raises(KeyError, match="baseline: expected one of slow, fast, base"):
        algoperf.leaderboard(times, rules, "nobody")


def test_self_tuning_rules_allow_one_trial_and_longer_runtimes():
    for name, factor in (("algoperf-v0.5", 3), ("algoperf-v0.6", 1.5), ("algoperf-v2", 1.5)):
        external, own = algoperf_rules.RULES[name], algoperf_rules.RULES[f"{name}-self"]
        assert (external.trials, own.trials) == (5, 1)
        assert own.runtimes == {w: factor * s for w, s in external.runtimes.items()}
        assert dataclasses.replace(own, trials=5, runtimes=external.runtimes) == external


def test_names_without_a_version_are_the_newest_and_old_spellings_keep_working():
    names = {
        "algoperf": "algoperf-v2",
        "algoperf-self": "algoperf-v2-self",
        "algoperf-v06": "algoperf-v0.6",
        "algoperf-v06-self": "algoperf-v0.6-self",
        "algoperf-v05": "algoperf-v0.5",
        "algoperf-v05-self": "algoperf-v0.5-self",
        "v2": "algoperf-v2",
        "v0.6": "algoperf-v0.6",
    }
    for name, full in names.items():
        assert algoperf_rules.ALIASES[name] == full
    assert set(algoperf_rules.ALIASES.values()) == set(algoperf_rules.RULES)
    assert not set(algoperf_rules.ALIASES) & set(algoperf_rules.RULES)
    assert next(iter(algoperf_rules.RULES)) == "algoperf-v2"


@pytest.mark.parametrize("name", algoperf_rules.RULES)
def test_runtimes_targets_and_step_hints_are_those_of_the_base_workloads(name: str):
    rules = algoperf_rules.RULES[name]
    bases = set(rules.workloads or ())
    assert set(rules.runtimes or ()) == bases
    assert bases <= set(algoperf_workloads.ALGOPERF_VALIDATION)
    assert bases in (set(), set(algoperf_workloads.BASE_V05), set(algoperf_workloads.BASE_V2))
    for hints, base in (
        (algoperf_workloads.STEP_HINTS_V05, algoperf_workloads.BASE_V05),
        (algoperf_workloads.STEP_HINTS_V06, algoperf_workloads.BASE_V05),
        (algoperf_workloads.STEP_HINTS_V2, algoperf_workloads.BASE_V2),
    ):
        assert set(hints) == set(base)


def test_the_newest_workloads_are_as_published():
    """Golden: scoring/workload_targets.json of mlcommons/submissions_algorithms at 12c8e4ea."""
    path = Path(__file__).parents[1] / "golden" / "algoperf" / "v2_workloads.csv"
    theirs = pd.read_csv(path, index_col="workload")
    ours = algoperf_workloads
    assert theirs["validation_target"].to_dict() == ours.ALGOPERF_VALIDATION
    bases = theirs[theirs["base"]]
    assert set(ours.BASE_V2) == set(bases.index)
    assert bases["step_hint"].to_dict() == ours.STEP_HINTS_V2
    for name, metric in bases["metric"].items():
        assert next(m for w, (m, _) in METRICS.items() if str(name).startswith(w)) == metric


def test_shortfalls_list_what_is_missing():
    rules = Rules(("w", "v", "u"), (), studies=2, trials=2)
    lines = shortfalls([run("s0", 0, []), run("s0", 1, [])], rules)
    assert lines == ["a: no run of v, u", "a: 1 studies instead of 2 on w"]
    lines = shortfalls([run(study, 0, []) for study in ("s0", "s1")], rules)
    assert lines == ["a: no run of v, u", "a: 1 trials instead of 2 on w (s0), w (s1)"]
    assert shortfalls([], rules) == []


def test_runs_without_a_study_need_no_trials():
    rules = Rules(("w",), (), studies=3, trials=5)
    assert shortfalls([run("", s, [], tags={}) for s in range(3)], rules) == []
    assert shortfalls([run("", 0, [], tags={})], rules) == ["a: 1 studies instead of 3 on w"]
