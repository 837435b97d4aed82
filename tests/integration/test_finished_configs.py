"""Finished runs are found without reading all data, and are those that reading all data finds."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest
from recorded import ROWS, Recording, identity, of_version_0_2, record

from timetrial.framework.records import Row
from timetrial.framework.types import Status
from timetrial.tracking.read.journals import read_journals
from timetrial.tracking.read.runs import finished_configs, load_runs
from timetrial.tracking.read.sources import journal_id
from timetrial.tracking.record import schema
from timetrial.tracking.record.journal import End, Journal, journals_in
from timetrial.tracking.store import listing
from timetrial.tracking.store.opening import Store, open_store

EXPERIMENT = "tests"


def slowly(store: Store, experiment: str = EXPERIMENT) -> set[str]:
    """The finished configurations, from whole journals and all runs of MLflow."""
    local, _ = read_journals(journals_in(store.root), experiment)
    here = {run.contents.journal_id for run in local}
    tags = [run.record.tags for run in local if run.record.status == Status.FINISHED]
    if store.experiment(experiment) is not None:
        for run in listing.listed_runs(store, experiment):
            if run.info.status == "FINISHED" and journal_id(run.data.tags) not in here:
                tags.append(run.data.tags)
    return {each[schema.CONFIG_HASH] for each in tags if schema.CONFIG_HASH in each}


def made(store: Store, digest: str, *, status: Status | None, resumed: bool = False) -> Path:
    """A journal of a run of a dead process, which MLflow never got."""
    dead = {"host": socket.gethostname(), "pid": "1", "process_start": "x"}
    path = store.journals / f"{digest}.jsonl"
    journal = Journal(path)
    journal.start(f"id-{digest}", 1_000, identity(EXPERIMENT, config_hash=digest, **dead))
    journal.rows(ROWS[:3])
    if resumed:
        journal.resume({"resumed_at": "2", **dead})
    journal.rows(ROWS[3:])
    if status is not None:
        journal.end(End(status, 2_000, {"stop_reason": "BUDGET"}, {}))
    journal.close()
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Runs of every kind; the first letters of their digests say which."""
    root = tmp_path_factory.mktemp("runs")
    store = open_store(f"sqlite:///{root}/mlflow.db", root=root)
    for number in range(7):
        record(store, config_hash=f"mirrored{number}", seed=str(number))
    record(store, config_hash="failed", status="FAILED")
    record(store, config_hash="killed", status="KILLED")
    record(store)  # without a digest
    record(store, experiment="other", config_hash="foreign")
    Recording(store, identity(EXPERIMENT, config_hash="running")).log(ROWS[:4])
    for digest in ("mlflow_only", "mlflow_only_too"):
        record(store, config_hash=digest).path.unlink()
    record(store, config_hash="mlflow_failed", status="FAILED").path.unlink()
    made(store, "unsent", status=Status.FINISHED)
    made(store, "resumed", status=Status.FINISHED, resumed=True)
    made(store, "dead", status=None)
    torn = made(store, "torn", status=Status.FINISHED)
    torn.write_bytes(torn.read_bytes() + b'{"kind": "sent", "store')
    old = made(store, "old", status=Status.FINISHED)
    (store.root / "spool").mkdir()
    (store.root / "spool" / "old.jsonl").write_bytes(of_version_0_2(old.read_bytes()))
    old.unlink()
    ended = made(store, "of_version_0_2", status=Status.FINISHED)
    ended.write_bytes(of_version_0_2(ended.read_bytes()))
    running = made(store, "running_0_2", status=None)
    running.write_bytes(of_version_0_2(running.read_bytes()))
    damage(record(store, config_hash="damaged_but_in_mlflow").path, b'"step": 2', b'"step": 3')
    damage(made(store, "damaged", status=Status.FINISHED), b'"step": 2', b'"step": 3')
    damage(made(store, "damaged_head", status=Status.FINISHED), b"1000", b"1001")
    damage(made(store, "damaged_end", status=Status.KILLED), b"KILLED", b"FAILED")
    damage(made(store, "tagless", status=Status.FINISHED), b'"metric": "accuracy", ', b"")
    client, experiment_id = store.client, store.experiment_id(EXPERIMENT)
    stranger = client.create_run(experiment_id, tags={schema.CONFIG_HASH: "stranger"})
    client.set_terminated(stranger.info.run_id)
    return store


