"""Several commands at once on one store: every run once, nobody waits for a dead owner."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from soak import facts
from soak.races import Soak, outcome
from timetrial.bench.claims import TakenError, claimed
from timetrial.tracking.record import schema


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Soak:
    return Soak(tmp_path_factory.mktemp("shared"))


def wait_for_lock(root: Path) -> Path:
    deadline = time.monotonic() + 120.0
    while time.monotonic() < deadline:
        for lock in root.glob("checkpoints/*/*/lock"):
            if lock.read_text():
                return lock
        time.sleep(0.01)
    raise AssertionError("no run has begun")


@pytest.mark.slow  # within one process: integration/test_resuming.py
def test_two_suites_share_the_work(soak: Soak, tmp_path: Path):
    root = tmp_path / "runs"
    processes = [soak.start("bench", root, step_seconds=0.1) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0], [p.err for p in processes]
    reference, _, told = soak.reference("bench")
    assert [outcome(process, root) for process in processes] == [told, told]
    assert facts.faults(root, reference) == []
    makers = {run.tags[schema.PID] for runs in facts.finished(root).values() for run in runs}
    assert makers == {str(process.pid) for process in processes}


@pytest.mark.slow  # in one process: integration/test_resuming.py
def test_a_second_train_says_who_has_the_run(soak: Soak, tmp_path: Path):
    root = tmp_path / "runs"
    first = soak.start("train", root, step_seconds=0.2)
    wait_for_lock(root)
    second = soak.start("train", root)
    assert second.wait() == 2
    lines = [line for line in second.err.splitlines() if "makes this run already" in line]
    assert len(lines) == 1
    assert f"process {first.pid} on host {os.uname().nodename}, since 20" in lines[0]
    assert first.wait() == 0
    assert soak.start("train", root).wait() == 0  # it is finished
    reference, _, _ = soak.reference("train")
    assert facts.faults(root, reference) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        json.dumps({"host": "h", "pid": "1", "process_start": "0-0", "since": 0}).encode(),
        json.dumps({"host": "h", "pid": str(os.getpid()), "since": 1e400}).encode(),
    ],
    ids=["empty", "torn", "of an earlier boot", "of a reused process id"],
)
def test_a_lock_file_without_an_owner_is_no_obstacle(content: bytes, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").write_bytes(content)
    with claimed(tmp_path / "run", "a run"):
        owner = json.loads((tmp_path / "run" / "lock").read_text())
        assert owner["pid"] == str(os.getpid())
        told = pytest.raises(TakenError, match=f"process {os.getpid()} on host")
        with told, claimed(tmp_path / "run", "a run"):
            raise AssertionError("two owners")
    assert not (tmp_path / "run").exists()
