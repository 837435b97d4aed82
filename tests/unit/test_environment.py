from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from timetrial.bench.tune import ledger
from timetrial.framework import files, gpus
from timetrial.framework.gpus import Gpu
from timetrial.framework.machine import cores_text, usable_cores
from timetrial.tracking.record import environment, schema
from timetrial.tracking.record.environment import (
    HOST_NAMESPACE,
    environment_tags,
    git_tags,
    host_tags,
    process_is_gone,
    process_start,
    process_tags,
)


def git(where: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "tracking" / "record").mkdir(parents=True)
    (tmp_path / "tracking" / "record" / "environment.py").write_text("a = 1\n")
    (tmp_path / ".gitignore").write_text("/runs/\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "x")
    return tmp_path


def test_commit_of_a_clean_tree(source: Path):
    (source / "runs").mkdir()
    (source / "runs" / "ignored.py").write_text("")
    (source / "notes.txt").write_text("untracked, but never imported")
    head = git(source, "rev-parse", "HEAD").strip()
    assert git_tags(source) == {schema.GIT_COMMIT: head, schema.GIT_DIRTY: "false"}


def test_changed_and_never_added_code_make_it_dirty(source: Path):
    (source / "tracking" / "record" / "environment.py").write_text("a = 2\n")
    assert git_tags(source)[schema.GIT_DIRTY] == "true"
    git(source, "commit", "-q", "-a", "-m", "y")
    assert git_tags(source)[schema.GIT_DIRTY] == "false"
    (source / "new_optimizer.py").write_text("")
    assert git_tags(source)[schema.GIT_DIRTY] == "true"


def test_the_commit_of_another_repository_around_is_not_taken(source: Path):
    installed = source / "runs" / "site-packages"
    (installed / "tracking" / "record").mkdir(parents=True)
    (installed / "tracking" / "record" / "environment.py").write_text("a = 1\n")
    unknown = {schema.GIT_COMMIT: "unknown", schema.GIT_DIRTY: "unknown"}
    assert git_tags(installed) == unknown
    assert git_tags(installed / "missing") == unknown


def test_tags_describe_this_process_and_machine():
    tags = environment_tags()
    assert all(isinstance(value, str) and value for value in tags.values())
    assert int(tags[schema.HOST_CORES]) >= 1
    assert int(tags[schema.DEVICE_COUNT]) >= 1
    assert tags["version.python"].split(".")[:2] == [str(v) for v in sys.version_info[:2]]
    assert {"version.jax", "version.mlflow", "version.timetrial", "version.optax"} <= set(tags)
    assert tags["version.mlflow"] != "unknown"
    assert tags[schema.PID] == str(os.getpid())
    assert tags[schema.CPU_AFFINITY] == cores_text(usable_cores())
    assert schema.GPU_UUID not in tags


def test_tags_name_the_gpus_of_a_process(monkeypatch: pytest.MonkeyPatch):
    found = [Gpu(number, "x", 1, "550.1", dict, f"GPU-{number}") for number in (0, 1)]
    monkeypatch.setattr(gpus, "gpus_of_process", lambda: found)
    assert host_tags()[schema.GPU_UUID] == "GPU-0,GPU-1"
    assert host_tags()[schema.DRIVER] == "550.1"


def dead(**changed: str) -> dict[str, str]:
    """Tags of a process of this host that is dead."""
    return {**host_tags(), **process_tags(), schema.PROCESS_START: "another time", **changed}


def test_processes_of_another_container_of_the_same_name_are_unknown_here():
    assert process_is_gone(dead())
    assert not process_is_gone(dead(pid_namespace="4026532999"))
    assert not process_is_gone({**host_tags(), **process_tags()})
    older = {k: v for k, v in dead().items() if k not in (schema.PID_NAMESPACE, schema.BOOT)}
    assert process_is_gone(older)


def test_workers_of_a_study_and_drafts_of_another_container_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    worker = ledger._worker()
    assert not ledger.is_dead(worker)
    assert ledger.is_dead({**worker, "started": "another time"})
    assert not ledger.is_dead({**worker, "started": "another time", "pid_namespace": "4026532999"})
    old = {"host": worker["host"], "pid": worker["pid"], "started": "another time"}
    assert ledger.is_dead(old)
    assert not ledger.is_dead({})

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    drafts = []
    for namespace in ("4026532998", "4026532999"):
        monkeypatch.setattr(files, "pid_namespace", lambda here=namespace: here)
        drafts.append(files.draft_of(tmp_path / "x"))
        drafts[-1] = drafts[-1].with_name(
            drafts[-1].name.replace(f".{os.getpid()}.", f".{ended.pid}.")
        )
        drafts[-1].touch()
    files.remove_drafts(tmp_path)  # as in the second container
    assert list(tmp_path.iterdir()) == [drafts[0]]


@pytest.mark.parametrize("inside", [False, True], ids=["host", "container"])
def test_a_host_that_was_restarted_has_lost_its_processes(
    inside: bool, monkeypatch: pytest.MonkeyPatch
):
    """A container's name may be that of one on another machine, which has another boot."""
    namespace = "4026532999" if inside else HOST_NAMESPACE
    monkeypatch.setattr(environment, "pid_namespace", lambda: namespace)
    alive = {**host_tags(), **process_tags()}
    assert not process_is_gone(alive)
    assert process_is_gone({**alive, schema.BOOT: "an earlier one"}) is not inside


def test_process_start_tells_a_process_from_a_dead_one():
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process_start(sleeper.pid)
    assert started is not None
    assert started == process_start(sleeper.pid)
    assert started != process_start(os.getpid())
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert process_start(sleeper.pid) is None  # dead, though its parent has not looked yet
    assert sleeper.stdin is not None
    sleeper.stdin.close()
    sleeper.wait()
    assert process_start(sleeper.pid) is None
