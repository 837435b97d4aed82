"""Local stores that are damaged, lost, locked, full or read-only: journals make up for it."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded import ROWS, Recording, identity, of_version_0_2, points, record

from timetrial.framework.types import Status
from timetrial.tracking.read.runs import finished_configs, load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import host_tags, process_tags
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.journal import End, Journal, read_journal
from timetrial.tracking.record.tracker import start_run
from timetrial.tracking.store import delivery, sqlite_file
from timetrial.tracking.store.delivery import Delivery, deliver_files, deliver_unsent
from timetrial.tracking.store.listing import check_experiment
from timetrial.tracking.store.mirror import Mirror
from timetrial.tracking.store.opening import Store, open_store
from timetrial.tracking.store.recording import resume_recording, start_recording

SLOW = pytest.mark.slow  # makes a store, or two


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with an empty store, to be copied: making one takes a second."""
    root = tmp_path_factory.mktemp("made") / "runs"
    open_store(root=root)
    return root


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Store:
    shutil.copytree(made, tmp_path / "runs")
    return open_store(root=tmp_path / "runs")


def again(store: Store) -> Store:
    """The store as the next command opens it."""
    return open_store(store.uri, root=store.root)


def database(store: Store) -> Path:
    return store.root / "mlflow.db"


def shape(store: Store, run_id: str | None) -> list[tuple[str, float, int]]:
    return sorted((key, value, step) for key, value, step, _ in points(store, run_id))


def active(store: Store, experiment: str = "tests") -> list[Any]:
    return list(store.client.search_runs([store.experiment_id(experiment, create=False)]))


def assert_whole(store: Store, runs: int = 1, experiment: str = "tests") -> None:
    """Every run is there once, with all points and artifacts."""
    found = active(store, experiment)
    assert len(found) == runs
    assert {run.info.status for run in found} == {"FINISHED"}
    for run in found:
        assert len(shape(store, run.info.run_id)) == 3 + 3 + 4 + 5 + 3
        names = {each.path for each in store.client.list_artifacts(run.info.run_id)}
        assert names == {"config.yaml", "evaluations.json"}


def empty(file: Path) -> None:
    file.write_bytes(b"")


def foreign(file: Path) -> None:
    file.write_bytes(b"something else entirely " * 1000)


