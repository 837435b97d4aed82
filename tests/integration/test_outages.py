"""Outages of the store: no run stops, and everything arrives exactly once."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optax
import pytest
import tiny_suite
from command_line import command_line
from outages import Proxy, mlflow_server, wait_for
from recorded import ROWS, Recording, identity, record
from tiny import TinyWorkload

from timetrial.bench import race
from timetrial.bench.suite import Suite
from timetrial.framework.budget import Budget
from timetrial.framework.callbacks import Callback, FeedRemainingFraction, StepInfo, Track
from timetrial.framework.clock import Clock
from timetrial.framework.config import Tracking
from timetrial.framework.state import TrainState
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.framework.types import Metrics, Status
from timetrial.tracking.read.runs import finished_configs, load_runs
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.evaluations_file import decode
from timetrial.tracking.store.delivery import Delivery, deliver_files, deliver_unsent
from timetrial.tracking.store.errors import OutageError
from timetrial.tracking.store.listing import check_experiment
from timetrial.tracking.store.opening import Store, open_store
from timetrial.tracking.store.pending import outline
from timetrial.tracking.store.recording import start_recording
from timetrial.tracking.store.studies import close_trial_runs, write_summary

pytest.importorskip("flask", reason="needs all of MLflow")

END = {"stop_reason": "BUDGET", "diverged": "false"}
SUMMARY = {"final/validation/accuracy": 0.6}
POINTS = {  # of ROWS and SUMMARY
    "train/loss": [(0, 2.0), (2, 1.7), (4, 1.4)],
    "validation/accuracy": [(0, 0.1), (2, 0.4), (4, 0.6)],
    "batch/loss": [(1, 1.9), (2, 1.8), (3, 1.6), (4, 1.5)],
    "time/train_seconds": [(0, 0.0), (1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)],
    "time/train_seconds_at_eval": [(0, 0.0), (2, 1.0), (4, 2.0)],
    "final/validation/accuracy": [(4, 0.6)],
}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The sqlite store behind the server."""
    return open_store(root=tmp_path_factory.mktemp("server") / "runs")