def damage(path: Path, before: bytes, after: bytes) -> None:
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after, 1))


FINISHED = {
    *(f"mirrored{number}" for number in range(7)),
    *("mlflow_only", "mlflow_only_too", "unsent", "resumed", "torn", "old", "of_version_0_2"),
    *("damaged_but_in_mlflow", "stranger"),
}


@pytest.mark.parametrize("left_out", [1, 3, 500])
def test_they_are_those_of_the_slow_reading(
    store: Store, left_out: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listing, "_MOST_LEFT_OUT", left_out)
    assert finished_configs(store, EXPERIMENT) == slowly(store) == FINISHED
    assert finished_configs(store, "other") == slowly(store, "other") == {"foreign"}
    assert finished_configs(store, "none") == set()


def test_mlflow_loads_only_runs_without_a_journal_here(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    loaded: list[str] = []

    def search(*arguments, **options):
        page = type(store.client).search_runs(store.client, *arguments, **options)
        loaded.extend(run.data.tags.get(schema.CONFIG_HASH, "") for run in page)
        return page

    monkeypatch.setattr(store.client, "search_runs", search)
    finished_configs(store, EXPERIMENT)
    assert sorted(loaded) == [
        "damaged_but_in_mlflow", "mlflow_only", "mlflow_only_too", "stranger",
    ]  # fmt: skip


def test_a_server_without_such_filters_lists_all(store: Store, monkeypatch: pytest.MonkeyPatch):
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    def search(ids, filter_string, **options):
        if "NOT IN" in filter_string:
            raise MlflowException("no such comparator", INVALID_PARAMETER_VALUE)
        return type(store.client).search_runs(store.client, ids, filter_string, **options)

    monkeypatch.setattr(store.client, "search_runs", search)
    assert finished_configs(store, EXPERIMENT) == FINISHED


def test_the_runs_of_one_configuration_are_those_among_all(store: Store):
    runs = load_runs(store, EXPERIMENT)
    digests = {run.tags.get(schema.CONFIG_HASH, "") for run in runs} | {"nobody", "it's"}
    assert len(digests) > 15
    for digest in sorted(digests - {""}):
        tags = {schema.CONFIG_HASH: digest}
        expected = [run for run in runs if run.tags.get(schema.CONFIG_HASH) == digest]
        assert repr(load_runs(store, EXPERIMENT, tags=tags)) == repr(expected)


@pytest.mark.parametrize("old", [False, True])
def test_any_damage_is_seen_as_by_the_slow_reading(tmp_path: Path, old: bool):
    """Bytes changed, lost or added anywhere, in a journal with checksums and in one without."""
    store = open_store(f"sqlite:///{tmp_path}/mlflow.db", root=tmp_path)
    (tmp_path / "journals").mkdir()
    path = made(store, "whole", status=Status.FINISHED, resumed=True)
    journal = Journal(path)
    journal.rows([Row(5, 3.0, {"batch/loss": 1.0})])
    journal.close()
    content = path.read_bytes()
    whole = of_version_0_2(content) if old else content
    chance, found = random.Random(3), set()
    for _ in range(150):
        at, kind = chance.randrange(len(whole)), chance.randrange(4)
        bad = bytes([chance.choice(b'\n"{}, 0aA\x00\xff')])
        rest = {0: bad + whole[at + 1 :], 1: whole[at + 1 :], 2: bad + whole[at:], 3: b""}[kind]
        path.write_bytes(whole[:at] + rest)
        here, _ = read_journals([path], EXPERIMENT)
        fast, _ = read_journals([path], EXPERIMENT, rows=False)
        judged = [[(run.record.status, run.record.tags) for run in each] for each in (here, fast)]
        assert judged[0] == judged[1]
        found.add(bool(here))
    assert found == {True, False}
