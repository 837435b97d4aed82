"""``timetrial.race`` and ``timetrial.tune``: refused words, columns, nothing made twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from timetrial import UserError, race, tune

FEW = ("preset=quick/flights_dlrm", "optimizer=adam", "budget.steps=5", "study.trials=2")


@pytest.mark.parametrize(
    ("call", "words", "message"),
    [
        (race, ["suit=quick"], "unknown config key 'suit'"),
        (race, ["suite=quack"], "quick"),
        (race, ["launcher=local"], "launcher"),
        (tune, ["workload=flights_dlrm", "optimizer=adan"], "did you mean 'adam'"),
        (tune, [*FEW, "study.trial=3"], "did you mean 'study.trials'"),
    ],
)
def test_what_cannot_be_run_is_refused_and_leaves_no_file(
    call, words: list[str], message: str, tmp_path: Path
):
    with pytest.raises(UserError, match=message):
        call(*words, f"tracking.root={tmp_path}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_study_returns_its_trials_and_makes_none_twice(tmp_path: Path):
    words = [*FEW, f"tracking.root={tmp_path}"]
    first = tune(*words)
    assert list(first.columns[:7]) == [
        "trial", "point", "state", "outcome", "value", "steps", "train_seconds",
    ]  # fmt: skip
    assert "learning_rate" in first.columns
    assert list(first.trial) == [0, 1]
    assert set(first.state) == {"COMPLETE"}
    assert set(first.steps) == {5}
    assert tune(*words).equals(first)


def test_a_race_under_time_budgets_needs_an_idle_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def busy() -> None:
        raise UserError("this machine is busy")

    monkeypatch.setattr("timetrial.bench.by_words.require_idle", busy)
    with pytest.raises(UserError, match="busy"):
        race("suite=mini", f"tracking.root={tmp_path}")
    assert list(tmp_path.iterdir()) == []
