from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recorded import record

from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.store.opening import open_store, resolve_uri

STARTER = """
import sys
from pathlib import Path
from recorded import record
from timetrial.tracking.store.opening import open_store
record(open_store(root=Path(sys.argv[1])), seed=sys.argv[2])
"""


@pytest.fixture(autouse=True)
def _no_store_of_the_user(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_four_processes_may_start_on_a_store_that_does_not_exist_yet(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", STARTER, tmp_path / "runs", str(seed)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    errors = [starter.communicate(timeout=300)[1] for starter in starters]
    assert [starter.returncode for starter in starters] == [0, 0, 0, 0], errors
    assert errors == ["", "", "", ""]  # and MLflow's own chatter stays out of the terminal
    store = open_store(root=tmp_path / "runs", create=False)
    runs = load_runs(store, "tests")
    assert sorted(run.seed for run in runs) == [0, 1, 2, 3]
    assert {run.status for run in runs} == {"FINISHED"}
    assert all(len(run.evaluations) == 3 for run in runs)
    assert len(store.client.search_experiments(filter_string="name = 'tests'")) == 1


def test_everything_lies_in_the_root_and_is_named_absolutely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    directory = tmp_path / "with spaces, ü & #"
    directory.mkdir()
    monkeypatch.chdir(directory)
    store = open_store(root=Path("runs"))
    assert store.uri == f"sqlite:///{directory}/runs/mlflow.db"
    tracker = record(store)
    monkeypatch.chdir("/")
    artifact = store.client.download_artifacts(tracker.run_id, "config.yaml")
    assert Path(artifact).read_text() == "optimizer:\n  name: adam\n"
    uri = store.client.get_run(tracker.run_id).info.artifact_uri
    assert uri.startswith("file:///")
    assert [p.name for p in tmp_path.iterdir()] == [directory.name]
    assert {p.name for p in directory.iterdir()} == {"runs"}
    assert {"mlflow.db", "artifacts", "journals"} <= {
        p.name for p in (directory / "runs").iterdir()
    }
    with sqlite3.connect(directory / "runs" / "mlflow.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_an_explicit_uri_goes_before_the_environment_and_that_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert resolve_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert resolve_uri(None, tmp_path) == "http://127.0.0.1:5000"
    monkeypatch.chdir(tmp_path)
    assert resolve_uri("sqlite:///here.db", tmp_path) == f"sqlite:///{tmp_path}/here.db"


def silent_server() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_readers_of_a_server_that_does_not_answer_get_one_clear_line_within_seconds(tmp_path: Path):
    open_store(root=tmp_path)  # MLflow is imported from here on
    with silent_server() as closed:
        port = closed.getsockname()[1]
    with silent_server() as server:
        silent_port = server.getsockname()[1]
        for uri, reason in (
            (f"http://127.0.0.1:{port}", "Connection refused"),
            (f"http://127.0.0.1:{silent_port}", "timed out"),
        ):
            started = time.monotonic()
            with pytest.raises(TrackingError) as caught:
                open_store(uri, root=tmp_path, create=False)
            assert time.monotonic() - started < 60  # MLflow's own retries take many minutes
            message = str(caught.value)
            assert "\n" not in message
            assert uri in message
            assert reason in message
            assert "sqlite:///<path>" in message  # what is allowed
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] != "4"  # impatient at first contact only


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("foo://x", "foo://x"),
        ("sqlite:///", r"expected a file"),
        ("sqlite:///:memory:", r"expected a file"),
        ("sqlite:////tmp/100%25/x.db", r"without '%'"),
    ],
)
def test_a_uri_that_cannot_be_opened_is_one_clear_line(tmp_path: Path, uri: str, reason: str):
    with pytest.raises(TrackingError, match=reason) as caught:
        open_store(uri, root=tmp_path)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_database_that_does_not_answer_is_one_line_without_its_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    uri = "postgresql://user:secret@127.0.0.1:1/x"
    with pytest.raises(TrackingError, match=r"user:\*\*\*@") as caught:
        open_store(uri, root=tmp_path, create=False)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value) + caplog.text


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match=r"tracking directory .*file.*Not a directory"):
        open_store(root=tmp_path / "file" / "runs")
    with pytest.raises(TrackingError, match="tracking directory /proc/timetrial"):
        open_store(root=Path("/proc/timetrial"))