def holed(file: Path) -> None:
    """Zeros from the second page on; the header is intact."""
    content = file.read_bytes()
    file.write_bytes(content[:4096] + bytes(len(content) - 4096))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def scratched(file: Path) -> None:
    """One page in the middle is overwritten."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 8192 * 4096
    content[middle : middle + 4096] = os.urandom(4096)
    file.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [empty, *(pytest.param(f, marks=SLOW) for f in (scratched, foreign, holed, cut))],
)
def test_a_damaged_store_is_set_aside_and_made_again_from_the_journals(
    spoil: Callable[[Path], None], store: Store, caplog: pytest.LogCaptureFixture
):
    trackers = [record(store, seed=str(seed), config_hash=str(seed)) for seed in range(2)]
    with contextlib.closing(sqlite3.connect(database(store))) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spoil(database(store))
    spoilt = database(store).read_bytes()
    with pytest.raises(TrackingError, match=r"mlflow\.db: it is (empty|damaged).*timetrial sync"):
        open_store(root=store.root, create=False)
    assert database(store).read_bytes() == spoilt  # readers change nothing
    with caplog.at_level(logging.WARNING):
        fresh = again(store)
    (aside,) = store.root.glob("mlflow.db.damaged-????????-??????")
    assert aside.read_bytes() == spoilt
    assert str(database(store)) in caplog.text
    assert str(aside) in caplog.text
    assert finished_configs(fresh, "tests") == {"0", "1"}
    assert len(deliver_unsent(fresh).sent) == 2
    assert_whole(fresh, 2)
    assert deliver_unsent(again(store)) == Delivery()
    record(fresh, seed="2")
    assert_whole(fresh, 3)
    assert all(len(read_journal(tracker.path).sent) == 1 for tracker in trackers)


def test_a_store_of_another_mlflow_version_is_not_damaged(made: Path, tmp_path: Path):
    root = tmp_path / "other"
    shutil.copytree(made, root)
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
    for create in (True, False):
        with pytest.raises(TrackingError, match="another version of MLflow"):
            open_store(root=root, create=create)
    assert not list(root.glob("*damaged*"))


def lose(store: Store) -> None:
    for file in sqlite_file.files_of(database(store)):
        file.unlink(missing_ok=True)


def forget(store: Store) -> None:
    """The experiment was deleted for good, as by ``mlflow gc``."""
    with contextlib.closing(sqlite3.connect(database(store))) as connection, connection:
        tables = ["metrics", "latest_metrics", "params", "tags", "input_tags", "inputs", "runs"]
        for table in (*tables, "experiment_tags"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("DELETE FROM experiments WHERE name != 'Default'")


@pytest.mark.parametrize("gone", [forget, pytest.param(lose, marks=SLOW)])
def test_sent_counts_only_in_the_store_of_today(gone: Callable[[Store], None], store: Store):
    record(store, seed="1")
    record(store, seed="2")
    gone(store)
    fresh = again(store)
    record(fresh, seed="3")  # makes the experiment again
    assert len(deliver_unsent(fresh).sent) == 2
    assert_whole(fresh, 3)
    assert deliver_unsent(fresh) == Delivery()


def test_an_older_copy_of_a_store_gets_the_runs_that_it_lacks(store: Store, tmp_path: Path):
    record(store, seed="1")
    running = Recording(store, identity(seed="2"), flush_seconds=0)
    running.log(ROWS[:2])
    with contextlib.closing(sqlite3.connect(database(store))) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(database(store), tmp_path / "backup.db")
    running.log(ROWS[2:])
    running.finish("FINISHED", {}, {})
    for seed in ("3", "4"):
        record(store, seed=seed)
    assert deliver_unsent(store) == Delivery()
    lose(store)
    shutil.copy(tmp_path / "backup.db", database(store))
    fresh = again(store)
    assert len(active(fresh)) == 2
    assert len(deliver_unsent(fresh).sent) == 3
    assert_whole(fresh, 4)
    assert deliver_unsent(fresh) == Delivery()


@pytest.mark.slow
def test_a_store_that_is_lost_in_the_middle_of_a_run_is_made_again(store: Store):
    first = record(store, seed="1")
    tracker = Recording(store, identity(), flush_seconds=0)
    tracker.log(ROWS[:3])
    lose(store)
    tracker.log(ROWS[3:])
    tracker.finish("FINISHED", {}, {})
    deliver_unsent(again(store))
    assert_whole(again(store), 2)
    assert first.path.exists()


def test_journals_of_earlier_versions_count_as_sent_if_they_started_in_this_experiment(
    store: Store,
):
    tracker = record(store)
    lines = of_version_0_2(tracker.path.read_bytes()).decode().splitlines()
    old = lines[-1].partition(', "experiment"')[0] + "}\n"
    tracker.path.write_text("\n".join([*lines[:-1], old]))
    assert deliver_unsent(store).sent == []
    forget(store)
    store.experiment_id("tests")
    assert len(deliver_unsent(store).sent) == 1
    assert_whole(store)


def test_a_deleted_experiment_is_named_and_gets_its_runs_once_it_is_restored(store: Store):
    sent = record(store, seed="1", config_hash="a")
    waiting = start_run(store.journals, identity(seed="2", config_hash="b"))
    waiting.log(ROWS)
    waiting.finish(Status.FINISHED, {}, {})
    experiment_id = store.experiment_id("tests")
    store.client.delete_experiment(experiment_id)
    outcome = deliver_unsent(store)
    assert list(outcome.left) == [waiting.path]
    assert "was deleted; restore it" in outcome.left[waiting.path]
    with pytest.raises(TrackingError, match="was deleted"):
        check_experiment(store, "tests")
    store.client.restore_experiment(experiment_id)
    assert len(deliver_unsent(again(store)).sent) == 1
    assert_whole(store, 2)
    assert sent.run_id in {run.info.run_id for run in active(store)}


@contextlib.contextmanager
def locked(store: Store) -> Iterator[None]:
    """Another process writes to the database and does not end."""
    with contextlib.closing(sqlite3.connect(database(store), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextlib.contextmanager
def full(store: Store) -> Iterator[None]:
    """No file may grow above 8 kB, as on a full disk; journals here are smaller."""
    with contextlib.closing(sqlite3.connect(database(store))) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("trouble", [locked, full])
def test_a_store_that_takes_no_writes_stops_no_run(
    trouble: Callable[[Store], contextlib.AbstractContextManager[None]],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(sqlite_file, "LOCKED_SECONDS", 0.2)
    tracker = Recording(store, identity(), flush_seconds=0)
    tracker.log(ROWS[:2])
    with trouble(store), caplog.at_level(logging.WARNING):
        for row in ROWS[2:]:
            tracker.log([row])
        tracker.finish("FINISHED", {}, {})
        second = again(store)  # the next command starts all the same
        record(second, seed="2")
        assert len(load_runs(second, "tests")) == 2
        assert deliver_unsent(second).sent == []
    assert len(caplog.records) == 2  # one per command
    reason = "database is locked" if trouble is locked else "disk"
    assert all(reason in each.getMessage() for each in caplog.records)
    outcome = deliver_unsent(again(store))
    assert len(outcome.sent) == 2
    assert_whole(again(store), 2)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory that can be made read-only, for root too."""
    place = tmp_path / "database"
    place.mkdir()
    as_root = os.geteuid() == 0
    if as_root and subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=False).returncode:
        pytest.skip("cannot make a directory read-only for root here")
    yield place
    if as_root:
        subprocess.run(["umount", "-l", place], check=True)


