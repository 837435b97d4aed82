"""AlgoPerf's log directories as runs, complete or not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from timetrial.framework.errors import UserError
from timetrial.framework.types import Direction
from timetrial.tracking.read.algoperf_logs import read_algoperf_logs
from timetrial.tracking.scores.algoperf import study_times
from timetrial.tracking.scores.algoperf_rules import Rules

HEAD = "accumulated_submission_time,global_step,score,train/ssim,validation/num_examples"
HEAD += ",validation/ssim"


def write(path: Path, *rows: str, head: str = HEAD, name: str = "eval_measurements.csv") -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / name).write_text("\n".join([head, *rows]) + "\n")


def row(seconds: float, step: int, value: float | str) -> str:
    return f"{seconds},{step},{seconds},0.5,3554,{value}"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    for study, seconds in (("study_0", 10.0), ("study_1", 30.0), ("study_2", 20.0)):
        run = tmp_path / "logs" / "nadamw" / study / "fastmri_jax"
        write(run / "trial_1", row(1, 1, 0.2), row(seconds, 50, 0.73))
        write(run / "trial_2", row(1, 1, 0.2), row(99, 400, 0.74))
    return tmp_path / "logs"


def test_every_trial_is_a_run(logs: Path):
    source = read_algoperf_logs(logs)
    assert source.problems == []
    assert len(source.records) == 6
    first = source.records[0]
    assert (first.workload, first.optimizer, first.metric) == ("fastmri", "nadamw", "ssim")
    assert (first.direction, first.condition) == (Direction.MAXIMIZE, "time")
    assert (first.step, first.train_seconds) == (50, 10.0)
    assert (first.tags["study"], first.tags["trial"], first.tags["framework"]) == (
        *("study_0", "trial_1", "jax"),
    )
    assert sorted(r.seed for r in source.records) == list(range(6))
    assert dict(first.evaluations[1].metrics) == {"train/ssim": 0.5, "validation/ssim": 0.73}
    times = study_times(source.records, {"fastmri": 0.723653}, Rules())
    assert times.loc["nadamw", "fastmri"] == 20.0


def test_one_submission_or_one_study_or_one_workload_can_be_read_alone(logs: Path):
    for inside in ("nadamw", "nadamw/study_0", "nadamw/study_0/fastmri_jax"):
        records = read_algoperf_logs(logs / inside).records
        assert {(r.optimizer, r.workload) for r in records} == {("nadamw", "fastmri")}
        assert "study_0" in {r.tags["study"] for r in records}


def test_restarted_experiments_are_one_submission_and_rulesets_stay_apart(tmp_path: Path):
    for name in ("a-2024-05-28-10-00-00", "a", "self/a"):
        write(tmp_path / name / "study_0" / "wmt_pytorch" / "trial_1", head="global_step,score")
    names = {r.optimizer for r in read_algoperf_logs(tmp_path).records}
    assert names == {"a", "self/a"}


def test_trial_10_comes_after_trial_9(tmp_path: Path):
    for trial in (10, 9, 1):
        write(tmp_path / "s" / "study_0" / "fastmri_jax" / f"trial_{trial}", row(trial, 1, 0.1))
    trials = [r.tags["trial"] for r in read_algoperf_logs(tmp_path).records]
    assert trials == ["trial_1", "trial_9", "trial_10"]


def test_logs_of_before_2024_have_their_evaluations_between_the_training_rows(tmp_path: Path):
    head = "global_step,grad_norm,loss,train/ssim,validation/ssim,score"
    write(
        tmp_path / "s" / "study_0" / "fastmri_jax" / "trial_1",
        *("0,1.5,0.9,,,", "1,,,0.2,0.21,5.5", "100,1.2,0.4,,,", "101,,,0.7,0.73,60"),
        head=head,
        name="measurements.csv",
    )
    source = read_algoperf_logs(tmp_path)
    assert [str(p) for p in source.problems] == [
        "s/study_0/fastmri_jax/trial_1: no eval_measurements.csv"
    ]
    (record,) = source.records
    assert [(e.step, e.train_seconds) for e in record.evaluations] == [(1, 5.5), (101, 60.0)]


def test_what_is_incomplete_is_told_run_by_run(logs: Path):
    run = logs / "nadamw" / "study_0" / "fastmri_jax"
    (run / "trial_3").mkdir()
    write(run / "trial_4", "0,1.5,0.9", head="global_step,grad_norm,loss", name="measurements.csv")
    write(run / "trial_5", row(1, 1, "nan"), row(2, 2, ""), "3,3,3,0.5", row(4, 4, "soon"))
    write(run / "trial_6", row(9, 9, 0.1), row(5, 5, 0.1))
    write(run / "trial_7")
    (run / "trial_8").mkdir()
    (run / "trial_8" / "eval_measurements.csv").touch()
    write(run / "trial_9", "1,2", head="global_step,validation/ssim")
    (logs / "nadamw" / "study_0" / "trial_1").mkdir()
    write(logs / "nadamw" / "study_0" / "my_own_jax" / "trial_1", row(1, 1, 0.1))
    source = read_algoperf_logs(logs)
    told: dict[str, list[str]] = {}
    for problem in source.problems:
        told.setdefault(problem.run.removeprefix("nadamw/study_0/"), []).append(problem.text)
    file = "eval_measurements.csv"
    assert told == {
        "fastmri_jax/trial_3": [f"no {file}; no measurements.csv"],
        "fastmri_jax/trial_4": [
            f"no {file}; measurements.csv has no column score or no column global_step; "
            "measurements.csv has no evaluation"
        ],
        "fastmri_jax/trial_5": [
            f"{file}, line 4 has 4 cells, not 6",
            f"{file}, line 5: could not convert string to float: 'soon'",
        ],
        "fastmri_jax/trial_6": ["evaluations out of order or repeated, as after a resume"],
        "fastmri_jax/trial_7": ["no evaluations"],
        "fastmri_jax/trial_8": ["no evaluations"],
        "fastmri_jax/trial_9": [
            f"{file} has no column score or no column global_step",
            "no evaluations",
        ],
        "my_own_jax/trial_1": [
            "my_own is no workload of AlgoPerf; judged by its loss",
            "no column validation/loss",
        ],
        "trial_1": ["expected <workload>_<framework>/trial_k"],
    }
    lost = {p.run.rsplit("/", 1)[1] for p in source.problems if p.lost}
    assert lost == {"trial_3", "trial_4", "trial_1"}
    assert len(source.records) == 6 + 6
    fifth = next(r for r in source.records if r.run_id.endswith("trial_5"))
    assert math.isnan(fifth.evaluations[0].metrics["validation/ssim"])
    assert "validation/ssim" not in fifth.evaluations[1].metrics


def test_evaluations_count_in_the_order_of_the_file(tmp_path: Path):
    """After a preemption rows may repeat: as in AlgoPerf the first that arrives decides."""
    write(
        tmp_path / "s" / "study_0" / "fastmri_jax" / "trial_1",
        *(row(50, 100, 0.8), row(40, 80, 0.1), row(60, 100, 0.8)),
    )
    records = read_algoperf_logs(tmp_path).records
    assert study_times(records, {"fastmri": 0.7}, Rules()).loc["s", "fastmri"] == 50.0


def test_budgets_are_taken_from_the_caller(logs: Path):
    assert {r.budget for r in read_algoperf_logs(logs, budgets={"fastmri": 8859}).records} == {8859}
    assert all(math.isnan(r.budget) for r in read_algoperf_logs(logs).records)


def test_a_directory_without_trials_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="found no directory trial_k"):
        read_algoperf_logs(tmp_path)
    with pytest.raises(UserError, match="found no directory trial_k"):
        read_algoperf_logs(tmp_path / "nowhere")
