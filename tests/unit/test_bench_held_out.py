"""``benchmarks.held_out_rates`` and ``benchmarks.one_rate``: choices, files, tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import held_out_rates, one_rate
from benchmarks.held_out_rates import Contestant, Found, Results
from timetrial.optimizers.metatraining.celo2 import vector


def found(rate: float, *ratios: float, decay: float = 0.0) -> Found:
    return Found(rate, decay, ratios, tuple(np.log(min(r, 3.0)) for r in ratios))


def test_a_rule_is_compared_at_its_best_rate():
    adam = [found(1e-3, 0.9, 0.9, 0.9), found(1e-2, 0.5, 0.6, 0.7)]
    ours = [found(1e-3, 0.4, 0.7, 0.6), found(1e-2, 0.1, np.inf, 5.0)]
    assert held_out_rates.best(adam).rate == 1e-2
    assert held_out_rates.best(ours).rate == 1e-3
    rows = {
        r[1]: r
        for r in held_out_rates.family_rows(
            {"adam": adam, "adamw": adam, "ours": ours}, "tiny", limit=1e-2
        )
    }
    assert rows["ours"][3:] == ("0.001", f"{ours[1].score:.3f}", "67%", "67%", "2")
    assert rows["adam"][5:] == ("", "", "0")
    assert (
        next(iter(held_out_rates.family_rows({"adam": adam, "adamw": adam, "x": ours}, "", 1e-3)))[
            7
        ]
        == "0"
    )


def test_one_rate_for_all_families_is_judged_by_its_mean():
    both = {
        "a": {"adamw": [found(1e-2, 0.5, decay=1e-2), found(1e-2, 0.1), found(1e-1, 1.0)]},
        "b": {"adamw": [found(1e-2, 0.25, decay=1e-2), found(1e-1, 0.5)]},
    }
    assert held_out_rates.one_rate(both, "adamw") == {1e-2: pytest.approx(np.log(0.125) / 2)}


def test_contestants_are_read_from_words():
    harness = held_out_rates.contestant("harness@3:random")
    assert harness.factor == 3.0
    np.testing.assert_array_equal(harness.vector, vector.random_start(0))
    assert held_out_rates.contestant("harness:hand_made").factor == 1.0
    assert held_out_rates.contestant("embedded").factor is None
    keys = {held_out_rates.contestant(word).key for word in ("embedded", "hand_made", "random")}
    assert len(keys) == 3


def test_results_are_kept_and_not_made_again(tmp_path: Path):
    path = tmp_path / "held_out.jsonl"
    made = (np.array([[0.5, np.inf]]), np.array([[-0.7, 1.1]]))
    place = (2, 300, 1)
    first = Results(path, *place).get("x 1", "graph", 1e-2, 0.0, lambda: made)
    again = Results(path, *place).get("x 1", "graph", 1e-2, 0.0, lambda: pytest.fail("again"))
    assert first == again
    assert again.diverged == 1
    other = Results(path, 2, 1_000, 1).get("x 1", "graph", 1e-2, 0.0, lambda: (made[1], made[1]))
    assert other != first
    assert Contestant("adamw").key == "adamw"


def test_the_trials_of_one_rate_are_points_of_the_space_with_a_seed_of_their_own():
    planned = list(one_rate.trials("nadamw", "flights_dlrm", 3))
    assert len({each.key for each in planned}) == 3
    configs = [each.config() for each in planned]
    assert {config.seed for config in configs} == {one_rate.TRIAL_SEED}
    assert len({config.optimizer.settings.learning_rate for config in configs}) == 3
    assert configs[0].budget.steps == 1_200


def test_the_table_of_one_rate_names_what_is_missing(tmp_path: Path):
    results = one_rate.Results(tmp_path / "runs.jsonl")
    one, two, three = one_rate.races("adam:learning_rate=1e-2", ("learning_rate=1e-2",), "x", 3)
    results.add(one, {"train/loss": 0.5}, 1.0)
    results.add(two, {"train/loss": float("nan")}, 1.0)
    again = one_rate.Results(tmp_path / "runs.jsonl")
    losses = [again.loss(each) for each in (one, two, three)]
    assert losses[:2] == [0.5, float("inf")]
    assert np.isnan(losses[2])
    text = one_rate.row("ours", {"x": [0.5, np.nan], "y": [np.nan]}, {"x": 0.4})
    assert text == "| ours | 0.5000 (+25.0%), 1 seeds | not run |"
