"""``optimizer=path/to/file.py:make``: trained, tuned, raced, listed, and never mixed up."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tiny_suite

from timetrial.bench import cli
from timetrial.bench.report import report_from
from timetrial.bench.schedule import learning_rates
from timetrial.framework.records import RunRecord
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.store.opening import open_store

CODE = '''\
import optax

def make(lr: float = 0.05, momentum: float = 0.0):
    """Gradient descent of mine."""
    return optax.sgd(lr, momentum)
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a file of the user's, as a new process would see it."""
    tiny_suite.register(monkeypatch, tmp_path, steps=20, eval_every_steps=10)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(OPTIMIZERS, "_loaded", {})
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path


def timetrial(*words: str) -> int:
    OPTIMIZERS._loaded.clear()  # every command is a process of its own
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    return int(stopped.value.code or 0)


def runs(experiment: str = "timetrial") -> list[RunRecord]:
    return load_runs(open_store(root=Path("runs"), create=False), experiment)


TRAIN = ("train", "workload=tiny", "optimizer=./mine.py:make", "budget.steps=20")


def test_a_finished_run_is_not_repeated_unless_the_file_changes(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert timetrial(*TRAIN, "optimizer.lr=0.1") == 0
    assert timetrial(*TRAIN, "optimizer.lr=0.1") == 0
    assert "recorded as finished already" in capsys.readouterr().out
    (first,) = runs()
    digest = first.config["optimizer.file_sha256"]
    assert first.config["optimizer.lr"] == "0.1"
    assert first.optimizer == f"mine.py:make[{digest[:8]}]"
    assert first.tags["optimizer_file"] == "./mine.py"
    assert first.tags["optimizer_file_sha256"] == digest
    (folder / "mine.py").write_text(CODE.replace("sgd(lr", "sgd(lr / 2"))
    assert timetrial(*TRAIN, "optimizer.lr=0.1") == 0
    _, second = runs()
    assert second.optimizer != first.optimizer
    assert second.evaluations[-1].metrics != first.evaluations[-1].metrics


def test_it_is_tuned_in_a_given_space_and_its_preset_knows_the_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "space.yaml").write_text("lr: {low: 0.01, high: 0.2}\n")
    words = ("tune", *TRAIN[1:], "study.trials=2", "study.space=space.yaml")
    assert timetrial(*words, "--export", "best.yaml") == 0
    rates = {float(run.config["optimizer.lr"]) for run in runs("timetrial-tune")}
    assert len(rates) == 2
    assert all(0.01 <= rate <= 0.2 for rate in rates)
    assert timetrial("train", "preset=best.yaml", "--print-config") == 0
    (folder / "mine.py").write_text(CODE + "# edited\n")
    assert timetrial("train", "preset=best.yaml") == 2
    assert "optimizer.file_sha256: expected " in capsys.readouterr().err
    assert timetrial("tune", *TRAIN[1:], "study.trials=2") == 2
    assert "expected study.space=FILE" in capsys.readouterr().err


def test_it_is_raced_and_a_race_after_a_change_has_no_run_of_before(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    race = ("bench", "workloads=[tiny]", "presets=p", "optimizers=[adam,./mine.py:make]")
    assert timetrial(*race, "seeds=[0]") == 0
    old = {run.optimizer for run in runs("timetrial-quick")} - {"adam"}
    (folder / "mine.py").write_text(CODE + "# edited\n")
    assert timetrial(*race, "seeds=[0]") == 0
    assert "1 of 2 runs are recorded" in capsys.readouterr().out
    (name,) = {run.optimizer for run in runs("timetrial-quick")} - {"adam"} - old
    page = Path("runs/reports/quick/report.html").read_text()
    assert name in page
    assert not any(label in page for label in old)


def test_it_is_listed_and_its_errors_are_one_line(capsys: pytest.CaptureFixture[str]):
    assert timetrial("list", "./mine.py:make") == 0
    assert "optimizer ./mine.py:make (./mine.py:make): Gradient descent of mine." in (
        capsys.readouterr().out
    )
    for name, message in {
        "./mine.py:mak": "unknown function 'mak'; did you mean 'make'",
        "./gone.py:make": "cannot read ./gone.py: No such file or directory",
        "./mine.py": "expected ./mine.py:make, with the name of a function",
    }.items():
        assert timetrial("train", "workload=tiny", f"optimizer={name}", "budget.steps=1") == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert message in line
    assert timetrial(*TRAIN, "optimizer.momemtum=1") == 2
    assert "did you mean 'optimizer.momentum'" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_reports_run_no_file_that_a_record_names(folder: Path):
    assert timetrial(*TRAIN) == 0
    records = runs()
    OPTIMIZERS._loaded.clear()
    (folder / "mine.py").write_text("raise AssertionError('the report ran a file')\n")
    assert learning_rates([], records).empty
    assert report_from(["runs/journals"], out=folder / "out") == 0
