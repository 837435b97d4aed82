"""The paper's Table 3 follows from its Tables 9-12 (arXiv:2310.18191v2)."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pandas as pd
import pytest

from timetrial.tracking.scores.scoring import scores

R_MAX = {"time": 3.0, "step": 1.5}
KNOWN_EXCEPTION = ("step", "train", "velo_short")
COLUMNS = [(condition, split) for condition in R_MAX for split in ("train", "validation")]


def read(name: str) -> pd.DataFrame:
    with (resources.files("timetrial.tracking") / "paper" / name).open() as file:
        return pd.read_csv(file)


def times(condition: str, split: str) -> pd.DataFrame:
    rows = read("time_to_target.csv").query("condition == @condition and split == @split")
    return rows.pivot(index="optimizer", columns="workload", values="value")


def published(condition: str, split: str) -> pd.Series[float]:
    rows = read("scores.csv").query("condition == @condition and split == @split")
    return rows.set_index("optimizer")["score"]


@pytest.mark.parametrize(("condition", "split"), COLUMNS)
def test_table_3_follows_from_tables_9_to_12(condition: str, split: str) -> None:
    ours = scores(times(condition, split), r_max=R_MAX[condition])
    theirs = published(condition, split)
    assert sorted(ours.index) == sorted(theirs.index)
    assert len(ours) == 7
    off = (ours - theirs).abs()
    wrong = {(condition, split, name) for name in off.index[off > 0.015]}
    assert wrong == {KNOWN_EXCEPTION} & {(condition, split, name) for name in off.index}


def test_the_known_exception() -> None:
    """Table 3 prints 0.03 where Table 11 gives 0.17; 5057 instead of 4057 steps would give 0.03."""
    table = times("step", "train")
    assert published("step", "train")["velo_short"] == 0.03
    assert scores(table, r_max=1.5)["velo_short"] == pytest.approx(0.17, abs=0.005)
    assert table.loc["velo_short", "criteo1tb"] == 4057
    table.loc["velo_short", "criteo1tb"] = 5057
    assert scores(table, r_max=1.5)["velo_short"] == pytest.approx(0.03, abs=0.005)


def test_no_r_max_explains_the_known_exception_together_with_its_column() -> None:
    theirs = published("step", "train")
    for r_max in np.arange(1.05, 6.0, 0.05):
        ours = scores(times("step", "train"), r_max=float(r_max))
        assert (ours - theirs).abs().max() > 0.015


def test_the_paper_tables_are_complete() -> None:
    assert len(read("time_to_target.csv")) == 2 * 2 * 7 * 4
    assert len(read("final_quality.csv")) == 30 * 7
    assert len(read("targets.csv")) == 8
