from __future__ import annotations

import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recorded import ROWS, Recording, identity, points, record

from timetrial.framework.records import Row, Tracker
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import process_tags
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.journal import read_journal
from timetrial.tracking.store.delivery import deliver_files, deliver_unsent
from timetrial.tracking.store.opening import Store, open_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("runs")
    return open_store(f"sqlite:///{root}/mlflow.db", root=root)


def test_mlflow_holds_all_of_a_run(store: Store):
    tracker: Tracker = Recording(store, identity(suite="quick"))
    assert isinstance(tracker, Recording)
    assert store.client.get_run(tracker.run_id).info.status == "RUNNING"
    before = time.time() * 1000
    tracker.log(ROWS[:3])  # the update to step 2 ...
    tracker.log(ROWS[3:])  # ... and the evaluation at step 2
    tracker.finish("FINISHED", {"stop_reason": "BUDGET"}, {"final/validation/accuracy": 0.6})

    run = store.client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "tiny-adam-1"
    assert before - 60_000 < run.info.start_time <= run.info.end_time < before + 60_000
    assert run.data.params == identity().params
    assert (
        run.data.tags.items() >= {**identity(suite="quick").tags, "stop_reason": "BUDGET"}.items()
    )
    config = store.client.download_artifacts(tracker.run_id, schema.CONFIG_ARTIFACT)
    assert Path(config).read_text() == identity().config_yaml
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "tiny"
    assert identity().datasets["tiny"].startswith(dataset.dataset.digest)
    assert identity().datasets["tiny"] in dataset.dataset.source

    values: dict[str, list[tuple[int, float]]] = {}
    for key, value, step, _ in points(store, tracker.run_id):
        values.setdefault(key, []).append((step, value))
    assert {key: sorted(found) for key, found in values.items()} == {
        "train/loss": [(0, 2.0), (2, 1.7), (4, 1.4)],
        "validation/accuracy": [(0, 0.1), (2, 0.4), (4, 0.6)],
        "batch/loss": [(1, 1.9), (2, 1.8), (3, 1.6), (4, 1.5)],
        "time/train_seconds": [(0, 0.0), (1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)],
        "time/train_seconds_at_eval": [(0, 0.0), (2, 1.0), (4, 2.0)],
        "final/validation/accuracy": [(4, 0.6)],
    }


def test_values_that_are_not_finite_never_reach_the_store_as_numbers(store: Store):
    rows = [
        Row(0, 0.0, {"train/loss": 1.0, "validation/accuracy": 0.5}),
        Row(1, 0.1, {"batch/loss": math.inf, "batch/grad_norm": -math.inf}),
        Row(1, 0.1, {"train/loss": math.nan, "validation/accuracy": 0.25}),
    ]
    run_id = record(
        store, experiment="nan", rows=rows, summary={"final/train/loss": math.nan}
    ).run_id
    found = {(key, value, step) for key, value, step, _ in points(store, run_id)}
    assert all(abs(value) < 10 for _, value, _ in found)
    assert {
        ("batch/loss_nonfinite", 1.0, 1),
        ("batch/grad_norm_nonfinite", 1.0, 1),
        ("train/loss_nonfinite", 1.0, 1),
        ("final/train/loss_nonfinite", 1.0, 1),
        ("train/loss", 1.0, 0),  # the last finite one is what MLflow shows
    } <= found
    assert store.client.get_run(run_id).data.metrics["train/loss"] == 1.0
    (run,) = load_runs(store, "nan")
    assert run.evaluations[0].metrics == {"train/loss": 1.0, "validation/accuracy": 0.5}
    assert math.isnan(run.evaluations[1].metrics["train/loss"])
    assert run.evaluations[1].metrics["validation/accuracy"] == 0.25


def test_what_is_logged_goes_to_the_journal_at_once_and_to_mlflow_in_batches(store: Store):
    tracker = Recording(store, identity(), flush_seconds=3600)
    rows = [Row(step, step * 0.1, {"batch/loss": 1.0 / step}) for step in range(1, 1300)]
    tracker.log(rows)
    assert len(read_journal(tracker.path).rows) == 1299
    assert points(store, tracker.run_id) == set()
    tracker.finish("FINISHED", {}, {})
    assert len(points(store, tracker.run_id)) == 2 * 1299  # with the seconds: three requests

    eager = Recording(store, identity(), flush_seconds=0)
    eager.log(rows[:1])
    assert len(points(store, eager.run_id)) == 2
    eager.finish("FINISHED", {}, {})


def test_names_and_values_that_mlflow_refuses_are_made_to_fit(store: Store):
    run = identity(note="n" * 9000)
    params = {"a(b)": "1", "a[b]": "2", "../x//y": "3", "k" * 300: "4", "long": "v" * 7000, "e": ""}
    params |= {f"p{i}": str(i) for i in range(250)}
    tracker = Recording(store, type(run)(**{**vars(run), "params": params, "run_name": "a/b: ü?"}))
    tracker.log([Row(0, 0.0, {"validation/map@5": 0.5, "x" * 300: 1.0})])
    tracker.finish("FINISHED", {}, {})
    found = store.client.get_run(tracker.run_id)
    assert found.info.run_name == "a/b: ü?"
    assert found.data.params["a_b_"] == "1"
    assert found.data.params["a_b__2"] == "2"
    assert found.data.params["x/y"] == "3"
    assert found.data.params["e"] == ""
    assert len(found.data.params) == len(params)
    assert found.data.params["long"].endswith("v...")
    assert len(found.data.tags["note"]) == 8000
    assert found.data.metrics["validation/map_5"] == 0.5


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_the_status_is_true_to_what_happened(store: Store, status: str):
    tracker = record(store, status=status)
    assert store.client.get_run(tracker.run_id).info.status == status


