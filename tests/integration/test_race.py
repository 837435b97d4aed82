"""A whole race on a tiny workload: its runs, their numbers of steps, their records."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path

import jax
import numpy as np
import optax
import pandas as pd
import pytest
import tiny_suite
from tiny import TinyWorkload

from timetrial.bench import making
from timetrial.bench import race as races
from timetrial.bench import suite as suites
from timetrial.bench.compare import Places, compare
from timetrial.bench.experiment import run
from timetrial.bench.launch.graph import Plan
from timetrial.bench.report import report as write_report
from timetrial.bench.suite import Suite, TargetSettings, load_run
from timetrial.bench.timing.calibrate import calibrate
from timetrial.bench.timing.estimate import estimate_steps, steps_within
from timetrial.bench.workshop import Workshop
from timetrial.framework import callbacks as cb
from timetrial.framework.budget import Budget, StopReason
from timetrial.framework.calibration import save_calibration
from timetrial.framework.config import ConfigError, Tracking, digest, to_yaml
from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.errors import UserError
from timetrial.framework.records import RunRecord
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.optimizers import OPTIMIZERS
from timetrial.optimizers.metatraining.warm_start import warm_start
from timetrial.optimizers.velo import entry as learned
from timetrial.optimizers.velo.weights import save_weights
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.scores.conditions import by_condition
from timetrial.tracking.store.opening import Store, open_store

STEPS = 30


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_suite.register(monkeypatch, tmp_path, steps=STEPS, eval_every_steps=5)
    monkeypatch.chdir(tmp_path)


def make_suite(*optimizers: str, conditions=("step",), seeds=(0, 1)) -> Suite:
    return Suite("s", "summary", "p", ("tiny",), optimizers, seeds, conditions)


@pytest.fixture
def tracking(tmp_path: Path) -> Tracking:
    return Tracking(uri=f"sqlite:///{tmp_path}/m.db", experiment="e", root=str(tmp_path / "runs"))


def open_(tracking: Tracking) -> Store:
    return open_store(tracking.uri, root=Path(tracking.root))


def raced(suite: Suite, tracking: Tracking) -> list[RunRecord]:
    assert races.race(suite, tracking) == 0
    return load_runs(open_(tracking), tracking.experiment)


def calibrated(suite: Suite, seconds: float) -> Suite:
    """The suite with time budgets from a calibration instead of a reference run."""
    words = [f"workload.step_hint={STEPS}", "workload.eval_every_steps=5"]
    made = calibrate("tiny", words, share=1.0, date="2024-02-29")
    save_calibration(
        dataclasses.replace(made, budget_seconds=seconds), Path("calibrations/tiny.yaml")
    )
    return dataclasses.replace(suite, calibrations="calibrations")


def test_a_race_in_both_conditions_makes_each_run_once(tracking: Tracking):
    suite = make_suite("adam", "heavy_ball", conditions=("step", "time"))
    runs = raced(suite, tracking)
    assert len(runs) == 4
    split = by_condition(runs)
    assert len(split) == 8
    (budget,) = {r.budget for r in split if r.condition == "time"}
    pace = next(r for r in runs if r.tags.get("sets_time_budget") == "true")
    assert (pace.optimizer, pace.seed, pace.train_seconds) == ("heavy_ball", 0, budget)
    for record in split:
        used = record.step if record.condition == "step" else record.train_seconds
        assert used >= record.budget
        assert record.evaluations[-1].step == record.step
    again = raced(suite, tracking)
    assert {r.run_id for r in again} == {r.run_id for r in runs}


def test_every_run_of_a_race_is_evaluated_at_three_quarters_of_its_budgets(tracking: Tracking):
    runs = raced(make_suite("adam", "heavy_ball", conditions=("step", "time")), tracking)
    for record in runs:
        assert record.tags["evaluated_at"] == "0.75"
        assert math.ceil(0.75 * STEPS) in [row.step for row in record.evaluations]


def test_the_targets_of_a_suite_are_set_by_its_setters_or_its_file(tracking: Tracking, capsys):
    suite = make_suite("adam", "velo_short")
    raced(suite, tracking)
    report = Path(tracking.root) / "reports" / "s"
    set_by = pd.read_csv(report / "targets.csv")["set_by"]
    assert set(set_by) == {"adam"}
    chosen = dataclasses.replace(suite, targets=TargetSettings(setters=("velo_short",)))
    assert write_report(chosen, tracking) == 0
    assert set(pd.read_csv(report / "targets.csv")["set_by"]) == {"velo_short[embedded]"}
    Path("fixed.csv").write_text("workload,target\ntiny,0.125\n")
    fixed = dataclasses.replace(suite, targets=TargetSettings(file="fixed.csv"))
    assert write_report(fixed, tracking) == 0
    table = pd.read_csv(report / "targets.csv").set_index("split")
    assert table.loc["validation", ["target", "set_by"]].to_list() == [0.125, "fixed.csv"]
    capsys.readouterr()
    told = []
    Path("at_once.csv").write_text("workload,target\ntiny,1e9\n")  # a loss that is lower at step 0
    for name in ("", "at_once.csv"):
        raced_suite = dataclasses.replace(suite, targets=TargetSettings(file=name))
        places = Places(raced_suite, tracking)
        assert compare("adam", "velo_short", places, Path("out"), mixed_machines=False) == 0
        told.append("both take equally long on tiny" in capsys.readouterr().out)
    assert told == [False, True]
    wrong = dataclasses.replace(suite, targets=TargetSettings(setters=("adma",)))
    with pytest.raises(UserError, match="did you mean 'adam'"):
        write_report(wrong, tracking)


def test_prompted_velo_is_told_an_estimate_first_and_then_what_the_first_trial_made(
    tracking: Tracking,
):
    runs = raced(make_suite("velo", "heavy_ball", conditions=("step", "time")), tracking)
    velo = [r for r in runs if r.optimizer.startswith("velo[")]
    stepped = [r for r in velo if r.condition == "step"]
    assert {r.tags["velo.num_steps"] for r in stepped} == {str(STEPS)}
    first, second = sorted((r for r in velo if r.condition == "time"), key=lambda r: r.seed)
    assert first.tags["expected_steps_source"].startswith("measured seconds per step")
    assert second.tags["expected_steps_source"] == "steps of the first trial"
    assert second.config["budget.expected_steps"] == str(first.step)
    assert second.tags["velo.num_steps"] == str(first.step)


def test_short_velo_is_told_the_steps_of_velos_first_trial_for_every_seed(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch
):
    """Table 7 of the paper, last row; its own first trial ends at 75 % of them."""
    suite = calibrated(make_suite("velo", "velo_short", conditions=("time",)), seconds=0.3)
    runs = raced(suite, tracking)
    velo = sorted((r for r in runs if r.optimizer.startswith("velo[")), key=lambda r: r.seed)
    short = [r for r in runs if r.optimizer.startswith("velo_short[")]
    assert len(short) == 2
    for record in short:
        assert record.config["budget.expected_steps"] == str(velo[0].step)
        assert record.tags["velo.num_steps"] == str(int(0.75 * velo[0].step))

    # a diverged first trial tells nobody: the second one does
    bad = dataclasses.replace(velo[0], reason=StopReason.DIVERGED.name)
    recorded = {run.tags[schema.CONFIG_HASH]: [run] for run in (bad, *velo[1:])}
    of_one = lambda store, tracking, digest: recorded.get(digest, [])  # noqa: E731
    monkeypatch.setattr(making, "runs_of", of_one)
    plan = suites.plan(suite, tracking, "tiny", 0.3)
    trials = [Plan(plan).first_trials(config) for config in plan]
    told = [making.told_steps(digests, open_(tracking), tracking) for digests in trials]
    assert told == [velo[1].step, None, velo[1].step, velo[1].step]


def test_short_velo_without_velo_is_told_what_its_own_first_trial_was_told(tracking: Tracking):
    suite = make_suite("velo_short", conditions=("time",), seeds=(0, 1, 2))
    runs = raced(calibrated(suite, seconds=0.3), tracking)
    first, *later = sorted(runs, key=lambda r: r.seed)
    assert first.tags["expected_steps_source"].startswith("measured seconds per step")
    told = int(first.config["budget.expected_steps"])
    if first.reason == StopReason.COMPLETE.name:
        assert first.step == int(0.75 * told)
    else:
        told = first.step  # a slow machine: time was up before
    assert [int(r.config["budget.expected_steps"]) for r in later] == [told, told]


def test_a_diverged_reference_run_sets_no_time_budget(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    @dataclasses.dataclass(frozen=True)
    class Settings:
        pass

    entry = OptimizerEntry("nan", Settings, lambda settings, horizon: optax.sgd(float("nan")))
    monkeypatch.setitem(OPTIMIZERS, "heavy_ball", entry)
    suite = make_suite("adam", "heavy_ball", conditions=("step", "time"), seeds=(0,))
    assert races.race(suite, tracking) == 1
    told = capsys.readouterr().err
    assert "tiny, time budgets: its reference run failed or diverged" in told
    (only,) = load_runs(open_(tracking), tracking.experiment)
    assert only.reason == StopReason.DIVERGED.name
    assert only.tags["not_finite"] == "loss"


@pytest.mark.parametrize("name", ["velo", "velo_short", "velo_feed"])
def test_train_measures_the_steps_of_a_time_budget(
    name: str, tracking: Tracking, capsys: pytest.CaptureFixture[str]
):
    words = [
        *("workload=tiny", f"optimizer={name}", "budget.seconds=0.3"),
        *(f"tracking.uri={tracking.uri}", f"tracking.root={tracking.root}"),
    ]
    assert races.train(load_run([*words, "tracking.experiment=e"])) == 0
    (record,) = load_runs(open_(tracking), "e")
    assert (record.condition, record.budget) == ("time", 0.3)
    measured = record.tags.get("expected_steps_source", "").startswith("measured seconds per step")
    assert measured == (name != "velo_feed")


def test_short_velo_ends_when_it_has_made_its_updates_and_the_fed_one_races_against_time_only(
    tracking: Tracking,
):
    suite = make_suite(
        "velo_short", "velo_feed", "heavy_ball", conditions=("step", "time"), seeds=(0,)
    )
    runs = raced(suite, tracking)
    (short,) = [r for r in runs if r.optimizer.startswith("velo_short") and r.condition == "step"]
    assert (short.step, short.reason) == (int(0.75 * STEPS), StopReason.COMPLETE.name)
    (fed,) = [r for r in runs if r.optimizer.startswith("velo_feed")]
    assert fed.condition == "time"
    assert fed.tags["velo.num_steps"] == str(STEPS)  # the step hint: nothing was measured


def test_labels_say_which_weights(tracking: Tracking):
    (run_,) = raced(make_suite("velo", seeds=(0,)), tracking)
    assert run_.optimizer in ("velo[embedded]", "velo[google]")
    assert len(run_.tags["velo.weights_sha256"]) == 64


def test_other_weights_in_the_same_file_make_another_run(tmp_path: Path):
    path = tmp_path / "mine.params"
    words = ["workload=tiny", "optimizer=velo", f"optimizer.weights={path}"]
    configs = []
    for seed in (0, 1):
        save_weights(path, warm_start(4, 2, seed), "mine", 0)
        learned.load.cache_clear()
        configs.append(load_run(words))
    first, second = (config.optimizer.settings.weights_sha256 for config in configs)
    assert digest(configs[0]) != digest(configs[1])
    assert second == hashlib.sha256(path.read_bytes()).hexdigest()
    # What is recorded of a run repeats that run, or says that it cannot.
    recorded = tmp_path / "recorded.yaml"
    recorded.write_text(to_yaml(configs[1]))
    assert digest(load_run([f"preset={recorded}"])) == digest(configs[1])
    with pytest.raises(ConfigError, match=f"weights_sha256: expected {first}, but the weights"):
        load_run([*words, f"optimizer.weights_sha256={first}"])


def test_a_run_that_raises_is_recorded_as_failed_and_the_race_goes_on(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def broken(settings: object, horizon: Horizon):
        raise RuntimeError("this optimizer is broken")

    entry = dataclasses.replace(OPTIMIZERS["adam"], make=broken)
    monkeypatch.setitem(OPTIMIZERS, "adam", entry)
    suite = make_suite("adam", "nesterov", seeds=(0,))
    assert races.race(suite, tracking) == 1
    assert "FAILED tiny adam seed 0: RuntimeError: this optimizer is broken" in (
        capsys.readouterr().err
    )
    runs = load_runs(open_(tracking), tracking.experiment)
    assert {(r.optimizer, r.status) for r in runs} == {
        ("adam", "FAILED"),
        ("nesterov", "FINISHED"),
    }


def test_step_controlled_results_repeat_exactly(tracking: Tracking, tmp_path: Path):
    suite = make_suite("adam", "velo", seeds=(0,))
    elsewhere = Tracking(f"sqlite:///{tmp_path}/n.db", "e", str(tmp_path / "runs2"))
    first, second = raced(suite, tracking), raced(suite, elsewhere)
    for one, other in zip(first, second, strict=True):
        assert [e.metrics for e in one.evaluations] == [e.metrics for e in other.evaluations]


def test_a_batch_of_merged_updates_is_said_aloud(
    tracking: Tracking, caplog: pytest.LogCaptureFixture
):
    config = suites.load_run(
        [
            "preset=p/tiny",
            "optimizer=velo",
            "optimizer.max_training_steps=10",
            f"tracking.uri={tracking.uri}",
            f"tracking.root={tracking.root}",
        ]
    )
    run(config, open_(tracking), Workshop())
    (recorded,) = load_runs(open_(tracking), "timetrial")
    assert recorded.tags["velo.accumulation_steps"] == "3"
    assert "averages gradients over 3 steps" in recorded.tags["warning"]
    assert "averages gradients over 3 steps" in caplog.text


def test_fed_and_prompted_velo_are_the_same_under_a_step_budget():
    """Why the fed one is raced against time only."""
    states = []
    for name in ("velo", "velo_feed"):
        entry = OPTIMIZERS[name]
        program = Program(TinyWorkload(), entry.make(entry.settings(), Horizon(STEPS, STEPS)))
        callbacks = [cb.FeedRemainingFraction()]
        states.append(Trainer(program, Budget(steps=STEPS), callbacks).fit(program.init(0)).state)
    moved = np.abs(states[0].params["w"] - Program(TinyWorkload(), program.tx).init(0).params["w"])
    assert moved.max() > 1e-3
    np.testing.assert_allclose(states[0].params["w"], states[1].params["w"], rtol=1e-5)


def test_fed_velo_fails_by_name_without_its_feed():
    entry = OPTIMIZERS["velo_feed"]
    program = Program(TinyWorkload(), entry.make(entry.settings(), Horizon(STEPS, None)))
    with pytest.raises(TypeError, match="remaining_fraction"):
        Trainer(program, Budget(steps=3), []).fit(program.init(0))


def test_a_nan_loss_ends_a_velo_run_as_diverged():
    class Broken(TinyWorkload):
        def train_batch(self, seed: int, step: int):
            batch = super().train_batch(seed, step)
            return {**batch, "y": batch["y"] * (np.nan if step == 7 else 1)}

    entry = OPTIMIZERS["velo"]
    program = Program(Broken(), entry.make(entry.settings(), Horizon(STEPS, STEPS)))
    callbacks = [cb.StopIfDiverged()]
    result = Trainer(program, Budget(steps=STEPS), callbacks).fit(program.init(0))
    assert result.reason is StopReason.DIVERGED
    assert result.step in (8, 9)
    assert all(np.isnan(x).all() for x in jax.tree.leaves(result.state.params))


def test_prompts_of_the_paper():
    """Table 7 of arXiv:2310.18191: budget, times per step, steps told in trial 1."""
    table = [
        (11387, (1.484052533, 1.484052533), 7672),
        (10308, (0.2696488761, 0.2724014883), 38034),
        (81783, (0.5157462852, 0.5139720559), 158845),
        (14859, (0.1875, 0.1865), 79460),
    ]
    for seconds, rates, steps in table:
        assert steps_within(seconds, rates) == steps


def test_the_estimate_measures_this_machine():
    workload = TinyWorkload(step_hint=400)
    entry = OPTIMIZERS["velo"]
    program = Program(workload, entry.make(entry.settings(), Horizon(400, 400)))
    estimate = estimate_steps(program, seconds=1.0)
    assert len(estimate.step_seconds) == 2
    assert estimate.steps == steps_within(1.0, estimate.step_seconds)
    assert 1 <= estimate.steps < 1e6


def test_a_deleted_experiment_is_refused_before_the_training(tmp_path: Path):
    store = open_store(root=tmp_path)
    store.client.delete_experiment(store.experiment_id("gone"))
    config = load_run(["workload=flights_dlrm", "optimizer=adam", "budget.steps=1",
                       f"tracking.root={tmp_path}", "tracking.experiment=gone"])  # fmt: skip
    with pytest.raises(TrackingError, match=r"'gone'.*was deleted"):
        races.train(config)
    assert not (tmp_path / "journals").exists()


def test_a_run_whose_store_fails_is_said_to_be_in_its_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refused(*arguments: object, **options: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("mlflow.MlflowClient.log_batch", refused)
    config = load_run(["workload=flights_dlrm", "optimizer=adam", "budget.steps=1",
                       f"tracking.root={tmp_path}"])  # fmt: skip
    assert races.train(config) == 0
    out = capsys.readouterr().out
    assert f"recorded in {tmp_path}/journals, experiment timetrial" in out
    (run,) = load_runs(open_store(root=tmp_path, create=False), "timetrial")
    assert (run.status, run.step) == ("FINISHED", 1)
