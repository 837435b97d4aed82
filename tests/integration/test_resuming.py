"""A run with a directory: continued, set aside, full disks, one owner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_suite
from tiny_cli import TinySettings, make_tiny

from timetrial.bench.claims import AlreadyFinishedError, TakenError, claimed
from timetrial.bench.experiment import run
from timetrial.bench.race import train
from timetrial.bench.resuming import resumable_in, run_directory
from timetrial.bench.suite import load_run
from timetrial.bench.workshop import Workshop
from timetrial.framework.callbacks import Callback, StepInfo
from timetrial.framework.config import RunConfig
from timetrial.framework.entries import WorkloadEntry
from timetrial.framework.errors import InterruptedAgain
from timetrial.framework.records import RunRecord, RunResult
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.record.journal import read_journal
from timetrial.tracking.store.opening import Store, open_store
from timetrial.workloads import WORKLOADS


class DieAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, info: StepInfo) -> None:
        if info.step == self.step:
            raise InterruptedAgain(15)  # a second signal, in the middle of an update


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORKLOADS, "tiny", WorkloadEntry("tiny", TinySettings, make_tiny))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def config_of(root: Path, *words: str) -> RunConfig:
    given = ["workload=tiny", "optimizer=adam", "budget.steps=30", f"tracking.root={root}"]
    if not any("checkpoint_minutes" in word for word in words):
        given.append("tracking.checkpoint_minutes=1e-9")
    return load_run([*given, *words])


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with an empty store: making one takes seconds."""
    root = tmp_path_factory.mktemp("empty")
    open_store(root=root)
    return root


@pytest.fixture
def root(empty: Path, tmp_path: Path) -> Path:
    return shutil.copytree(empty, tmp_path / "runs")


def make(
    root: Path, *words: str, callbacks: Sequence[Callback] = (), again: bool = False
) -> tuple[RunResult, Store, Path]:
    config = config_of(root, *words)
    store, directory = open_store(root=root), run_directory(config)
    made = run(config, store, Workshop(), callbacks=callbacks, directory=directory, again=again)
    return made, store, directory


def recorded(store: Store) -> list[RunRecord]:
    return load_runs(store, "timetrial")


def params(result: RunResult) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(result.state.params)]


