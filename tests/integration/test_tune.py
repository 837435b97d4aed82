"""Studies on the tiny workload: what is stored, recorded, refused and written."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path

import matplotlib
import numpy as np
import optuna
import pytest
import tiny_cli
from tiny import TinyWorkload

from timetrial.bench import cli
from timetrial.bench import race as races
from timetrial.bench import report as reports
from timetrial.bench import suite as suites
from timetrial.bench.experiment import run
from timetrial.bench.tune import ledger, settings, study, trial
from timetrial.bench.tune.settings import load_plan
from timetrial.bench.tune.space import configured
from timetrial.bench.workshop import Workshop
from timetrial.framework.callbacks import StepInfo
from timetrial.framework.entries import WorkloadEntry
from timetrial.framework.errors import InterruptedAgain, UserError
from timetrial.framework.records import RunRecord
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.store.opening import Store, open_store
from timetrial.workloads import WORKLOADS

BASE = ["workload=tiny", "optimizer=adam"]

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = WorkloadEntry("tiny", tiny_cli.TinySettings, tiny_cli.make_tiny)
    monkeypatch.setitem(WORKLOADS, "tiny", entry)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow store for all tests: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def words(tmp_path: Path, mlflow_uri: str) -> list[str]:
    return [
        *BASE,
        f"tracking.root={tmp_path}",
        f"tracking.uri={mlflow_uri}",
        f"tracking.experiment={tmp_path.name}",
    ]


def store_of(words: list[str]) -> Store:
    plan = load_plan(words)
    return open_store(plan.config.tracking.uri, root=plan.root)


def runs(words: list[str]) -> list[RunRecord]:
    return load_runs(store_of(words), load_plan(words).config.tracking.experiment)


def stored(words: list[str]) -> optuna.Study:
    plan = load_plan(words)
    return optuna.load_study(study_name=plan.name, storage=plan.storage)


def summary_run(words: list[str]):
    store, plan = store_of(words), load_plan(words)
    experiment = store.client.get_experiment_by_name(plan.config.tracking.experiment)
    filter_string = f"tags.{schema.STUDY_SUMMARY} = '{plan.name}'"
    (found,) = store.client.search_runs([experiment.experiment_id], filter_string)
    return store.client, found


def test_trials_are_ordinary_runs_and_the_summary_has_the_rest(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = [*words, "study.trials=6"]
    style = dict(matplotlib.rcParams)
    assert study.tune(words, export=tmp_path / "best.yaml") == 0
    assert dict(matplotlib.rcParams) == style
    trials = stored(words).trials
    assert [t.state.name for t in trials] == ["COMPLETE"] * 6
    recorded = runs(words)
    assert len(recorded) == 6
    for record in recorded:
        t = trials[int(record.tags[schema.TRIAL])]
        assert (record.status, record.reason) == ("FINISHED", "BUDGET")
        assert record.tags[schema.STUDY] == "tiny-adam-sobol-0"
        assert record.tags[schema.POINT] == str(t.user_attrs["point"])
        assert "mlflow.parentRunId" not in record.tags
        assert float(record.config["optimizer.learning_rate"]) == t.params["learning_rate"]
        assert float(record.config["optimizer.b1"]) == 1 - t.params["one_minus_b1"]
        assert min(e.metrics["validation/loss"] for e in record.evaluations) == t.value
    client, found = summary_run(words)
    names = {f.path for f in client.list_artifacts(found.info.run_id)}
    assert {"best.yaml", "space.json", "study.json", "trials.csv", "plots"} <= names
    plots = {Path(f.path).stem for f in client.list_artifacts(found.info.run_id, "plots")}
    assert plots == {"history", "slice", "parallel_coordinate", "importance"}
    assert found.info.status == "FINISHED"
    best = min(trials, key=lambda t: t.value)
    assert found.data.metrics["best/objective"] == best.value
    assert found.data.tags["best_trial"] == str(best.number)
    assert f"trial {best.number}:" in capsys.readouterr().out
    for made in (tmp_path / "checkpoints").glob("*/*"):  # the final one of each trial
        assert len(list(made.glob("*/SHA256SUMS"))) == 1

    exported = suites.load_run([f"preset={tmp_path}/best.yaml", f"tracking.root={tmp_path}"])
    assert (
        exported.optimizer.settings
        == configured(load_plan(words).config, best.params).optimizer.settings
    )
    result = run(exported, store_of(words), Workshop())
    assert min(e.metrics["validation/loss"] for e in result.evaluations) == best.value
    assert str(tmp_path) not in (tmp_path / "best.yaml").read_text()


def test_the_number_of_trials_is_that_of_all_commands_together(words: list[str]):
    for trials, expected in ((2, 2), (2, 2), (4, 4), (3, 4)):
        assert study.tune([*words, f"study.trials={trials}"]) == 0
        assert len(stored(words).trials) == expected
    listed = load_plan([*words, "study.trials=4"]).points
    assert [t.params for t in stored(words).trials] == listed
    summary_run(words)  # one summary, not one per command
    assert len(runs(words)) == 4


def values_of(words: list[str]) -> list[float]:
    return [t.value for t in stored(words).trials]


def test_tpe_repeats_exactly_and_goes_on_as_if_it_had_not_stopped(
    words: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(settings.TPE, "n_startup_trials", 2)
    words = [*words, "study.search=tpe"]
    assert study.tune([*words, "study.trials=5", "study.name=one"]) == 0
    for trials in (3, 5):
        assert study.tune([*words, f"study.trials={trials}", "study.name=two"]) == 0
    one, two = (
        [t.params for t in stored([*words, f"study.name={n}"]).trials] for n in ("one", "two")
    )
    assert one == two
    assert len({tuple(p.values()) for p in one}) == 5


def test_fixed_points_are_made_as_listed(words: list[str], tmp_path: Path):
    points = [{"learning_rate": 0.01, "b1": 0.5}, {"learning_rate": 0.5, "b1": 0.5}]
    (tmp_path / "points.json").write_text(json.dumps(points))
    words = [*words, f"study.points={tmp_path}/points.json"]
    assert study.tune(words) == 0
    assert [t.params for t in stored(words).trials] == points
    (tmp_path / "points.json").write_text(json.dumps(points[::-1]))
    with pytest.raises(UserError, match="cannot be continued: points"):
        study.tune(words)


def test_a_setting_that_is_given_is_not_tuned(words: list[str]):
    plan = load_plan([*words, "optimizer.b1=0.7", "optimizer.weight_decay=0"])
    assert set(plan.space) == {"learning_rate", "b2", "warmup_fraction"}
    assert plan.config.optimizer.settings.b1 == 0.7


def test_settings_of_the_workload_are_tuned_only_when_asked(words: list[str]):
    assert not [key for key in load_plan(words).space if key.startswith("workload")]
    plan = load_plan([*words, "study.regularisation=true"])
    assert [key for key in plan.space if key.startswith("workload")] == ["workload.dropout_rate"]
    config = configured(plan.config, {"workload.dropout_rate": 0.1, "one_minus_b1": 0.25})
    assert config.workload.settings.dropout_rate == 0.1
    assert config.optimizer.settings.b1 == 0.75


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_registered_optimizer_has_a_space_whose_values_it_takes(name: str):
    plan = load_plan(["workload=tiny", f"optimizer={name}", "study.trials=8"])
    assert len(plan.points) == 8
    made = [configured(plan.config, point).optimizer.settings for point in plan.points]
    assert len(set(made)) == 8


def test_a_diverged_trial_fails_or_counts_as_its_untrained_model(words: list[str], tmp_path: Path):
    points = [{"learning_rate": 1e30}, {"learning_rate": 0.01}]
    (tmp_path / "points.json").write_text(json.dumps(points))
    words = ["workload=tiny", "optimizer=heavy_ball", *words[2:]]
    words = [*words, f"study.points={tmp_path}/points.json"]
    assert study.tune([*words, "study.name=fail"]) == 0
    first, second = stored([*words, "study.name=fail"]).trials
    assert (first.state.name, first.value, first.user_attrs["outcome"]) == (
        "FAIL",
        None,
        "diverged",
    )
    assert second.state.name == "COMPLETE"
    record = next(r for r in runs(words) if r.tags[schema.TRIAL] == "0")
    assert (record.reason, record.tags[schema.DIVERGED]) == ("DIVERGED", "true")
    assert study.tune([*words, "study.name=fail"]) == 0
    assert len(stored([*words, "study.name=fail"]).trials) == 2  # not tried again

    assert study.tune([*words, "study.name=bad", "study.diverged=bad"]) == 0
    first, second = stored([*words, "study.name=bad"]).trials
    untrained = record.evaluations[0].metrics["validation/loss"]
    assert (first.state.name, first.value) == ("COMPLETE", untrained)
    assert first.user_attrs["outcome"] == "diverged"
    assert math.isfinite(first.value)


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_pruned_is_pruned_everywhere(pruner: str, words: list[str], tmp_path: Path):
    rates = [0.1, 0.09, 0.08, 0.07, 0.11, *[1e-6 * k for k in range(1, 5)]]
    points = [{"learning_rate": rate} for rate in rates]
    (tmp_path / "points.json").write_text(json.dumps(points))
    words = [*words, f"study.points={tmp_path}/points.json", "workload.eval_every_steps=3"]
    words = [*words, f"study.pruning={pruner}", f"study.name={pruner}"]
    assert study.tune(words) == 0
    states = {t.number: t.state.name for t in stored(words).trials}
    assert set(states.values()) == {"COMPLETE", "PRUNED"}
    for record in runs(words):
        pruned = states[int(record.tags[schema.TRIAL])] == "PRUNED"
        expected = ("KILLED", "PRUNED") if pruned else ("FINISHED", "BUDGET")
        assert (record.status, record.reason) == expected
        assert (record.step < 30) == pruned
    _, found = summary_run(words)
    assert found.data.metrics["trials/pruned"] == list(states.values()).count("PRUNED")


def test_time_to_target_is_what_was_used_and_twice_the_budget_without(
    words: list[str], tmp_path: Path
):
    points = [{"learning_rate": 0.1}, {"learning_rate": 1e-6}]
    (tmp_path / "points.json").write_text(json.dumps(points))
    words = [*words, f"study.points={tmp_path}/points.json", "study.objective=time_to_target"]
    words = [*words, "stop.target=1.0"]
    assert study.tune(words) == 0
    reached, missed = stored(words).trials
    record = next(r for r in runs(words) if r.reason == "TARGET")
    assert reached.value == record.step < 30
    assert missed.value == 60.0


def test_a_run_that_raises_fails_its_trial_and_is_tried_again_by_the_next_command(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = [*words, "study.trials=3"]

    def broken(config, *arguments, **options):
        if options["tags"][schema.POINT] == "1":
            raise RuntimeError("out of memory")
        return run(config, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(trial, "run", broken)
        assert study.tune(words) == 1
    assert "trial 1: error: RuntimeError: out of memory" in capsys.readouterr().err
    assert [t.state.name for t in stored(words).trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.tune(words) == 0
    last = stored(words).trials[-1]
    assert (last.number, last.user_attrs["point"], last.state.name) == (3, 1, "COMPLETE")
    assert last.params == stored(words).trials[1].params


def test_an_interrupted_trial_goes_on_from_its_checkpoint(
    words: list[str], monkeypatch: pytest.MonkeyPatch
):
    words = [*words, "study.trials=2", "tracking.checkpoint_minutes=1e-9"]
    batches = TinyWorkload.train_batch

    def interrupted(self, seed: int, step: int):
        if step == 17:
            raise InterruptedAgain(2)  # a second Ctrl-C
        return batches(self, seed, step)

    with monkeypatch.context() as patch:
        patch.setattr(TinyWorkload, "train_batch", interrupted)
        with pytest.raises(InterruptedAgain):
            study.tune(words)
    assert [t.state.name for t in stored(words).trials] == ["FAIL", "WAITING"]
    assert study.tune(words) == 0
    again = [*words, "study.name=undisturbed"]
    assert study.tune(again) == 0
    complete = [t for t in stored(words).trials if t.state.name == "COMPLETE"]
    complete.sort(key=lambda t: t.user_attrs["point"])
    assert [t.value for t in complete] == values_of(again)
    mine = [r for r in runs(words) if r.tags[schema.STUDY] == "tiny-adam-sobol-0"]
    assert [r.status for r in mine] == ["FINISHED", "FINISHED"]
    (resumed_at,) = [int(r.tags[schema.RESUMED_AT]) for r in mine if schema.RESUMED_AT in r.tags]
    assert 15 <= resumed_at <= 17
    whole = [r for r in runs(words) if r.tags[schema.STUDY] == "undisturbed"]
    resumed = next(r for r in mine if schema.RESUMED_AT in r.tags)
    same = next(r for r in whole if r.tags[schema.POINT] == resumed.tags[schema.POINT])
    assert [(e.step, e.metrics) for e in resumed.evaluations] == [
        (e.step, e.metrics) for e in same.evaluations
    ]
    # The resumed run went on in its own run in MLflow, where no point stands twice.
    assert resumed.tags[schema.TRIAL] == str(complete[0].number)
    client = store_of(words).client
    for key in ("batch/loss", "train/loss", schema.EVAL_SECONDS):
        steps = [point.step for point in client.get_metric_history(resumed.run_id, key)]
        assert len(steps) == len(set(steps)), key


def test_a_silent_worker_elsewhere_is_taken_for_dead(words: list[str]):
    """Its heartbeat is too old, and no process of this host can be asked."""
    import sqlalchemy

    words = [*words, "study.trials=2", "study.heartbeat_seconds=1"]
    plan = load_plan(words)
    _, database, made = study.opened(plan)
    with database.lock():
        ledger.settle(made, database, plan)
        claimed = ledger.claim(made, database, plan)
    storage = database.storage
    elsewhere = {"host": "elsewhere", "pid": 1, "started": "x"}
    storage.set_trial_user_attr(claimed.trial_id, ledger.WORKER, elsewhere)
    with database.lock():
        assert ledger.settle(made, database, plan) == []
    with storage.engine.begin() as connection:
        connection.execute(
            sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00.000000'")
        )
    with database.lock():
        assert ledger.settle(made, database, plan) == [0]
        assert ledger.settle(made, database, plan) == []
    assert study.tune(words) == 0
    states = [t.state.name for t in stored(words).trials]
    assert sorted(states) == ["COMPLETE", "COMPLETE", "FAIL"]


def test_a_point_whose_workers_keep_dying_is_given_up(words: list[str]):
    words = [*words, "study.trials=1"]
    plan = load_plan(words)
    _, database, made = study.opened(plan)
    for _ in range(ledger.MAX_DEATHS):
        ledger.settle(made, database, plan)
        claimed = ledger.claim(made, database, plan)
        made.tell(claimed.trial.number, state=optuna.trial.TrialState.FAIL)
    ledger.settle(made, database, plan)
    assert ledger.claim(made, database, plan) is None
    assert len(made.trials) == ledger.MAX_DEATHS


def test_a_journal_file_works_as_well(words: list[str], tmp_path: Path):
    words = [*words, "study.trials=3", f"study.storage=journal:{tmp_path}/j/study.log"]
    assert study.tune(words) == 0
    assert study.tune(words) == 0
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(f"{tmp_path}/j/study.log")
    )
    found = optuna.load_study(study_name="tiny-adam-sobol-0", storage=storage)
    assert [t.state.name for t in found.trials] == ["COMPLETE"] * 3


CHANGES = {
    "workload.eval_every_steps=6": "workload eval_every_steps: expected 5",
    "budget.steps=31": "budget steps: expected 30",
    "optimizer.eps=1e-7": "optimizer eps",
    "optimizer.weight_decay=0": "weight_decay",
    "study.seed=1": "search_seed: expected 0",
    "study.search=halton": "search: expected sobol",
    "study.objective=final": "objective: expected best",
    "study.pruning=median": "pruning: expected none",
    "seed=1": "run seed: expected 0",
    "study.space={tmp}/space.yaml": "space",
}


def test_a_changed_study_is_refused(words: list[str], tmp_path: Path):
    (tmp_path / "space.yaml").write_text("learning_rate: {low: 0.001, high: 0.1}\n")
    words = [*words, "study.trials=1", "study.name=fixed"]
    assert study.tune(words) == 0
    for change, message in CHANGES.items():
        with pytest.raises(UserError, match="cannot be continued") as refused:
            study.tune([*words, change.replace("{tmp}", str(tmp_path))])
        assert message in str(refused.value)
    with pytest.raises(UserError, match=r"workload name: expected tiny.*got flights_dlrm"):
        study.tune(["workload=flights_dlrm", "budget.steps=30", *words[1:]])
    assert len(stored(words).trials) == 1


BAD = {
    ("study.trials=0",): "study.trials: expected a whole number >= 1, got 0",
    ("study.trails=3",): "did you mean 'study.trials'",
    ("study.search=sobel",): "study.search: expected one of sobol",
    ("study.objective=worst",): "study.objective: expected one of best",
    ("study.objective=time_to_target",): "expected stop.target=VALUE",
    ("study.search=points",): "expected study.points=FILE.json",
    ("study.points={tmp}/nope.json",): "nope.json",
    ("study.points={tmp}/text.json",): "not valid JSON",
    ("study.points={tmp}/uneven.json",): "in point 1",
    ("study.points={tmp}/unknown.json",): "unknown parameter 'learning_rat'; did you mean",
    ("study.points={tmp}/points.json", "study.trials=3"): "expected at most 2",
    ("study.space={tmp}/nope.yaml",): "nope.yaml",
    ("study.space={tmp}/unknown.yaml",): "unknown parameter 'lerning_rate'; did you mean",
    ("study.space={tmp}/upside_down.yaml",): "low < high",
    ("study.space={tmp}/out_of_range.yaml",): "b1: expected a value in [0, 1), got 1.5",
    ("study.space={tmp}/twice.yaml",): "set twice",
    ("study.space={tmp}/shape.yaml",): "expected low and high",
    ("study.space={tmp}/one.yaml",): "at least one parameter with several values",
    ("study.space={tmp}/text.yaml",): "expected a number",
    ("study.storage=mongodb://x",): "study.storage: cannot use mongodb://x",
    ("study.storage=postgresql://u:secret@127.0.0.1:9/x",): "127.0.0.1:9",
    ("study.storage=sqlite:////proc/nowhere/x.db",): "cannot write",
    ("study.storage=sqlite://",): "expected a file",
    ("study.storage=journal://",): "expected a file",
    ("study.storage=nonsense",): "study.storage",
    ("study.name=a/b",): "study.name",
}

FILES = {
    "text.json": "not json",
    "uneven.json": '[{"learning_rate": 0.1}, {"b1": 0.2}]',
    "unknown.json": '[{"learning_rat": 0.1}, {"learning_rat": 0.2}]',
    "points.json": '[{"learning_rate": 0.1}, {"learning_rate": 0.2}]',
    "unknown.yaml": "lerning_rate: {low: 0.1, high: 0.2}",
    "upside_down.yaml": "learning_rate: {low: 0.2, high: 0.1}",
    "out_of_range.yaml": "b1: {low: 0.5, high: 1.5, scale: linear}",
    "twice.yaml": "b1: {low: 0.5, high: 0.9}\none_minus_b1: {low: 0.1, high: 0.2}",
    "shape.yaml": "b1: 0.5",
    "one.yaml": "b1: {choices: [0.5]}",
    "text.yaml": "b1: {choices: [high, low]}",
}


@pytest.mark.parametrize("changes", BAD, ids=lambda changes: " ".join(changes)[-40:])
def test_bad_input_is_refused_before_anything_is_run(
    changes: tuple[str, ...], words: list[str], tmp_path: Path
):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as refused:
        study.tune([*words, *(c.replace("{tmp}", str(tmp_path)) for c in changes)])
    assert BAD[changes] in str(refused.value)
    assert "secret" not in str(refused.value)
    assert not list(tmp_path.glob("journals/*"))


def test_an_export_into_a_missing_directory_is_refused(words: list[str], tmp_path: Path):
    with pytest.raises(UserError, match="--export"):
        study.tune(words, export=tmp_path / "no" / "such" / "file.yaml")


def test_shares_of_the_budget_are_reported_once_each_with_the_last_value_known():
    told: list[tuple[float, int]] = []

    class Trial:
        def report(self, value: float, step: int) -> None:
            told.append((value, step))

        def should_prune(self) -> bool:
            return False

    judge = trial.Hopeless(ledger.Claimed(Trial(), trial_id=0, point=0, reported={}))
    for used, value in ((0.0, 9.0), (0.1, 5.0), (0.1, 5.0), (0.3, math.nan), (0.36, 3.0)):
        judge(StepInfo(0, 0.0, used, 0), value)
    assert told == [(9.0, 1), (5.0, 2), (5.0, 3), (5.0, 4), (5.0, 5), (5.0, 6), (5.0, 7), (3.0, 9)]
    assert np.isfinite([value for value, _ in told]).all()


@pytest.mark.slow
def test_a_suite_races_the_tuned_preset_under_the_label_hpo(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "presets" / "p").mkdir(parents=True)
    (tmp_path / "presets" / "p" / "tiny.yaml").write_text("workload: tiny\nbudget: {steps: 20}\n")
    monkeypatch.setattr(suites, "PRESETS_DIRECTORY", tmp_path / "presets")

    def suite(*optimizers: str) -> suites.Suite:
        return suites.Suite("s", "summary", "p", ("tiny",), optimizers, (0,), hpo="tuned")

    with pytest.raises(ValueError, match=r"hpo: expected a tuned preset.*timetrial tune"):
        suite("hpo")
    assert "hpo" not in suite("all").optimizer_names()

    (tmp_path / "presets" / "tuned").mkdir()
    preset = tmp_path / "presets" / "tuned" / "tiny.yaml"
    assert study.tune([*words, "study.trials=2"], export=preset) == 0
    assert suite("all").optimizer_names()[-1] == "hpo"
    best = ledger_best(words)
    experiment = f"tracking.experiment={tmp_path.name}-race"
    tracking = load_plan([*words[:-1], experiment]).config.tracking
    assert races.race(suite("adam", "hpo"), tracking) == 0
    records = load_runs(store_of(words), tracking.experiment)
    rates = {r.optimizer: float(r.config["optimizer.learning_rate"]) for r in records}
    assert rates == {"adam": 5e-3, "hpo": best["learning_rate"]}
    assert {r.step for r in records} == {20}  # the suite's budget, not the study's
    hpo = next(r for r in records if r.optimizer == "hpo")
    assert (hpo.config["optimizer"], hpo.config["label"]) == ("adam", "hpo")
    assert races.race(suite("adam", "hpo"), tracking) == 0  # nothing is repeated
    assert len(load_runs(store_of(words), tracking.experiment)) == 2

    text = preset.read_text().replace("name: tiny", "name: flights_dlrm")
    preset.write_text(text)
    with pytest.raises(UserError, match="changed since it was written"):
        suites.plan(suite("hpo"), tracking, "tiny")
    preset.write_text(text.partition("\n")[2])  # without its checksum
    with pytest.raises(UserError, match="expected workload tiny"):
        suites.plan(suite("hpo"), tracking, "tiny")


def test_the_report_looks_for_studies_where_they_are_recorded(tmp_path: Path):
    plan = load_plan([*BASE, f"tracking.root={tmp_path}"])
    assert plan.config.tracking.experiment == schema.STUDIES
    told = inspect.signature(reports.report).parameters["studies"].default
    assert told == schema.STUDIES
    assert cli.parser().parse_args(["report"]).studies == schema.STUDIES


def ledger_best(words: list[str]) -> dict[str, float]:
    return min(stored(words).trials, key=lambda t: t.value).params


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["study.search=sobel"], "study.search: expected one of sobol"),
        (["optimizer=adim"], "did you mean 'adam'"),
        (["study.storage=mongodb://x"], "mongodb"),
        (["--workers", "0"], "--workers: expected a whole number >= 1"),
    ],
)
def test_the_command_exits_with_2_and_one_line(
    extra: list[str], message: str, words: list[str], capsys: pytest.CaptureFixture[str]
):
    given = {word.partition("=")[0] for word in extra}
    others = [word for word in words if word.partition("=")[0] not in given]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["tune", *others, *extra])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert line.startswith("timetrial: ")