def set_writable(directory: Path, writable: bool) -> None:
    if os.geteuid() == 0:
        mode = "rw" if writable else "ro"
        subprocess.run(["mount", "-o", f"remount,{mode}", directory], check=True)
    else:
        (directory / "m.db").chmod(0o644 if writable else 0o444)
        directory.chmod(0o755 if writable else 0o555)


def test_a_read_only_database_gets_its_runs_when_it_takes_writes_again(
    directory: Path, made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    shutil.copy(made / "mlflow.db", directory / "m.db")
    set_writable(directory, False)
    uri = f"sqlite:///{directory}/m.db"
    with caplog.at_level(logging.WARNING):
        store = open_store(uri, root=tmp_path / "runs")
        for seed in range(2):
            record(store, seed=str(seed))
    assert len(caplog.records) == 1
    set_writable(directory, True)
    store = open_store(uri, root=tmp_path / "runs")
    assert len(deliver_unsent(store).sent) == 2
    assert_whole(store, 2)


@pytest.mark.slow
def test_a_store_that_cannot_be_made_at_first_is_made_when_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    place = tmp_path / "place"
    place.write_text("no directory")
    uri = f"sqlite:///{place}/m.db"
    store = open_store(uri, root=tmp_path / "runs")
    assert "File exists" in caplog.text
    record(store, seed="1")
    assert place.read_text() == "no directory"
    place.unlink()
    record(store, seed="2")
    assert len(deliver_unsent(store).sent) == 1
    assert_whole(store, 2)


def dead(**tags: str) -> Any:
    """The header of a run of a process that is gone."""
    reused = {**host_tags(), **process_tags(), schema.PROCESS_START: "another time"}
    return identity(**{**reused, **tags})


@pytest.mark.parametrize("by_name", [False, True])
def test_rows_of_a_killed_process_arrive_and_nothing_stays_running(by_name: bool, store: Store):
    recording = start_recording(store, dead(), flush_seconds=3600)  # MLflow has the run only
    recording.log(ROWS)
    recording.mirror.release()
    unnamed = start_run(store.journals, dead(seed="2"))  # killed before its first request
    lost = start_recording(store, dead(seed="3"))
    lost.path.unlink()
    if by_name:
        assert len(deliver_files(store, [recording.path, unnamed.path]).sent) == 2
    outcome = deliver_unsent(store)
    assert len(outcome.sent) == (0 if by_name else 2)
    assert outcome.closed == [lost.mirror.run_id]
    assert {run.info.status for run in active(store)} == {"KILLED"}
    assert len(active(store)) == 3
    assert len(shape(store, recording.mirror.run_id)) == 3 + 3 + 4 + 5 + 3
    assert deliver_unsent(store) == Delivery()


def test_journals_of_living_processes_are_left_alone(store: Store):
    here = {**host_tags(), **process_tags()}
    recording = start_recording(store, identity(**here))
    elsewhere = {schema.HOST: "another-host", schema.PID: "1", schema.PROCESS_START: "x"}
    remote = start_run(store.journals, identity(seed="2", **elsewhere))
    before = [path.read_bytes() for path in (recording.path, remote.path)]
    assert deliver_unsent(store) == Delivery()
    assert list(deliver_files(store, [recording.path]).left) == [recording.path]
    assert [path.read_bytes() for path in (recording.path, remote.path)] == before
    recording.finish(Status.FINISHED, {}, {})
    assert deliver_unsent(store) == Delivery()


def test_a_run_that_will_be_resumed_gets_no_row_twice(store: Store):
    """Killed at step 4 with a checkpoint at step 2, resumed, and finished."""
    recording = start_recording(store, dead(), resumable=True, flush_seconds=0)
    recording.log(ROWS[:4])
    offset = recording.offset
    recording.saved(offset)
    recording.log(ROWS[4:])
    recording.mirror.flush()
    recording.mirror.release()
    for _ in range(2):
        outcome = deliver_unsent(store, checkpoint=lambda path, tags: offset)
        assert outcome.paused == [recording.path]
    run_id = recording.mirror.run_id
    assert store.client.get_run(run_id).info.status == "KILLED"
    assert {step for _, _, step in shape(store, run_id)} == {0, 1, 2}

    resumed = resume_recording(store, recording.path.name, offset, process_tags())
    assert store.client.get_run(run_id).info.status == "RUNNING"
    resumed.log(ROWS[4:])
    resumed.finish(Status.FINISHED, {"stop_reason": "BUDGET"}, {})
    assert deliver_unsent(store) == Delivery()
    assert_whole(store)


def test_a_reopened_run_has_no_trace_of_its_first_end(store: Store):
    recording = start_recording(store, identity())
    recording.log(ROWS[:4])
    offset = recording.offset
    tags = {schema.STOP_REASON: "INTERRUPTED", schema.ERROR: "SIGTERM", "own": "x"}
    recording.finish(Status.KILLED, tags, {})
    run_id = str(recording.mirror.run_id)
    assert store.client.get_run(run_id).data.tags.items() >= tags.items()
    resumed = resume_recording(store, recording.path.name, offset, {"note": "y"})
    run = store.client.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert not tags.keys() & run.data.tags.keys()
    assert run.data.tags.items() >= {"note": "y", **identity().tags}.items()
    resumed.log(ROWS[4:])
    resumed.finish(Status.FINISHED, {"stop_reason": "BUDGET"}, {})
    assert_whole(store)
    assert "own" not in store.client.get_run(run_id).data.tags


def test_a_failed_run_keeps_its_reason_and_its_files(store: Store):
    trace = "Traceback (most recent call last):\n  naïve\nValueError: bad\n" * 2000
    end = End(Status.FAILED, 5, {schema.ERROR: "ValueError: bad"}, {}, {"traceback.txt": trace})
    tracker = start_run(store.journals, identity())
    tracker.log(ROWS)
    journal = Journal(tracker.path)
    journal.end(end)
    journal.close()
    assert read_journal(tracker.path).end == end
    (run_id,) = deliver_unsent(store).sent
    run = store.client.get_run(run_id)
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "ValueError: bad")
    assert Path(store.client.download_artifacts(run_id, "traceback.txt")).read_text() == trace
    assert deliver_unsent(store) == Delivery()  # the end is longer than what is read first


