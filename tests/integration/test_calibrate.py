"""Calibration on a tiny workload: measured, written, read by runs and suites, recorded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import optax
import pytest
import tiny_suite

from timetrial.bench import race as races
from timetrial.bench import suite as suites
from timetrial.bench.cli import main
from timetrial.bench.experiment import run as make_run
from timetrial.bench.suite import Suite
from timetrial.bench.timing.calibrate import calibrate, run
from timetrial.bench.workshop import Workshop
from timetrial.framework.calibration import load_calibration, save_calibration
from timetrial.framework.config import Tracking
from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.errors import UserError
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.scores.conditions import by_condition
from timetrial.tracking.store.opening import Store, open_store

STEPS = 60


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_suite.register(monkeypatch, tmp_path, steps=STEPS, eval_every_steps=25)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tracking(tmp_path: Path) -> Tracking:
    return Tracking(uri=f"sqlite:///{tmp_path}/m.db", experiment="e", root=str(tmp_path / "runs"))


def open_(tracking: Tracking) -> Store:
    return open_store(tracking.uri, root=Path(tracking.root))


def test_the_command_measures_and_writes_a_file(capsys: pytest.CaptureFixture[str]):
    assert run("tiny", [], reference=None, share=1.0, warm_up_steps=10) == 0
    found = load_calibration(Path("runs/calibrations/tiny.yaml"))
    assert (found.steps, found.warm_up_steps, len(found.window_step_seconds)) == (STEPS, 10, 5)
    assert found.optimizer == suites.PACEMAKER
    assert min(found.window_step_seconds) <= found.step_seconds <= max(found.window_step_seconds)
    assert found.reference.name == "this machine"
    assert found.budget_seconds == pytest.approx(STEPS * found.step_seconds, abs=1.1e-3)
    assert found.hardware["host"]
    assert found.versions["jax"]
    out = capsys.readouterr().out
    assert "10 discarded" in out
    assert "budget.calibration=runs/calibrations/tiny.yaml" in out


def test_a_file_of_another_machine_is_a_reference():
    here = calibrate("tiny", share=1.0, date="2024-02-29")
    there = dataclasses.replace(here, budget_seconds=1000.0, step_seconds=here.step_seconds / 3)
    save_calibration(there, Path("there.yaml"))
    found = calibrate("tiny", reference="there.yaml", share=1.0, date="2024-02-29")
    assert found.reference.name == "there.yaml"
    assert found.budget_seconds == int(1000 * 3 * found.step_seconds / here.step_seconds)
    with pytest.raises(UserError, match=r"workload\.step_hint=80, got workload\.step_hint=60"):
        calibrate("tiny", ["workload.step_hint=80"], reference="there.yaml", date="2024-02-29")
    save_calibration(dataclasses.replace(there, optimizer="adam"), Path("there.yaml"))
    with pytest.raises(UserError, match="expected a calibration with heavy_ball, got adam"):
        calibrate("tiny", reference="there.yaml", date="2024-02-29")


@pytest.mark.parametrize(
    "words",
    [
        ["calibrate", "tinny"],
        ["calibrate", "tiny", "--reference", "a100x1"],
        ["calibrate", "tiny", "--share", "2"],
        ["calibrate", "tiny", "budget.seconds=3"],
        ["calibrate"],
    ],
)
def test_bad_input_ends_with_2_and_one_line(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("timetrial")


def test_a_run_records_the_calibration_of_its_budget(tracking: Tracking):
    made = calibrate("tiny", share=1.0, date="2024-02-29")
    made = dataclasses.replace(made, budget_seconds=0.2)
    save_calibration(made, Path("c.yaml"))
    words = ["workload=tiny", "optimizer=adam", "budget.calibration=c.yaml"]
    config = dataclasses.replace(suites.load_run(words), tracking=tracking)
    make_run(config, open_(tracking), Workshop())
    (recorded,) = load_runs(open_(tracking), "e")
    assert (recorded.condition, recorded.budget) == ("time", 0.2)
    assert recorded.train_seconds >= 0.2
    assert len(recorded.tags["calibration"]) == 12
    assert recorded.tags["calibration.date"] == "2024-02-29"
    assert recorded.config["budget.calibration"] == "c.yaml"


@pytest.mark.slow
def test_a_suite_takes_its_time_budgets_from_calibrations(tracking: Tracking):
    made = calibrate("tiny", share=1.0, date="2024-02-29")
    save_calibration(dataclasses.replace(made, budget_seconds=0.3), Path("cal/tiny.yaml"))
    suite = Suite(
        *("s", "summary", "p", ("tiny",), ("adam", "heavy_ball"), (0,)),
        conditions=("step", "time"),
        calibrations="cal",
    )
    assert races.race(suite, tracking) == 0
    runs = load_runs(open_(tracking), "e")
    assert len(runs) == 2
    assert "sets_time_budget" not in runs[0].tags
    assert {len(run.tags["calibration"]) for run in runs} == {12}
    split = by_condition(runs)
    assert {(r.condition, r.budget) for r in split} == {("step", float(STEPS)), ("time", 0.3)}
    assert all(r.train_seconds >= 0.3 for r in split if r.condition == "time")
    assert races.race(suite, tracking) == 0
    assert len(load_runs(open_(tracking), "e")) == 2  # nothing is repeated
    elsewhere = dataclasses.replace(suite, calibrations="nowhere")
    with pytest.raises(UserError, match=r"nowhere/tiny\.yaml"):
        races.race(elsewhere, tracking)


def test_any_optimizer_that_needs_a_horizon_is_told_the_estimate_and_then_trial_1(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch
):
    """Appendix B for more than VeLO: here a cosine schedule over all steps of the budget."""
    told: list[int | None] = []

    @dataclasses.dataclass(frozen=True)
    class Settings:
        learning_rate: float = 1e-2

    def make(settings: Settings, horizon: Horizon) -> optax.GradientTransformation:
        assert horizon.steps is not None
        told.append(horizon.steps)
        return optax.sgd(optax.cosine_decay_schedule(settings.learning_rate, horizon.steps))

    entry = OptimizerEntry("cosine", Settings, make, needs_steps=True)
    monkeypatch.setitem(OPTIMIZERS, "cosine", entry)
    suite = Suite(
        *("s", "summary", "p", ("tiny",), ("cosine", "heavy_ball"), (0, 1)),
        conditions=("step", "time"),
    )
    assert races.race(suite, tracking) == 0
    runs = [r for r in load_runs(open_(tracking), "e") if r.optimizer == "cosine"]
    first, second = sorted((r for r in runs if r.condition == "time"), key=lambda r: r.seed)
    assert first.tags["expected_steps_source"].startswith("measured seconds per step")
    assert int(first.config["budget.expected_steps"]) in told
    assert second.tags["expected_steps_source"] == "steps of the first trial"
    assert second.config["budget.expected_steps"] == str(first.step)
    assert first.step in told
    assert STEPS in told  # under the step budget: the budget itself
