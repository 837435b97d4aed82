"""The paper's suites end to end, with tiny models on tiny data in the true formats."""

from __future__ import annotations

from pathlib import Path

import full_size
import pytest
from raw_files import needs_data

from timetrial.bench import obstacles
from timetrial.bench.cli import main
from timetrial.bench.suite import load_suite, plan
from timetrial.framework.config import ConfigError, Tracking
from timetrial.framework.types import Condition, Status
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.store.opening import open_store
from timetrial.workloads import WORKLOADS

WORKLOAD_NAMES = ("criteo1tb", "fastmri", "imagenet_resnet", "ogbg")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name in WORKLOAD_NAMES:
        full_size.prepare(name, root)
    return root


@pytest.fixture
def data(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIMETRIAL_DATA", str(prepared))
    monkeypatch.chdir(tmp_path)
    return prepared


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    code = ended.value.code
    assert isinstance(code, int)
    return code


def race(condition: str, *words: str) -> list:
    suite = f"paper-{condition}-fixture"
    where = [f"tracking.uri=sqlite:///{Path.cwd()}/m.db", "tracking.root=runs"]
    assert command("bench", f"suite={suite}", "--busy-machine", *words, *where) == 0
    store = open_store(where[0].partition("=")[2], root=Path("runs"))
    return load_runs(store, f"timetrial-{suite}")


@pytest.mark.slow
@needs_data
def test_the_step_suite_trains_scores_and_reports_on_the_data_of_its_workloads(data: Path):
    runs = race("step", "optimizers=hpo", "seeds=0")
    assert len(runs) == 4
    assert {run.status for run in runs} == {Status.FINISHED}
    assert {run.workload for run in runs} == set(WORKLOAD_NAMES)
    assert {run.step for run in runs} == {12}
    for run in runs:
        for name in WORKLOADS[run.workload].without_data.data_sets:
            assert run.tags[f"data.{name}.sample"] == "true"
            assert run.tags[f"data.{name}.skipped"] == "0"
    (tuned,) = [r for r in runs if (r.workload, r.optimizer) == ("imagenet_resnet", "hpo")]
    assert tuned.config["workload.label_smoothing"] == "0.2"
    assert tuned.config["optimizer.learning_rate"] == "4.131896390902391"
    assert tuned.config["workload.matmul_precision"] == "tensorfloat32"
    assert list(Path.cwd().rglob("report.html")) or list(Path.cwd().rglob("*.html"))


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("condition", ["step", "time"])
def test_a_whole_suite(condition: str, data: Path):
    runs = race(condition)
    assert len(runs) == 4 * 8 * 3
    smoothed = [r for r in runs if r.config.get("workload.label_smoothing", "0.0") != "0.0"]
    assert {(r.workload, r.optimizer) for r in smoothed} == {("imagenet_resnet", "hpo")}
    assert {run.status for run in runs} == {Status.FINISHED}
    for run in runs:
        if condition == "time" and not run.optimizer.startswith("velo_short"):
            assert run.train_seconds >= 1.0
    if condition == "time":  # the later trials are told what the first one made
        velo = [r for r in runs if r.optimizer.startswith("velo[") and r.workload == "ogbg"]
        told = {run.seed: run.config["budget.expected_steps"] for run in velo}
        assert told[1] == told[2] == str(next(run.step for run in velo if run.seed == 0))


@pytest.mark.parametrize("condition", list(Condition))
def test_the_paper_suites_are_the_papers(condition: Condition):
    suite, tracking = load_suite([f"suite=paper-{condition}"])
    budgets = {}
    for workload in suite.workloads:
        configs = plan(suite, tracking, workload)
        assert len(configs) == 8 * 3
        (budgets[workload],) = {(c.budget.steps, c.budget.seconds) for c in configs}
    assert (
        budgets
        == {
            Condition.STEP: {
                "criteo1tb": (7_000, None),
                "fastmri": (36_000, None),
                "imagenet_resnet": (150_000, None),
                "ogbg": (80_000, None),
            },
            Condition.TIME: {
                "criteo1tb": (None, 11_387.0),
                "fastmri": (None, 10_308.0),
                "imagenet_resnet": (None, 81_783.0),
                "ogbg": (None, 14_859.0),
            },
        }[condition]
    )


def test_a_plan_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path))
    monkeypatch.setattr(obstacles, "is_fetched", lambda name: False)
    monkeypatch.chdir(tmp_path)
    assert command("bench", "suite=paper-time", "--plan") == 1
    printed = capsys.readouterr().out
    assert "96 runs, about 33 days on the paper's GPUs" in printed
    assert "11387 charged seconds" in printed
    for missing in ("data prepare criteo1tb", "data prepare ogbg", "a GPU", "timetrial fetch velo"):
        assert any(missing in line for line in printed.splitlines() if line[:7] == "missing")
    assert command("bench", "suite=paper-step") == 2
    assert "suite paper-step cannot run here: " in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_steps_cannot_come_from_a_preset_with_seconds():
    suite, _ = load_suite(["suite=paper-time", "conditions=step,time"])
    with pytest.raises(ConfigError, match=r"expected budget\.steps for the condition step"):
        plan(suite, Tracking(), "ogbg")