def test_wrong_use_is_refused(store: Store):
    tags = {key: value for key, value in identity().tags.items() if key not in ("seed", "metric")}
    with pytest.raises(TrackingError, match="missing: seed, metric"):
        Recording(store, type(identity())("tests", "x", tags))
    tracker = Recording(store, identity())
    with pytest.raises(ValueError, match="'DONE'"):
        tracker.finish("DONE", {}, {})
    tracker.finish("KILLED", {}, {})
    with pytest.raises(RuntimeError, match="finished twice"):
        tracker.finish("FINISHED", {}, {})
    assert store.client.get_run(tracker.run_id).info.status == "KILLED"


def test_a_run_survives_a_store_that_fails_for_a_while(
    store: Store, caplog: pytest.LogCaptureFixture
):
    tracker = Recording(store, identity(), flush_seconds=0)
    tracker.log(ROWS[:2])
    store.client.delete_run(tracker.run_id)  # MLflow refuses to log to it from here on
    with caplog.at_level(logging.WARNING):
        for row in ROWS[2:5]:
            tracker.log([row])
    assert len(caplog.records) == 1  # warned once, not per row
    assert str(tracker.path.parent) in caplog.text
    store.client.restore_run(tracker.run_id)
    tracker.log(ROWS[5:])
    tracker.finish("FINISHED", {}, {})
    whole = record(store)
    assert shape(store, tracker.run_id) == shape(store, whole.run_id)
    assert read_journal(tracker.path).sent


def shape(store: Store, run_id: str | None) -> set[tuple[str, float, int]]:
    return {(key, value, step) for key, value, step, _ in points(store, run_id)}


def test_what_a_failing_store_missed_can_be_replayed(
    store: Store, caplog: pytest.LogCaptureFixture
):
    tracker = Recording(store, identity(), flush_seconds=0)
    tracker.log(ROWS[:2])
    store.client.delete_run(tracker.run_id)
    with caplog.at_level(logging.WARNING):
        tracker.log(ROWS[2:])
        tracker.finish("FINISHED", {"stop_reason": "BUDGET"}, {"final/train/loss": 1.4})
    assert "timetrial sync" in caplog.text
    store.client.restore_run(tracker.run_id)
    assert store.client.get_run(tracker.run_id).info.status == "RUNNING"

    assert deliver_unsent(store).sent == [tracker.run_id]
    whole = record(store, summary={"final/train/loss": 1.4})
    assert shape(store, tracker.run_id) == shape(store, whole.run_id)
    run = store.client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["stop_reason"] == "BUDGET"
    assert deliver_unsent(store).sent == []


def test_replaying_is_idempotent_and_keeps_the_timestamps(store: Store):
    tracker = record(store, summary={"final/train/loss": math.inf})
    before, run = points(store, tracker.run_id), store.client.get_run(tracker.run_id)
    for _ in range(2):
        assert deliver_files(store, [tracker.path]).sent == [tracker.run_id]
        assert points(store, tracker.run_id) == before
        assert store.client.get_run(tracker.run_id).to_dictionary() == run.to_dictionary()


def test_a_journal_can_be_sent_to_another_store(store: Store, tmp_path: Path):
    tracker = record(store)
    other = open_store(f"sqlite:///{tmp_path}/other.db", root=tmp_path)
    (run_id,) = deliver_files(other, [tracker.path]).sent
    assert deliver_files(other, [tracker.path]).sent == [run_id]
    assert points(other, run_id) == points(store, tracker.run_id)
    (copy,) = load_runs(other, "tests")
    (original,) = [run for run in load_runs(store, "tests") if run.run_id == tracker.run_id]
    assert copy.evaluations == original.evaluations
    assert copy.config == original.config


VICTIM = """
import sys, time
from pathlib import Path
from recorded import ROWS, Recording, identity
from timetrial.tracking.record.environment import host_tags, process_tags
from timetrial.tracking.store.opening import open_store
store = open_store(sys.argv[1], root=Path(sys.argv[2]))
tracker = Recording(
    store, identity("stale", **host_tags(), **process_tags()), flush_seconds=3600
)
tracker.log(ROWS)
print(tracker.run_id, flush=True)
time.sleep(600)
"""


def closed(store: Store, experiment: str) -> list[str]:
    """Ids of runs that a command ends because their processes are dead."""
    delivery = deliver_unsent(store, experiment)
    return [*delivery.sent, *delivery.closed]


def test_a_run_whose_process_was_killed_is_closed_with_all_its_rows(store: Store):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, store.uri, store.root],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert victim.stdout is not None
    run_id = victim.stdout.readline().strip()
    assert closed(store, "stale") == []  # it lives
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    assert store.client.get_run(run_id).info.status == "RUNNING"
    assert points(store, run_id) == set()

    here = {schema.HOST: socket.gethostname()}
    alive = Recording(store, identity("stale", **here, **process_tags()))
    elsewhere = {schema.HOST: "another-host", schema.PID: "1", schema.PROCESS_START: "x"}
    remote = Recording(store, identity("stale", **elsewhere))
    reused = {**here, **process_tags(), schema.PROCESS_START: "another time"}
    unjournaled = Recording(store, identity("stale", **reused))
    unjournaled.path.unlink()

    assert set(closed(store, "stale")) == {run_id, unjournaled.run_id}
    assert closed(store, "stale") == []
    assert store.client.get_run(run_id).info.status == "KILLED"
    assert store.client.get_run(unjournaled.run_id).info.status == "KILLED"
    assert shape(store, run_id) == shape(store, record(store).run_id)
    for tracker in (alive, remote):
        assert store.client.get_run(tracker.run_id).info.status == "RUNNING"
        tracker.finish("FINISHED", {}, {})
