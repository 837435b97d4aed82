from __future__ import annotations

import logging
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from recorded import ROWS, Recording, identity, record

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Direction, Status
from timetrial.tracking.read.mlflow import from_mlflow
from timetrial.tracking.read.runs import finished_configs, load_runs
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.tracker import start_run
from timetrial.tracking.store import listing
from timetrial.tracking.store.delivery import deliver_unsent
from timetrial.tracking.store.opening import Store, open_store


def mlflow_runs(store: Store, experiment: str, **choice: Any) -> list[RunRecord]:
    """What MLflow alone says, without journals."""
    return list(from_mlflow(store, experiment, **choice).records)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("runs")
    return open_store(f"sqlite:///{root}/mlflow.db", root=root)


def test_reads_back_all_that_was_recorded(store: Store):
    tracker = record(store, experiment="whole", suite="quick", config_hash="abc")
    (run,) = mlflow_runs(store, "whole")
    assert (run.run_id, run.workload, run.optimizer, run.seed) == (
        tracker.run_id,
        "tiny",
        "adam",
        1,
    )
    assert (run.condition, run.budget, run.metric) == ("step", 20.0, "accuracy")
    assert run.direction is Direction.MAXIMIZE
    assert (run.status, run.reason, run.step, run.train_seconds) == ("FINISHED", "BUDGET", 4, 2.0)
    assert run.evaluations == [
        Row(0, 0.0, {"train/loss": 2.0, "validation/accuracy": 0.1}),
        Row(2, 1.0, {"train/loss": 1.7, "validation/accuracy": 0.4}),
        Row(4, 2.0, {"train/loss": 1.4, "validation/accuracy": 0.6}),
    ]
    assert run.config == identity().params
    assert run.tags["suite"] == "quick"


def test_no_run_is_dropped_whatever_became_of_it(store: Store):
    for seed, status in enumerate(("FINISHED", "FAILED", "KILLED")):
        record(store, experiment="statuses", status=status, seed=str(seed))
    running = Recording(store, identity("statuses", seed="3"), flush_seconds=0)
    running.log(ROWS[:3])
    empty = Recording(store, identity("statuses", seed="4"))
    runs = mlflow_runs(store, "statuses")
    assert [(run.seed, run.status) for run in runs] == [
        (0, "FINISHED"),
        (1, "FAILED"),
        (2, "KILLED"),
        (3, "RUNNING"),
        (4, "RUNNING"),
    ]
    # What a run that never came to its next evaluation did is read all the same.
    assert (runs[3].step, runs[3].train_seconds, len(runs[3].evaluations)) == (2, 1.0, 1)
    assert (runs[4].step, runs[4].train_seconds, runs[4].evaluations) == (0, 0.0, [])
    running.finish("KILLED", {}, {})
    empty.finish("KILLED", {}, {})


def test_of_a_step_logged_twice_the_later_counts(store: Store):
    rows = [*ROWS[:4], Row(2, 1.25, {"validation/accuracy": 0.45}), *ROWS[4:]]
    record(store, experiment="twice", rows=rows)
    (run,) = mlflow_runs(store, "twice")
    assert [e.metrics["validation/accuracy"] for e in run.evaluations] == [0.1, 0.45, 0.6]
    assert [e.train_seconds for e in run.evaluations] == [0.0, 1.25, 2.0]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_a_value_that_was_not_finite_and_then_was_is_the_later_one(store: Store, status: str):
    nan_then_number = [
        Row(0, 0.0, {"validation/accuracy": math.nan}),
        Row(0, 0.0, {"validation/accuracy": 0.5}),
    ]
    # Of a run that failed there are the histories only.
    record(store, experiment=f"healed {status}", rows=nan_then_number, status=status)
    record(store, experiment=f"healed {status}", rows=nan_then_number[::-1], status=status)
    healed, broken = mlflow_runs(store, f"healed {status}")
    assert healed.evaluations[0].metrics == {"validation/accuracy": 0.5}
    assert math.isnan(broken.evaluations[0].metrics["validation/accuracy"])


def test_filters_by_tags_and_reads_more_than_a_page(store: Store, monkeypatch: pytest.MonkeyPatch):
    for seed in range(5):
        record(store, experiment="pages", seed=str(seed), suite="odd" if seed % 2 else "even")
    monkeypatch.setattr(listing, "PAGE", 2)
    assert [run.seed for run in mlflow_runs(store, "pages")] == [0, 1, 2, 3, 4]
    assert [run.seed for run in mlflow_runs(store, "pages", tags={"suite": "odd"})] == [1, 3]
    assert mlflow_runs(store, "pages", tags={"suite": "odd", "seed": "2"}) == []
    with pytest.raises(TrackingError, match="without quotes"):
        mlflow_runs(store, "pages", tags={"suite": "it's"})


def test_runs_of_others_are_left_out_and_named(store: Store, caplog: pytest.LogCaptureFixture):
    record(store, experiment="shared")
    foreign = store.client.create_run(store.experiment_id("shared"))
    with caplog.at_level(logging.WARNING):
        assert len(load_runs(store, "shared")) == 1
    assert foreign.info.run_id in caplog.text


