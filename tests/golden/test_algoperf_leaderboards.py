"""AlgoPerf's three leaderboards follow from the times to target in its public logs.

The tables hold times to target (seconds; empty: no run) of the logs that are published in
https://github.com/mlcommons/submissions_algorithms (previous_leaderboards/, Apache-2.0), and in the
column ``score`` what the scorer of that repository prints for them. The published scores are those
of the leaderboards' pages, to four digits.

The third leaderboard has no page yet. Its tables are the scorer's output as published beside its
logs: results/time_to_targets.csv and results/scores.csv of the branch a100_scoring (46e69f1b, 25
June 2026) and, ``first``, of aliu_scoring_plots (a6cbad48, 12 June 2026).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from timetrial.tracking.scores import algoperf, scoring
from timetrial.tracking.scores.algoperf_rules import V05, V06, V2, Rules
from timetrial.tracking.scores.algoperf_workloads import (
    BASE_V05,
    BASE_V2,
    HELD_OUT_V05,
    RUNTIMES_V05,
)

PUBLISHED = {
    "v05_external_tuning": {
        "shampoo_submission": 0.7784,
        "schedule_free_adamw": 0.7077,
        "generalized_adam": 0.6383,
        "cyclic_lr": 0.6301,
        "nadamp": 0.5909,
        "baseline": 0.5707,
        "amos": 0.4918,
        "caspr_adaptive": 0.4722,
        "lawa_queue": 0.3699,
        "lawa_ema": 0.3384,
        "schedule_free_prodigy": 0.0,
    },
    "v05_self_tuning": {
        "schedule_free_adamw": 0.8542,
        "baseline": 0.8194,
        "nadamw_sequential": 0.3308,
        "sinv6_75": 0.1420,
        "sinv6": 0.0903,
        "adamg": 0.0,
    },
    "v06_external_tuning": {"shampoo": 0.6244, "baseline": 0.4590},
}
RULES = {"v05": V05, "v06": V06, "v2_": V2}
NEWEST = {"v2_self_tuning": (17, 0.078), "v2_self_tuning_first": (16, 0.098)}


def board(name: str) -> tuple[pd.DataFrame, pd.Series, Rules]:
    path = Path(__file__).parent / "algoperf" / f"{name}.csv"
    table = pd.read_csv(path, index_col="submission")
    return table.drop(columns="score"), table["score"], RULES[name[:3]]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_scores_are_those_of_their_scorer_and_of_the_published_page(name: str):
    times, theirs, rules = board(name)
    ours = algoperf.scores(times, rules)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    published = pd.Series(PUBLISHED[name])
    assert sorted(published.index) == sorted(ours.index)
    np.testing.assert_allclose(ours[published.index], published, rtol=0, atol=5.1e-5)


@pytest.mark.parametrize("name", NEWEST)
def test_the_scores_on_nine_workloads_are_those_of_their_scorer(name: str):
    times, theirs, rules = board(name)
    submissions, off = NEWEST[name]
    assert times.shape == (submissions, 9)
    assert sorted(times.columns) == sorted(BASE_V2)
    np.testing.assert_allclose(algoperf.scores(times, rules), theirs, rtol=0, atol=1e-12)
    # By the rules of the second leaderboard, the ninth workload would not count.
    eight = algoperf.scores(times[list(BASE_V05)], V06)
    assert float((eight - theirs).abs().max()) == pytest.approx(off, abs=5e-4)


@pytest.mark.parametrize("name", NEWEST)
def test_the_rules_of_nine_workloads_by_their_definition(name: str):
    """Without any of our code: cut at 4 times the best, trapezoids over 100 factors, over 3."""
    times, _, rules = board(name)
    table = times[list(BASE_V2)].fillna(np.inf).to_numpy()
    best = table.min(axis=0)
    grid = np.linspace(1, 4, 100)
    expected = []
    for row in table:
        reached = [t / b for t, b in zip(row, best, strict=True) if t <= 4 * b and np.isfinite(t)]
        heights = np.array([sum(ratio <= tau for ratio in reached) / 9 for tau in grid])
        area = sum((heights[1:] + heights[:-1]) / 2 * np.diff(grid))
        expected.append(area / 3)
    np.testing.assert_allclose(algoperf.scores(times, rules), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [*PUBLISHED, *NEWEST])
def test_order_never_matters(name: str):
    times, theirs, rules = board(name)
    shuffled = times.sample(frac=1, random_state=1).sample(frac=1, axis=1, random_state=2)
    pd.testing.assert_series_equal(
        algoperf.scores(shuffled, rules).sort_index(), theirs.sort_index(), check_names=False
    )


def changed(name: str, **rules: object) -> float:
    times, theirs, base = board(name)
    ours = algoperf.scores(times, dataclasses.replace(base, **rules))
    return float((ours - theirs).abs().max())


def test_every_rule_of_the_first_leaderboard_matters():
    assert changed("v05_external_tuning", variants=()) > 0.05
    assert changed("v05_external_tuning", workloads=BASE_V05[:-1]) > 0.01
    assert changed("v05_external_tuning", r_max=3.0) > 0.01
    assert 1e-6 < changed("v05_external_tuning", points=None) < 2e-3
    # With r_max = 4 a base workload beyond four times the best adds nothing either way; through
    # the variants the cut-off still counts.
    assert changed("v05_external_tuning", cutoff=None) > 0.05


def test_the_rules_without_variants_and_cutoff_are_the_papers():
    times, _, _ = board("v05_external_tuning")
    times = times[list(BASE_V05)]
    plain = Rules(cutoff=None, points=None)
    pd.testing.assert_series_equal(
        algoperf.scores(times, plain), scoring.scores(times, r_max=4.0), rtol=1e-12
    )
    taus = np.linspace(1, 4, 100)
    trapezoid = scoring.scores(times, r_max=4.0, taus=taus)
    np.testing.assert_allclose(algoperf.scores(times, Rules(cutoff=None)), trapezoid, atol=1e-12)


def test_the_held_out_variants_belong_to_base_workloads():
    assert {v: algoperf._base_of(v, BASE_V05) for v in HELD_OUT_V05} == {
        "criteo1tb_embed_init": "criteo1tb",
        "fastmri_tanh": "fastmri",
        "imagenet_resnet_large_bn_init": "imagenet_resnet",
        "librispeech_conformer_layernorm": "librispeech_conformer",
        "ogbg_model_size": "ogbg",
        "wmt_glu_tanh": "wmt",
    }


def test_speedups_are_the_inverse_of_theirs():
    """Their ratio: geometric mean of t / t_base, a miss counting as the longest runtime + 1 s."""
    times, _, _ = board("v05_external_tuning")
    times = times[list(BASE_V05)]
    limits = {workload: seconds + 1 for workload, seconds in RUNTIMES_V05.items()}
    found = scoring.speedups(times, "baseline", budgets=limits)["speedup"]
    filled = times.replace(np.inf, np.nan).fillna(limits)
    theirs = stats.gmean(filled / filled.loc["baseline"], axis=1)
    np.testing.assert_allclose(1 / found, theirs, rtol=1e-12)
    assert found["shampoo_submission"] == pytest.approx(1.37, abs=0.02)
