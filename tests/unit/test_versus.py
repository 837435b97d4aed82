"""Two optimizers of a race in one paragraph: who wins where, by how much, how sure."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from tests.race import race
from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Direction
from timetrial.tracking.report import versus as module
from timetrial.tracking.report.versus import versus
from timetrial.tracking.scores.resampling import Bootstrap

FEW = Bootstrap(samples=300)


def run(optimizer: str, workload: str, seed: int, values: list[float], **more: object) -> RunRecord:
    """Evaluations at steps 0, 10, ... of a budget of 40 steps, a second each."""
    rows = [Row(10 * k, float(k), {"validation/accuracy": v}) for k, v in enumerate(values)]
    made = RunRecord(
        run_id=f"{optimizer}-{workload}-{seed}", workload=workload, optimizer=optimizer, seed=seed,
        condition="step", budget=40.0, metric="accuracy", direction=Direction.MAXIMIZE,
        status="FINISHED", reason="BUDGET", step=rows[-1].step,
        train_seconds=rows[-1].train_seconds, evaluations=rows,
    )  # fmt: skip
    return dataclasses.replace(made, **more)  # type: ignore[arg-type]


def curve(end: float, *, at: int) -> list[float]:
    """Reaches ``end`` at evaluation ``at`` of 0 to 4, and stays there."""
    return [end * min(k / at, 1.0) for k in range(5)]


@pytest.fixture
def records() -> list[RunRecord]:
    """On ``easy`` fast is better and twice as fast; on ``hard`` slow is better in 8 of 9 pairs."""
    found = []
    for seed in range(3):
        found += [
            run("fast", "easy", seed, curve(0.9 + 0.01 * seed, at=1)),
            run("slow", "easy", seed, curve(0.9 + 0.01 * seed - 0.05, at=2)),
            run("fast", "hard", seed, curve(0.50 + 0.02 * (seed == 2), at=3)),
            run("slow", "hard", seed, curve((0.515, 0.53, 0.54)[seed], at=3)),
        ]
    return found


def test_the_paragraph_says_who_wins_where_by_how_much_and_how_sure(records: list[RunRecord]):
    text = versus(records, "slow", "fast", bootstrap=FEW).text
    assert text.startswith(
        "Under step control, fast and slow are not told apart: on the final validation metric of a "
        "random workload, a run of fast beats one of slow with probability 0.56 (interval 0."
    )  # (9 of 9 + 1 of 9) / 2 pairs of runs
    assert "slow ends better on 1 of 2 (hard: accuracy 0.5283 against 0.5067, 8 of 9 pairs" in text
    assert "fast ends better on 1 of 2 (easy: accuracy 0.9100 against 0.8600, 9 of 9 pairs" in text
    # The targets are the best medians at 75 % of the budget: 0.91 and 0.53.
    assert text.endswith(
        "To the validation targets fast is faster on 1 of 2 (easy: 10 steps against never), slow "
        "is faster on 1 of 2 (hard: 30 steps against never)."
    )


def test_the_order_of_the_names_changes_no_number(records: list[RunRecord]):
    told = {
        versus(runs, *names, bootstrap=FEW).text
        for runs in (records, records[::-1])
        for names in (("slow", "fast"), ("fast", "slow"))
    }
    assert len(told) == 1


def test_three_seeds_on_one_workload_tell_nothing_apart(records: list[RunRecord]):
    easy = [one for one in records if one.workload == "easy"]
    text = versus(easy, "slow", "fast", bootstrap=FEW).text
    assert "fast and slow are not told apart" in text  # 3 seeds on 1 workload: p = 0.1 at least
    assert "with probability 1.00 (interval 1.00 to 1.00, coverage not known; " in text
    both = [one for one in easy if one.seed == 0]
    third = [
        dataclasses.replace(one, optimizer="third", run_id=f"{one.run_id}t")
        for one in both
        if one.optimizer == "slow"
    ]
    text = versus([*both, *third], "slow", "third", bootstrap=FEW).text
    assert "they are level on easy." in text
    assert "neither arrives on easy" in text  # the target is fast's


def test_a_p_value_decides_where_there_is_one(
    records: list[RunRecord], monkeypatch: pytest.MonkeyPatch
):
    made = module.probability_of_improvement

    def with_p_value(p_value: float):
        def tested(*arguments: object, **more: object) -> pd.DataFrame:
            return made(*arguments, **more).assign(p_value=p_value)  # type: ignore[arg-type]

        return tested

    easy = [one for one in records if one.workload == "easy"]
    monkeypatch.setattr(module, "probability_of_improvement", with_p_value(0.1))
    text = versus(easy, "slow", "fast", bootstrap=FEW).text
    assert "fast and slow are not told apart" in text
    assert (
        "interval 1.00 to 1.00, coverage not known; equal optimizers differ as much with p = 0.1)"
        in text
    )
    monkeypatch.setattr(module, "probability_of_improvement", with_p_value(0.0004))
    text = versus(easy, "slow", "fast", bootstrap=FEW).text
    assert "fast is better than slow" in text
    assert "p < 0.001" in text


def test_runs_without_a_final_value_are_worst_and_said(records: list[RunRecord]):
    broken = [
        dataclasses.replace(one, status="FAILED", reason="DIVERGED", step=20)
        if (one.optimizer, one.workload, one.seed) == ("slow", "hard", 2)
        else one
        for one in records
    ]
    text = versus(broken, "slow", "fast", bootstrap=FEW).text
    assert (
        "slow ends better on 1 of 2 (hard: accuracy 0.5225 (2 of 3 runs) against 0.5067, 5" in text
    )
    lost = [
        dataclasses.replace(one, status="FAILED", reason="DIVERGED", step=20)
        if (one.optimizer, one.workload) == ("slow", "hard")
        else one
        for one in records
    ]
    text = versus(lost, "slow", "fast", bootstrap=FEW).text
    assert "hard: accuracy 0.5067 against no value, 9 of 9 pairs of runs" in text


def test_both_conditions_have_their_sentences_and_panels():
    result = versus(race(), "velo", "adam", bootstrap=FEW)
    assert result.text.index("Under time control") < result.text.index("Under step control")
    titles = [panel.title for panel in result.plot.panels]
    assert titles[0] == "assays_gnn, time control"
    assert titles[-1] == "icbm_unet, step control"
    assert len(titles) == 8
    for panel in result.plot.panels:
        assert sorted(line.name for line in panel.lines) == ["adam", "velo"]
        assert np.isfinite(panel.target)
        line = panel.lines[0]
        assert line.low is not None
        assert line.high is not None
        assert (line.low <= line.y + 1e-12).all()
        assert (line.high >= line.y - 1e-12).all()
    assert set(result.files) == {"velo-against-adam.png", "velo-against-adam.svg"}
    assert result.files["velo-against-adam.png"].startswith(b"\x89PNG")
    assert result.files == versus(race()[::-1], "velo", "adam", bootstrap=FEW).files


def test_optimizers_that_never_meet_and_seconds_of_two_machines_are_refused(
    records: list[RunRecord],
):
    apart = [one for one in records if (one.optimizer == "fast") == (one.workload == "easy")]
    with pytest.raises(ValueError, match=r"got none \(slow: hard; fast: easy\)"):
        versus(apart, "slow", "fast")
    mixed = [
        dataclasses.replace(one, tags={**one.tags, "host_cpu": one.optimizer})
        for one in race(conditions=("time",))
    ]
    with pytest.raises(ValueError, match="assays_gnn were timed on different machines; --mixed"):
        versus(mixed, "velo", "adam")
    assert "Under time control" in versus(
        mixed, "velo", "adam", bootstrap=FEW, mixed_machines=True
    ).text  # fmt: skip