@pytest.fixture(scope="module")
def through(behind: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with mlflow_server(behind, tmp_path_factory.mktemp("log") / "log") as (_, port):
        proxy = Proxy(port)
        yield proxy
        proxy.close()


@pytest.fixture
def proxy(through: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    through.heal()
    through.requests.clear()
    yield through
    through.heal()


@pytest.fixture
def remote(proxy: Proxy, tmp_path: Path) -> Store:
    return open_store(proxy.address, root=tmp_path / "runs")


def again(store: Store) -> Store:
    """The store as the next command opens it."""
    return open_store(store.uri, root=store.root)


def runs_in(store: Store, experiment: str) -> list:
    experiment_id = store.experiment_id(experiment, create=False)
    return list(store.client.search_runs([experiment_id], order_by=["attributes.start_time ASC"]))


def assert_whole(store: Store, experiment: str, runs: int = 1) -> None:
    """Every run is in the store, each point, parameter and artifact once."""
    found = runs_in(store, experiment)
    assert len(found) == runs
    assert len({run.data.tags["journal_id"] for run in found}) == runs
    for run in found:
        run_id = run.info.run_id
        assert run.info.status == "FINISHED"
        assert run.data.params == identity().params
        assert run.data.tags.items() >= END.items()
        assert len(run.inputs.dataset_inputs) == 1
        assert {name: history(store, run_id, name) for name in run.data.metrics} == POINTS
        files = artifacts(store, run)
        assert sorted(files) == ["config.yaml", "evaluations.json"]
        assert files["config.yaml"] == identity().config_yaml
        assert [each.step for each in decode(files["evaluations.json"])] == [0, 2, 4]


def artifacts(store: Store, run: Any) -> dict[str, str]:
    """The artifacts of a run, from the directory behind the server."""
    assert store.artifact_location is not None
    place = store.artifact_location / run.info.run_id / "artifacts"
    if run.info.artifact_uri.startswith("mlflow-artifacts:"):
        place = store.artifact_location / run.info.experiment_id / run.info.run_id / "artifacts"
    return {path.name: path.read_text() for path in sorted(place.glob("*"))}


def history(store: Store, run_id: str, key: str) -> list[tuple[int, float]]:
    return sorted((p.step, p.value) for p in store.client.get_metric_history(run_id, key))


def is_sent(recording: Recording) -> bool:
    return bool(outline(recording.path).sent)


def nothing_left(delivery: Delivery) -> bool:
    return not delivery.left and not delivery.damaged and not delivery.paused


def some_slow(words: Sequence[str], fast: Sequence[str]) -> list[Any]:
    """Parameters of a test, of which only some are tried in every run of the tests."""
    return [word if word in fast else pytest.param(word, marks=pytest.mark.slow) for word in words]


FAULTS = ("down", "hang", "500", "403", "garbage", "lost")


def inject(proxy: Proxy, kind: str) -> None:
    if kind == "down":
        proxy.down()
    else:
        proxy.set(kind)


@pytest.mark.parametrize("kind", some_slow(FAULTS, ("down", "garbage", "lost")))
def test_a_fault_in_the_middle_of_a_run_stops_nothing_and_loses_nothing(
    kind: str, proxy: Proxy, remote: Store, behind: Store, caplog: pytest.LogCaptureFixture
):
    tracker = Recording(remote, identity(kind), flush_seconds=0)
    tracker.log(ROWS[:2])
    inject(proxy, kind)
    with caplog.at_level(logging.WARNING):
        for row in ROWS[2:]:
            tracker.log([row])
        tracker.finish("FINISHED", END, SUMMARY)
    assert not is_sent(tracker)
    assert len(caplog.records) == 1
    assert "timetrial sync" in caplog.text
    assert "\n" not in caplog.records[0].getMessage()
    proxy.heal()
    delivery = deliver_unsent(again(remote))
    assert nothing_left(delivery)
    assert len(delivery.sent) == 1
    assert is_sent(tracker)
    assert_whole(behind, kind)
    before = len(proxy.requests)
    assert deliver_unsent(again(remote)) == Delivery()
    assert len(proxy.requests) - before < 8  # nothing is sent again
    assert_whole(behind, kind)


@pytest.mark.parametrize("kind", some_slow(("down", "hang", "500"), ("down",)))
def test_a_store_that_is_down_at_the_start_is_told_once_for_all_runs(
    kind: str, proxy: Proxy, behind: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    inject(proxy, kind)
    experiment = f"start {kind}"
    with pytest.raises(TrackingError, match=r"tracking store http://127\.0\.0\.1"):
        open_store(proxy.address, root=tmp_path / "runs", create=False)
    assert not (tmp_path / "runs").exists()
    with caplog.at_level(logging.WARNING):
        store = open_store(proxy.address, root=tmp_path / "runs")
        trackers = [record(store, experiment=experiment, summary=SUMMARY, config_hash=f"{seed}")
                    for seed in range(3)]  # fmt: skip
        # What the next command plans with, while the store is down.
        assert finished_configs(store, experiment) == {"0", "1", "2"}
        assert len(load_runs(store, experiment)) == 3
        assert len(deliver_unsent(store).left) == 3
        check_experiment(store, experiment)
        assert deliver_unsent(store, experiment).closed == []
        close_trial_runs(store, experiment, "study", [1])
        assert write_summary(store, experiment, "study", {}, {}, {}, {}) == ""
    assert len(caplog.records) == 1
    assert not any(map(is_sent, trackers))
    proxy.heal()
    assert nothing_left(deliver_unsent(again(store)))
    assert_whole(behind, experiment, runs=3)
    assert all(map(is_sent, trackers))


CALLS = (
    "experiments/create",
    "runs/create",
    "runs/search",
    "runs/log-batch",
    "runs/log-inputs",
    "runs/set-tag",
    "runs/update",
    "artifacts/",
)


@pytest.mark.parametrize("call", some_slow(CALLS, ("runs/create", "runs/log-batch")))
def test_a_reply_that_is_lost_doubles_nothing(
    call: str,
    proxy: Proxy,
    remote: Store,
    behind: Store,
    monkeypatch: pytest.MonkeyPatch,
):
    """MLflow repeats the requests of the second run itself, as a user may have set it."""
    experiment = f"lost {call}"
    proxy.set("lost", call, times=1)
    record(remote, experiment=experiment, summary=SUMMARY)
    proxy.set("lost", call)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    record(remote, experiment=experiment, summary=SUMMARY)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    deliver_unsent(again(remote))  # in vain
    proxy.heal()
    assert nothing_left(deliver_unsent(again(remote)))
    assert_whole(behind, experiment, runs=2)


def test_a_run_that_a_lost_request_made_late_is_removed(proxy: Proxy, remote: Store, behind: Store):
    remote.experiment_id("late")
    proxy.set("late", "runs/create", times=1, seconds=0.3)
    tracker = Recording(remote, identity("late"), flush_seconds=0)
    tracker.log(ROWS)  # finds no run and makes one
    wait_for(lambda: len(runs_in(behind, "late")) >= 1, 20)
    tracker.finish("FINISHED", END, SUMMARY)
    deliver_unsent(again(remote))
    wait_for(lambda: Counter(r.info.status for r in runs_in(behind, "late")) == {"FINISHED": 1}, 20)
    assert_whole(behind, "late")


def test_a_run_is_not_sent_before_its_artifacts_are(
    proxy: Proxy, remote: Store, behind: Store, caplog: pytest.LogCaptureFixture
):
    proxy.set("500", "artifacts/")
    tracker = record(remote, experiment="refused", summary=SUMMARY)
    (run,) = runs_in(behind, "refused")
    assert run.info.status == "FINISHED"  # all else has arrived
    assert history(behind, run.info.run_id, "train/loss") == POINTS["train/loss"]
    assert artifacts(behind, run) == {}
    assert not is_sent(tracker)
    assert len(caplog.records) == 1
    assert tracker.path in deliver_unsent(again(remote)).left
    assert not is_sent(tracker)
    proxy.set("500", "evaluations.json")
    assert tracker.path in deliver_unsent(again(remote)).left
    proxy.heal()
    assert nothing_left(deliver_unsent(again(remote)))
    assert is_sent(tracker)
    assert_whole(behind, "refused")


def test_a_slow_store_gets_a_run_in_parts_and_holds_it_up_for_seconds_only(
    proxy: Proxy, remote: Store, behind: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("timetrial.tracking.store.mirror.FLUSH_SECONDS", 0.5)
    proxy.set("slow", seconds=0.2)
    began = time.monotonic()
    tracker = Recording(remote, identity("slow"), flush_seconds=0)
    for row in ROWS:
        tracker.log([row])
    assert time.monotonic() - began < 3  # one attempt, then a pause; in full it takes 4 s
    proxy.heal()
    tracker.finish("FINISHED", END, SUMMARY)
    deliver_unsent(again(remote))
    assert_whole(behind, "slow")


def test_sync_says_what_it_sent_and_what_is_left(
    proxy: Proxy,
    remote: Store,
    behind: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    timetrial = command_line(capsys)
    place = [f"tracking.uri={remote.uri}", f"tracking.root={remote.root}"]
    proxy.down()
    trackers = [record(remote, experiment="sync", summary=SUMMARY, seed=f"{i}") for i in range(2)]
    done = timetrial("sync", *place)
    assert done.code == 1
    assert "0 runs sent" in done.out
    assert "2 runs left" in done.out
    for tracker in trackers:
        assert f"{tracker.path}: tracking store {remote.uri}: no answer" in done.err
    done = timetrial("sync", *place, "--file", str(trackers[0].path))
    assert done.code == 1
    assert "1 runs left" in done.out
    proxy.heal()
    done = timetrial("sync", *place)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"2 runs sent to {remote.uri}\n"
    assert timetrial("sync", *place).out == f"0 runs sent to {remote.uri}\n"
    assert timetrial("sync", *place, "--file", str(trackers[0].path)).code == 0
    assert_whole(behind, "sync", runs=2)
    (remote.journals / "broken.jsonl").write_bytes(bytes(40))
    done = timetrial("sync", *place)
    assert done.code == 1
    assert "broken.jsonl" in done.err
    proxy.down()
    assert (remote.journals / "broken.jsonl.damaged").is_file()
    caplog.clear()
    assert timetrial("sync", *place).code == 1  # whether something is left is unknown
    assert "no answer" in caplog.text


def test_readers_and_writers_of_a_store_that_fails_later(
    proxy: Proxy, remote: Store, caplog: pytest.LogCaptureFixture
):
    record(remote, experiment="later", config_hash="a")
    reader = open_store(remote.uri, root=remote.root, create=False)
    proxy.set("500")
    with pytest.raises(OutageError, match="500"):
        load_runs(reader, "later")
    assert caplog.text == ""  # the error says it
    assert [run.status for run in load_runs(remote, "later")] == [Status.FINISHED]
    assert finished_configs(remote, "later") == {"a"}
    assert "500" in caplog.text


def test_journals_given_by_name_are_sent_to_a_store_that_has_them(remote: Store, behind: Store):
    tracker = record(remote, experiment="named", summary=SUMMARY)
    size = tracker.path.stat().st_size
    for _ in range(2):
        assert deliver_files(remote, [tracker.path]).sent == [tracker.run_id]
    assert tracker.path.stat().st_size == size
    assert_whole(behind, "named")


class Steps(Callback):
    """A clock on which an update takes a second, and requests as long as they take."""

    def __init__(self, mirror: Callback) -> None:
        self.now = 0.0
        self._mirror = mirror

    def on_step_end(self, info: StepInfo) -> None:
        self.now += 1.0

    def on_eval_end(self, info: StepInfo, metrics: Metrics, state: TrainState) -> None:
        began = time.monotonic()
        self._mirror.on_eval_end(info, metrics, state)
        self.now += time.monotonic() - began


def test_an_outage_takes_no_charged_seconds(proxy: Proxy, remote: Store):
    recording = start_recording(remote, identity("charged"), flush_seconds=0)
    program = Program(TinyWorkload(), optax.sgd(0.05))
    spent = []
    for kind in ("", "hang"):
        if kind:
            proxy.set(kind)
        steps = Steps(recording.mirror)
        clock = Clock(now=lambda: steps.now, cpu=lambda: 0.0)  # noqa: B023
        budget = Budget(steps=20)
        callbacks = [FeedRemainingFraction(), Track(recording), steps]
        result = Trainer(program, budget, callbacks, 0, clock).fit(program.init(0))
        assert [row.train_seconds for row in result.evaluations] == [0.0, 5.0, 10.0, 15.0, 20.0]
        spent.append(clock.accounts())
    assert [accounts["train"] for accounts in spent] == [20.0, 20.0]
    assert spent[1]["log"] > 1.0  # the request that hung
    recording.finish(Status.KILLED, {}, {})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["down", "500", "hang"])
def test_a_race_starts_and_ends_without_its_store(
    kind: str,
    proxy: Proxy,
    behind: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    tiny_suite.register(monkeypatch, tmp_path, steps=10, eval_every_steps=5)
    monkeypatch.chdir(tmp_path)
    inject(proxy, kind)
    suite = Suite("s", "summary", "p", ("tiny",), ("adam", "nadam"), (0, 1), ("step",))
    experiment = f"race {kind}"
    tracking = Tracking(uri=proxy.address, experiment=experiment, root=str(tmp_path / "runs"))
    with caplog.at_level(logging.WARNING):
        assert race.race(suite, tracking) == 0
    assert len([each for each in caplog.records if "tracking store" in each.getMessage()]) == 1
    assert (tmp_path / "runs" / "reports" / "s" / "report.html").exists()
    made = len(list((tmp_path / "runs" / "journals").iterdir()))
    assert made == 4
    proxy.heal()
    assert race.race(suite, tracking) == 0  # repeats nothing
    assert len(list((tmp_path / "runs" / "journals").iterdir())) == made
    store = open_store(tracking.uri, root=Path(tracking.root))
    deliver_unsent(store)
    runs = [run for run in runs_in(behind, experiment) if "config_hash" in run.data.tags]
    assert [run.info.status for run in runs] == ["FINISHED"] * 4
    assert len({run.data.tags["config_hash"] for run in runs}) == 4