def test_runs_of_the_store_without_a_journal_count_too(store: Store):
    record(store, seed="1", config_hash="a").path.unlink()
    record(store, seed="2", config_hash="b", status="FAILED")
    tracker = start_run(store.journals, identity(config_hash="c"))
    tracker.finish(Status.FINISHED, {}, {})
    assert finished_configs(store, "tests") == {"a", "c"}
    assert [run.seed for run in load_runs(store, "tests")] == [1, 2, 1]


def test_only_the_ends_of_sent_journals_are_read(store: Store, monkeypatch: pytest.MonkeyPatch):
    first = record(store)
    for number in range(20):
        copy = first.path.read_text().replace(first.path.stem[-32:], f"{number:032x}")
        (store.journals / f"copy-{number}.jsonl").write_text(copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "read_journal", lambda *a, **k: pytest.fail("read as a whole"))
        assert deliver_unsent(store) == Delivery()
    (store.journals / "copy-3.jsonl").write_bytes(b"")
    (store.journals / "copy-4.jsonl").write_bytes(bytes(40))
    stepless = start_run(store.journals, identity(seed="9"))
    stepless.log(ROWS)
    stepless.finish(Status.FINISHED, {}, {})
    text = stepless.path.read_text()
    stepless.path.write_text(text.replace('"step": 4', '"stop": 4'))
    waiting = start_run(store.journals, identity(seed="10"))
    waiting.log(ROWS)
    waiting.finish(Status.FINISHED, {}, {})
    outcome = deliver_unsent(store)
    assert len(outcome.sent) == 1
    lost = {path.name for path in (*outcome.damaged, *outcome.left)}
    assert lost == {"copy-3.jsonl", "copy-4.jsonl", stepless.path.name}


def test_only_runs_of_the_experiment_are_sent_where_one_is_given(store: Store):
    for name in ("one", "two"):
        tracker = start_run(store.journals, identity(name))
        tracker.log(ROWS)
        tracker.finish(Status.FINISHED, {}, {})
    assert len(deliver_unsent(store, "two").sent) == 1
    assert_whole(store, experiment="two")
    assert len(deliver_unsent(store, "two").sent) == 0
    assert len(deliver_unsent(store).sent) == 1


def test_two_processes_send_a_journal_once(store: Store):
    tracker = start_run(store.journals, identity())
    tracker.log(ROWS)
    tracker.finish(Status.FINISHED, {}, {})
    other = Mirror(store, tracker.path)
    assert other.is_claimed
    assert deliver_unsent(store) == Delivery()  # the other one sends it
    assert other.close()
    assert_whole(store)