def test_runs_whose_tags_cannot_be_read_are_left_out_and_named(store: Store):
    tracker = record(store, experiment="garbled", seed="one")
    (problem,) = from_mlflow(store, "garbled").problems
    assert problem.lost
    assert re.match(rf"{tracker.run_id}: .*'one'.* \(left out\)", str(problem))
    with pytest.raises(TrackingError, match="got 'nowhere'"):
        from_mlflow(store, "nowhere")


def test_finished_configurations_only(store: Store):
    record(store, experiment="resume", config_hash="a")
    record(store, experiment="resume", config_hash="b", status="FAILED")
    record(store, experiment="resume", config_hash="c", status="KILLED")
    record(store, experiment="resume")
    running = Recording(store, identity("resume", config_hash="d"))
    assert finished_configs(store, "resume") == {"a"}
    assert finished_configs(store, "never started") == set()
    running.finish("KILLED", {}, {})


def test_reading_needs_no_more_than_the_database(tmp_path: Path):
    """Artifacts and journals may be gone, damaged, or lie on another machine."""
    store = open_store(f"sqlite:///{tmp_path}/mlflow.db", root=tmp_path)
    rows = [*ROWS[:5], Row(3, 1.75, {"train/loss": math.inf}), *ROWS[5:]]
    tracker = record(store, rows=rows)
    file = tmp_path / "artifacts" / str(tracker.run_id) / "artifacts" / "evaluations.json"
    (from_file,) = mlflow_runs(store, "tests")
    file.write_text('[{"step": 0}]')
    (despite_damage,) = mlflow_runs(store, "tests")
    shutil.rmtree(tmp_path / "artifacts")
    shutil.rmtree(tmp_path / "journals")
    (from_histories,) = mlflow_runs(store, "tests")
    assert [e.step for e in from_file.evaluations] == [0, 2, 3, 4]
    assert from_file.evaluations[2].train_seconds == 1.75
    # repr: nan is not equal to itself
    assert repr(from_file) == repr(from_histories) == repr(despite_damage)


def test_runs_are_read_from_journals_and_from_mlflow_where_there_is_none(store: Store):
    first = record(store, experiment="both", seed="1", config_hash="a")
    second = record(store, experiment="both", seed="2", config_hash="b")
    from_both = load_runs(store, "both")
    assert [run.run_id for run in from_both] == [first.run_id, second.run_id]
    second.path.unlink()
    without = load_runs(store, "both")
    assert [run.run_id for run in without] == [first.run_id, second.run_id]
    for one, other in zip(from_both, without, strict=True):
        assert (one.evaluations, one.config, one.step) == (
            other.evaluations, other.config, other.step,
        )  # fmt: skip
    assert finished_configs(store, "both") == {"a", "b"}
    assert [r.seed for r in load_runs(store, "both", tags={"seed": "2"})] == [2]


def test_a_run_that_mlflow_never_got_is_read_from_its_journal(store: Store):
    tracker = start_run(store.journals, identity("unsent", config_hash="x"))
    tracker.log(ROWS)
    tracker.finish(Status.FINISHED, {"stop_reason": "BUDGET"}, {})
    (run,) = load_runs(store, "unsent")
    assert (run.status, run.step, run.reason) == (Status.FINISHED, 4, "BUDGET")
    assert finished_configs(store, "unsent") == {"x"}


def test_a_damaged_journal_is_named_and_stops_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = open_store(f"sqlite:///{tmp_path}/mlflow.db", root=tmp_path)
    good = record(store, seed="1")
    for name, content in {"empty": b"", "zeros": bytes(40), "text": b"nonsense\n"}.items():
        (store.journals / f"{name}.jsonl").write_bytes(content)
    whole = good.path.read_text().splitlines(keepends=True)
    stepless = [line.replace('"step"', '"stop"') for line in whole]
    (store.journals / "stepless.jsonl").write_text("".join(stepless))
    assert [run.run_id for run in load_runs(store, "tests")] == [good.run_id]
    for name in ("empty", "zeros", "text", "stepless"):
        assert f"{name}.jsonl" in caplog.text
    assert finished_configs(store, "tests") == set()
    delivery = deliver_unsent(store)
    assert delivery.sent == []
    # A command that writes sets them aside; the rows of a run that was sent are not read again.
    assert len(delivery.damaged) == 3
    for name in ("empty", "zeros", "text"):
        assert caplog.text.count(f"{name}.jsonl.damaged") == 1
        assert (store.journals / f"{name}.jsonl.damaged").is_file()
    caplog.clear()
    assert deliver_unsent(store).damaged == {}
    assert deliver_unsent(store, "tests").closed == []
    assert [run.run_id for run in load_runs(store, "tests")] == [good.run_id]
    assert {message.split(":")[0] for message in caplog.messages} == {"run stepless.jsonl"}
