"""AlgoPerf's log directories as runs, complete or not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from timetrial.framework.errors import UserError
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Direction, Split
from timetrial.tracking.read.algoperf_logs import read_algoperf_logs
from timetrial.tracking.read.sources import Source
from timetrial.tracking.scores.algoperf import study_times
from timetrial.tracking.scores.algoperf_rules import Rules
from timetrial.tracking.scores.targets import trial_times

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
    found: dict[str, list[str]] = {}
    for problem in source.problems:
        found.setdefault(problem.run.removeprefix("nadamw/study_0/"), []).append(problem.text)
    file = "eval_measurements.csv"
    assert found == {
        "fastmri_jax/trial_3": [f"no {file}; no measurements.csv"],
        "fastmri_jax/trial_4": [
            f"no {file}; measurements.csv has no column score or no column global_step; "
            "measurements.csv has no evaluation"
        ],
        "fastmri_jax/trial_5": [
            f"{file}, line 4 has 4 cells, not 6",
            f"{file}, line 5: could not convert string to float: 'soon'",
        ],
        "fastmri_jax/trial_6": [
            "evaluations out of order or repeated, as after a resume",
            "charged seconds go back from 9 to 5; the larger value counts",
        ],
        "fastmri_jax/trial_7": ["no evaluations"],
        "fastmri_jax/trial_8": ["no evaluations"],
        "fastmri_jax/trial_9": [
            f"{file} has no column score or no column global_step",
            "no evaluations",
        ],
        "my_own_jax/trial_1": [
            "my_own is not a workload of AlgoPerf; scored by its loss",
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


def test_the_budget_is_the_longest_runtime_of_the_meta_data(logs: Path):
    trial = logs / "nadamw" / "study_0" / "fastmri_jax" / "trial_1"
    (trial / "meta_data_0.json").write_text('{"workload.max_allowed_runtime_sec": 8859}')
    (trial.parent / "trial_2" / "meta_data_0.json").write_text('{"cpu.count": 96}')
    budgets = [r.budget for r in read_algoperf_logs(logs).records]
    assert budgets[0] == 8859
    assert all(math.isnan(budget) for budget in budgets[1:])


def told(source: Source) -> list[str]:
    return [str(problem) for problem in source.problems]


def test_links_are_followed_so_that_no_rival_is_missing(logs: Path, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    run = elsewhere / "shampoo" / "study_0" / "fastmri_jax"
    write(run / "trial_1", row(5, 9, 0.8))
    write(elsewhere / "trial", row(7, 9, 0.8))
    (logs / "rival").symlink_to(elsewhere / "shampoo")
    (run / "trial_2").symlink_to(elsewhere / "trial")
    source = read_algoperf_logs(logs)
    assert told(source) == []
    rival = [r for r in source.records if r.optimizer == "rival"]
    assert [(r.run_id, r.train_seconds) for r in rival] == [
        ("rival/study_0/fastmri_jax/trial_1", 5.0),
        ("rival/study_0/fastmri_jax/trial_2", 7.0),
    ]
    times = study_times(source.records, {"fastmri": 0.7}, Rules(best_trial="evaluation"))
    assert times["fastmri"].to_dict() == {"nadamw": 20.0, "rival": 5.0}


def test_a_directory_is_read_once_whatever_leads_to_it(logs: Path):
    (logs / "again").symlink_to("nadamw")
    (logs / "nadamw" / "loop").symlink_to("..")
    (logs / "nadamw" / "study_0" / "itself").symlink_to("itself")
    (logs / "gone").symlink_to("nowhere")
    source = read_algoperf_logs(logs)
    assert len(source.records) == 6
    assert {r.optimizer for r in source.records} == {"nadamw"}
    assert sorted(told(source)) == [
        "again: the same directory as nadamw (left out)",
        "gone: cannot be read (No such file or directory) (left out)",
        "nadamw/loop: the same directory as . (left out)",
        "nadamw/study_0/itself: cannot be read (Too many levels of symbolic links) (left out)",
    ]


def test_logs_in_a_directory_of_another_name_are_told(logs: Path):
    write(logs / "nadamw" / "study_0" / "fastmri_jax" / "trial_3_old", row(1, 1, 0.9))
    source = read_algoperf_logs(logs)
    assert len(source.records) == 6
    assert told(source) == [
        "nadamw/study_0/fastmri_jax/trial_3_old: expected a directory name trial_k for logs "
        "(left out)"
    ]


def one(tmp_path: Path, *rows: str, head: str = HEAD) -> tuple[RunRecord, list[str]]:
    write(tmp_path / "s" / "study_0" / "fastmri_jax" / "trial_1", *rows, head=head)
    source = read_algoperf_logs(tmp_path)
    (record,) = source.records
    return record, [problem.text for problem in source.problems]


def time_of(record: RunRecord, target: float = 0.7) -> float:
    return float(study_times([record], {"fastmri": target}, Rules()).loc["s", "fastmri"])


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path):
    record, problems = one(tmp_path, row(50, 100, 0.8), head="\ufeff" + HEAD)
    assert problems == []
    assert (record.train_seconds, time_of(record)) == (50.0, 50.0)
    record, problems = one(tmp_path, "100,50,0.8", head="\ufeffglobal_step,score,validation/ssim")
    assert problems == []
    assert (record.step, time_of(record)) == (100, 50.0)


def test_of_a_repeated_column_the_first_filled_cell_counts(tmp_path: Path):
    record, problems = one(
        tmp_path,
        "1,1,0.2,,",
        "50,100,0.8,,",
        "60,,0.9,200,60",
        head="score,global_step,validation/ssim,global_step,score",
    )
    assert problems == [
        "eval_measurements.csv repeats global_step, score; the first filled cell counts"
    ]
    assert [(r.step, r.train_seconds) for r in record.evaluations] == [(1, 1), (100, 50), (200, 60)]
    assert time_of(record) == 50.0
    record, _ = one(tmp_path, "1,1,0.8,", head="score,global_step,validation/ssim,validation/ssim")
    assert time_of(record) == 1.0


def test_an_empty_step_does_not_lose_the_evaluation(tmp_path: Path):
    rows = (
        "1,1,1,0.5,3554,0.1",
        "20,,20,0.5,3554,0.8",
        "30,1e400,30,0.5,3554,0.9",
        row(40, 400, 0.9),
    )
    record, problems = one(tmp_path, *rows)
    assert problems == ["eval_measurements.csv: 2 evaluations without a global_step"]
    assert [r.step for r in record.evaluations] == [1, 2, 3, 400]
    assert time_of(record) == 20.0
    found = trial_times([record], {"fastmri": 0.7}, Split.VALIDATION, "seconds")
    assert found["value"].tolist() == [20.0]  # the other scorer agrees


def test_charged_seconds_that_go_back_are_told_and_what_was_charged_stays_charged(tmp_path: Path):
    """AlgoPerf's scorer takes the 5 s as written."""
    record, problems = one(tmp_path, row(10, 100, 0.1), row(20, 200, 0.1), row(5, 300, 0.8))
    assert problems == ["charged seconds go back from 20 to 5; the larger value counts"]
    assert time_of(record) == 20.0
    found = trial_times([record], {"fastmri": 0.7}, Split.VALIDATION, "seconds")
    assert found["value"].tolist() == [20.0]


def test_a_time_only_in_the_second_column_counts(tmp_path: Path):
    record, problems = one(tmp_path, "50,100,,0.5,3554,0.8")
    assert (problems, time_of(record)) == ([], 50.0)


def test_a_directory_without_trials_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="found no directory trial_k"):
        read_algoperf_logs(tmp_path)
    with pytest.raises(UserError, match="found no directory trial_k"):
        read_algoperf_logs(tmp_path / "nowhere")