def test_a_file_elsewhere_that_is_no_store_is_an_error_and_stays_as_it_is(tmp_path: Path):
    for content, reason in (
        (b"something else entirely " * 1000, "is not a database"),
        (b"", "0 b"),
    ):
        file = tmp_path / "own.db"
        file.write_bytes(content)
        for create in (True, False):
            with pytest.raises(TrackingError, match=rf"own\.db: it is .*{reason}"):
                open_store(f"sqlite:///{file}", root=tmp_path / "runs", create=create)
        assert file.read_bytes() == content
        assert sorted(path.name for path in tmp_path.iterdir()) == ["own.db"]


def test_readers_create_nothing(tmp_path: Path):
    with pytest.raises(TrackingError, match="no runs recorded yet"):
        open_store(root=tmp_path / "runs", create=False)
    assert not (tmp_path / "runs").exists()


def test_unknown_and_deleted_experiments_are_errors(tmp_path: Path):
    store = open_store(root=tmp_path)
    first = store.experiment_id("quick")
    assert store.experiment_id("quick") == first
    with pytest.raises(TrackingError, match=r"expected one of Default, quick.* got 'quik'"):
        store.experiment_id("quik", create=False)
    store.client.delete_experiment(first)
    with pytest.raises(TrackingError, match=r"'quick'.* was deleted; restore it") as caught:
        store.experiment_id("quick")
    command = re.search(r"with: (\S+)=(\S+) mlflow (.*?);", str(caught.value))
    assert command
    subprocess.run(  # as it is printed, from another directory
        [sys.executable, "-m", "mlflow", *command[3].split()],
        env={**os.environ, command[1]: command[2]},
        cwd="/",
        check=True,
        capture_output=True,
    )
    assert store.experiment_id("quick") == first


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_artifacts_of_a_moved_store_stay_inside_it(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    old, new = tmp_path / "runs", tmp_path / "else where" / "runs"
    first = record(open_store(root=old), seed="1")
    new.parent.mkdir()
    if how == "moved":
        old.rename(new)
    else:
        shutil.copytree(old, new)
        before = sorted(old.rglob("*"))
    store = open_store(root=new)
    assert f"artifact paths lead to {(new / 'artifacts').as_uri()}" in caplog.text
    where = store.client.get_run(first.run_id).info.artifact_uri
    assert where == (new / "artifacts" / str(first.run_id) / "artifacts").as_uri()
    assert store.client.download_artifacts(first.run_id, "config.yaml")
    second = record(store, seed="2")
    assert (new / "artifacts" / str(second.run_id)).is_dir()
    assert [run.run_id for run in load_runs(store, "tests")] == [first.run_id, second.run_id]
    if how == "moved":
        assert not old.exists()
    else:
        assert sorted(old.rglob("*")) == before
    caplog.clear()
    open_store(root=new)
    assert caplog.text == ""


def test_a_refused_store_leaves_nothing_behind(tmp_path: Path):
    open_store("http://127.0.0.1:9", root=tmp_path / "runs")  # runs are recorded all the same
    for uri in ("nonsense", "ftp://x", "sqlite:///"):
        with pytest.raises(TrackingError):
            open_store(uri, root=tmp_path / "runs")
    with pytest.raises(TrackingError, match=r"expected sqlite:///.*got 'nonsense'"):
        open_store("nonsense", root=tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert open_store(root=Path("~/here")).root == tmp_path / "here"
    store = open_store("sqlite:///~/there/m.db", root=tmp_path)
    assert store.uri == f"sqlite:///{tmp_path}/there/m.db"
    assert not (tmp_path / "~").exists()