def same(one: RunResult, other: RunResult) -> None:
    assert (one.step, one.reason) == (other.step, other.reason)
    assert [(e.step, e.metrics) for e in one.evaluations] == [
        (e.step, e.metrics) for e in other.evaluations
    ]
    for a, b in zip(params(one), params(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_that_died_goes_on_as_one_run(root: Path, capsys: pytest.CaptureFixture[str]):
    whole, _, _ = make(root, "tracking.experiment=whole")
    with pytest.raises(InterruptedAgain):
        make(root, callbacks=[DieAt(17)])
    resumed, store, directory = make(root)
    same(whole, resumed)
    (record,) = recorded(store)
    assert record.status == "FINISHED"
    assert 14 <= int(record.tags[schema.RESUMED_AT]) <= 17
    history = store.client.get_metric_history(record.run_id, "batch/loss")
    assert [point.step for point in history] == list(range(1, 31))
    numbers = [path for path in directory.iterdir() if path.name.isdecimal()]
    assert len(numbers) == 1
    # The same command says what is there; --again makes another run.
    assert train(config_of(root)) == 0
    assert "is recorded as finished already, 30 steps" in capsys.readouterr().out
    assert len(recorded(store)) == 1
    assert train(config_of(root), again=True) == 0
    assert [r.status for r in recorded(store)] == ["FINISHED", "FINISHED"]


def test_a_run_that_is_over_is_returned_not_made(root: Path):
    made, store, _ = make(root)
    before = (store.journals / os.listdir(store.journals)[0]).read_bytes()

    class Never(Callback):
        def on_fit_start(self, info: StepInfo) -> None:
            raise AssertionError("it trains")

    again, _, directory = make(root, callbacks=[Never()])
    same(made, again)
    assert (store.journals / os.listdir(store.journals)[0]).read_bytes() == before
    for path in directory.iterdir():
        if path.name.isdecimal():
            shutil.rmtree(path)
    with pytest.raises(AlreadyFinishedError, match="tiny adam seed 0 is recorded as finished"):
        make(root)


def test_a_run_without_a_checkpoint_starts_again_in_its_journal(root: Path):
    words = ["tracking.checkpoint_minutes=1000"]
    with pytest.raises(InterruptedAgain):
        make(root, *words, callbacks=[DieAt(7)])
    resumed, store, _ = make(root, *words)
    (record,) = recorded(store)
    assert (record.status, record.tags[schema.RESUMED_AT]) == ("FINISHED", "0")
    assert [e.step for e in record.evaluations] == [e.step for e in resumed.evaluations]
    (journal,) = store.journals.glob("*.jsonl")
    steps = [row.step for row in read_journal(journal).rows if "batch/loss" in row.metrics]
    assert steps == list(range(1, 31))


def test_a_lost_journal_and_a_damaged_checkpoint_are_named(
    root: Path, caplog: pytest.LogCaptureFixture
):
    whole, _, _ = make(root, "tracking.experiment=whole")
    with pytest.raises(InterruptedAgain):
        make(root, callbacks=[DieAt(17)])
    directory = run_directory(config_of(root))
    newest = max(int(path.name) for path in directory.iterdir() if path.name.isdecimal())
    with (directory / str(newest) / "packed").open("r+b") as file:
        file.seek(9)
        file.write(b"?")
    with pytest.raises(InterruptedAgain):
        make(root, callbacks=[DieAt(20)])
    assert f"{newest} is damaged (other checksum: packed); it is set aside" in caplog.text
    (journal,) = [p for p in (root / "journals").glob("*.jsonl") if _experiment(p) != "whole"]
    journal.unlink()
    resumed, _, _ = make(root)
    assert "the run starts anew" in caplog.text
    same(whole, resumed)


def _experiment(journal: Path) -> str:
    return str(json.loads(journal.read_text().splitlines()[0])["experiment"])


def test_a_run_in_progress_belongs_to_one_process(root: Path):
    directory = run_directory(config_of(root))
    with claimed(directory, "it"), pytest.raises(TakenError) as caught:
        make(root)
    text = str(caught.value)
    assert f"process {os.getpid()} on host {os.uname().nodename}, since " in text
    make(root)  # it is free now


def test_a_lock_that_nobody_holds_is_no_obstacle(root: Path):
    directory = run_directory(config_of(root))
    directory.mkdir(parents=True)
    owner = {"host": os.uname().nodename, "pid": str(os.getpid()), "process_start": "x-1"}
    (directory / "lock").write_text(json.dumps({**owner, "since": 1.0}))
    made, _, _ = make(root)
    assert made.step == 30
    assert not (directory / "lock").exists()


@pytest.mark.parametrize("place", ["../elsewhere", "/", "", "checkpoints/../../elsewhere"])
def test_checkpoints_outside_the_root_are_never_looked_at(place: str, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "1").mkdir(parents=True)
    (elsewhere / "1" / "SHA256SUMS").write_text("")
    (elsewhere / "1" / "run.json").write_text(json.dumps({"journal": "a.jsonl", "offset": 7}))
    (elsewhere / "journal").write_text("a.jsonl")
    journal = tmp_path / "runs" / "journals" / "a.jsonl"
    assert resumable_in(tmp_path / "runs")(journal, {schema.CHECKPOINTS: place}) is None


FULL = """
import logging, subprocess, sys
from tiny_cli import register
from timetrial.bench.cli import main

class Room(logging.Filter):
    def filter(self, record):
        command = ["mount", "-o", "remount,size=64m", sys.argv[1]]
        subprocess.run(command, check=True)
        return True

logging.getLogger("timetrial.framework.files").addFilter(Room())
register()
main(["train", *sys.argv[2:]])
"""


def test_a_full_disk_under_the_checkpoints_pauses_the_run(root: Path):
    disk = root / "checkpoints"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=1m small {disk} && exec "$@"'
    unshare = ["unshare", "-rm", "sh", "-c", mount, "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs a private mount of a small file system")
    words = ["workload=tiny", "optimizer=adam", "budget.steps=30", f"tracking.root={root}"]
    done = subprocess.run(  # 1 MiB of disk; a checkpoint asks for 4 MiB of room
        [*unshare, sys.executable, "-c", FULL, str(disk), *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    waiting = [line for line in done.stderr.splitlines() if "waiting for room" in line]
    assert len(waiting) == 1
    assert str(disk) in waiting[0]
    assert [r.status for r in recorded(open_store(root=root))] == ["FINISHED"]


def test_a_suite_makes_no_run_of_another_process(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """It waits; once that process has finished the run, it is not made again."""
    from timetrial.bench import race as races
    from timetrial.bench import suite as suites
    from timetrial.bench.suite import Suite
    from timetrial.framework.config import Tracking

    tiny_suite.register(monkeypatch, tmp_path, steps=30, eval_every_steps=10)
    monkeypatch.setattr(races, "report", lambda *arguments, **options: 0)
    suite = Suite("s", "summary", "p", ("tiny",), ("adam",), (0, 1), ("step",))
    tracking = Tracking(None, "timetrial", str(root))
    first, second = suites.plan(suite, tracking, "tiny")
    pauses: list[float] = []
    owner = claimed(run_directory(first), "it")
    owner.__enter__()

    def other_process(seconds: float) -> None:
        pauses.append(seconds)
        owner.__exit__(None, None, None)
        run(first, open_store(root=root), Workshop(), directory=run_directory(first))

    monkeypatch.setattr(races, "time", types.SimpleNamespace(sleep=other_process))
    assert races.race(suite, tracking) == 0
    assert len(pauses) == 1
    runs = recorded(open_store(root=root))
    assert sorted((r.seed, str(r.status)) for r in runs) == [(0, "FINISHED"), (1, "FINISHED")]
    assert runs[0].seed == second.seed, "the free one was made first"
