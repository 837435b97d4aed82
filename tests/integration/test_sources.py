"""Runs from journals, complete or not; equal to the same runs from a store."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from recorded import ROWS, TAGS, identity, record

from timetrial.framework.records import Row
from timetrial.tracking.read.journals import from_journals
from timetrial.tracking.read.mlflow import from_mlflow
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.read.sources import check
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.journal import End, Journal
from timetrial.tracking.store.opening import Store, open_store


def journal(
    path: Path, *, end: str | None = "FINISHED", rows: list[Row] | None = None, **tags: str
) -> None:
    file = Journal(path)
    file.start(path.stem, 1000 + len(tags), identity(**tags))
    file.rows(
        [dataclasses.replace(row, timestamp_ms=1000 + i) for i, row in enumerate(ROWS)]
        if rows is None
        else rows
    )
    if end is not None:
        file.end(End(end, 9000, {"stop_reason": "BUDGET", "diverged": "false"}, {}))
    file.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("sources")
    return open_store(f"sqlite:///{root}/mlflow.db", root=root)


def test_a_journal_is_a_run(tmp_path: Path):
    journal(tmp_path / "one.jsonl", budget="4")
    source = from_journals(tmp_path)
    assert source.problems == []
    (run,) = source.records
    assert (run.workload, run.optimizer, run.seed, run.budget) == ("tiny", "adam", 1, 4.0)
    assert (run.status, run.reason, run.step, run.train_seconds) == ("FINISHED", "BUDGET", 4, 2.0)
    assert [e.step for e in run.evaluations] == [0, 2, 4]
    assert run.evaluations[1].metrics == {"train/loss": 1.7, "validation/accuracy": 0.4}
    assert run.config["optimizer.name"] == "adam"


def test_the_journal_of_a_recorded_run_gives_what_mlflow_gives(store: Store):
    nan_row = Row(6, 3.0, {"train/loss": math.inf, "validation/accuracy": math.nan})
    tracker = record(store, experiment="same", rows=[*ROWS, nan_row], budget="6")
    mlflow = from_mlflow(store, "same")
    journals = from_journals(tracker.path.parent)
    (from_store,) = mlflow.records
    (from_file,) = [r for r in journals.records if r.run_id == from_store.tags["journal_id"]]
    assert mlflow.problems == []
    ignored = {"run_id": "", "tags": {}, "evaluations": ()}
    assert dataclasses.replace(from_file, **ignored) == dataclasses.replace(from_store, **ignored)
    assert repr(list(from_file.evaluations)) == repr(list(from_store.evaluations))
    assert {k: from_file.tags[k] for k in TAGS} == {k: from_store.tags[k] for k in TAGS}


def test_mlflow_runs_that_cannot_be_read_are_told_and_the_others_read(store: Store):
    record(store, experiment="mixed", budget="4")
    record(store, experiment="mixed", seed="two")
    record(store, experiment="mixed", status="KILLED", budget="4")
    record(store, experiment="mixed", rows=[], budget="4")
    foreign = store.client.create_run(store.experiment_id("mixed")).info.run_id
    source = from_mlflow(store, "mixed")
    assert [r.status for r in source.records] == ["FINISHED", "KILLED", "FINISHED"]
    told = [(p.lost, p.text) for p in source.problems]
    assert len(told) == 4
    assert told[0][0]
    assert "tags cannot be read" in told[0][1]
    assert told[1] == (False, "status KILLED, after 4 steps")
    assert told[2] == (False, "no evaluations")
    assert told[3][0]
    assert source.problems[3].run == foreign
    assert "not recorded by timetrial: no tag workload" in str(source.problems[3])


def test_mlflow_runs_are_filtered_by_tags_and_by_mlflows_own_filter(store: Store):
    for seed, status in (("1", "FINISHED"), ("2", "FINISHED"), ("2", "FAILED")):
        record(store, experiment="filtered", seed=seed, status=status, budget="4")
    assert len(from_mlflow(store, "filtered").records) == 3
    two = from_mlflow(store, "filtered", tags={"seed": "2"})
    assert [r.seed for r in two.records] == [2, 2]
    done = from_mlflow(
        store, "filtered", tags={"seed": "2"}, filter_string="attributes.status = 'FINISHED'"
    )
    assert [r.status for r in done.records] == ["FINISHED"]
    known = {run.run_id: run for run in load_runs(store, "filtered")}
    assert [known[run.run_id].evaluations for run in done.records] == [
        run.evaluations for run in done.records
    ]
    with pytest.raises(TrackingError, match="expected a value without quotes"):
        from_mlflow(store, "filtered", tags={"seed": "'"})
    with pytest.raises(TrackingError):
        from_mlflow(store, "nowhere")


def test_journals_that_are_incomplete_are_told_run_by_run(tmp_path: Path):
    journal(tmp_path / "a_killed.jsonl", end=None, budget="4")
    journal(tmp_path / "b_short.jsonl")
    journal(tmp_path / "c_empty.jsonl", rows=[], budget="4")
    moments = [(2, 1.0), (4, math.nan)]
    twice = [Row(s, t, {"validation/accuracy": 0.5}, i) for i, (s, t) in enumerate(moments)]
    journal(tmp_path / "d_untimed.jsonl", rows=twice, budget="4")
    journal(tmp_path / "e_metric.jsonl", metric="bleu", budget="4")
    journal(tmp_path / "f_seed.jsonl", seed="first")
    (tmp_path / "g_torn.jsonl").write_text('{"kind": "run", "spool')
    (tmp_path / "h_other.jsonl").write_text('{"kind": "run"}\n')
    journal(tmp_path / "i_direction.jsonl", direction="sideways")
    source = from_journals(tmp_path)
    told = {problem.run: (problem.lost, problem.text) for problem in source.problems}
    assert told["a_killed.jsonl"] == (False, "status RUNNING, after 4 steps")
    assert told["b_short.jsonl"] == (False, "ended after 4 of 20 steps")
    assert told["c_empty.jsonl"] == (False, "no evaluations")
    assert told["d_untimed.jsonl"] == (False, "evaluations without a time")
    assert told["e_metric.jsonl"] == (False, "the deciding metric bleu was never evaluated")
    for name in "f_seed", "g_torn", "h_other", "i_direction":
        assert told[f"{name}.jsonl"][0], name
    assert len(source.records) == 5


def test_a_directory_without_journals_is_refused(tmp_path: Path):
    with pytest.raises(TrackingError, match="expected a directory with journals"):
        from_journals(tmp_path)


def test_a_run_that_diverged_or_was_done_early_is_whole(tmp_path: Path):
    journal(tmp_path / "one.jsonl")
    (run,) = from_journals(tmp_path).records
    assert len(check(run)) == 1
    for reason in ("DIVERGED", "COMPLETE", "TARGET"):
        assert check(dataclasses.replace(run, reason=reason)) == []


def test_rows_repeated_after_a_resume_are_told(tmp_path: Path):
    journal(tmp_path / "one.jsonl", budget="4")
    (run,) = from_journals(tmp_path).records
    twice = dataclasses.replace(run, evaluations=[*run.evaluations, run.evaluations[1]])
    assert [p.text for p in check(twice)] == [
        "evaluations out of order or repeated, as after a resume"
    ]
