"""Plain tables of times as tables and as runs; fixed targets from tables and files."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import pandas as pd
import pytest

from timetrial.framework.errors import UserError
from timetrial.framework.records import RunRecord
from timetrial.tracking.read.times_csv import TARGET, read_times, records_from_times
from timetrial.tracking.report.paper import paper_times
from timetrial.tracking.scores.final_quality import final_quality
from timetrial.tracking.scores.fixed_targets import (
    algoperf_targets,
    named_targets,
    paper_targets,
)
from timetrial.tracking.scores.scoring import scores
from timetrial.tracking.scores.targets import targets, time_to_target


def lines(*rows: str) -> io.StringIO:
    return io.StringIO("\n".join(rows) + "\n")


def times(records: Sequence[RunRecord], condition: str = "time", split: str = "validation"):
    """Times to the targets that the records give."""
    unit = "seconds" if condition == "time" else "steps"
    goals = targets(records, split=split, condition=condition)
    return time_to_target(records, goals, split, unit, condition=condition)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_smallest_table(tmp_path: Path, mark: str):
    path = tmp_path / "t.csv"
    path.write_text(f"{mark}workload,value,optimizer\nw,10,a\nw,inf,b\nv,,a\n")
    source = records_from_times(path)
    assert source.problems == []
    table = times(source.records)
    assert table.loc["a"].to_dict() == {"v": math.inf, "w": 10.0}
    assert math.isnan(table.loc["b", "v"])
    assert scores(table, r_max=3).to_dict() == {"a": 0.5, "b": 0.0}


def test_a_run_from_times_is_0_before_its_time_and_1_from_then_on():
    one, never = records_from_times(lines("optimizer,workload,value", "a,w,10", "b,w")).records
    reached = [(r.train_seconds, r.metrics["validation/reached"]) for r in one.evaluations]
    assert reached == [(0.0, 0.0), (10.0, 1.0)]
    assert [r.metrics["validation/reached"] for r in never.evaluations] == [0.0]
    assert final_quality([one, never])["mean"].tolist() == [1.0, 0.0]


def test_rows_of_a_cell_are_its_trials():
    rows, _ = read_times(lines("optimizer,workload,value", "a,w,10", "a,w,inf", "a,w,30"))
    assert rows["seed"].tolist() == [0, 1, 2]
    source = records_from_times(lines("optimizer,workload,value", "a,w,10", "a,w,inf", "a,w,30"))
    assert times(source.records).loc["a", "w"] == 30


def test_bad_rows_are_told_by_line_and_left_out():
    rows, problems = read_times(
        lines(
            "optimizer,workload,value,condition,split,seed",
            "a,w,soon,,,",
            "a,w,-1,,,",
            "a,w,1,never,,",
            "a,w,1,,dev,",
            ",w,1,,,",
            "a,w,1,,,3",
            "a,w,2,,,3",
            "a,w,nan,step,test,",
        )
    )
    assert [problem.run for problem in problems] == [f"line {n}" for n in (2, 3, 4, 5, 6, 8)]
    assert all(problem.lost for problem in problems)
    assert "seed 3 occurs twice" in problems[-1].text
    assert rows["value"].tolist() == [1.0, math.inf]


def test_records_give_the_times_of_the_papers_tables_back():
    path = Path(str(resources.files("timetrial.tracking") / "paper" / "time_to_target.csv"))
    rows, problems = read_times(path)
    assert (len(rows), problems) == (112, [])
    source = records_from_times(path)
    assert source.problems == []
    assert len(source.records) == 2 * 7 * 4  # both splits of a run in one record
    for condition in ("time", "step"):
        for split in ("train", "validation"):
            assert set(targets(source.records, split=split, condition=condition)) == {TARGET}
            back = times(source.records, condition, split)
            pd.testing.assert_frame_equal(back, paper_times(condition, split), check_names=False)


def test_half_steps_cannot_be_a_runs():
    source = records_from_times(lines("optimizer,workload,value,unit", "a,w,4057.5,steps"))
    assert source.records == []
    assert "not a whole number of updates" in str(source.problems[0])


@pytest.mark.parametrize("text", ["", "optimizer,value\na,1\n", '"a\n'])
def test_other_files_are_refused(tmp_path: Path, text: str):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"times .*t\.csv"):
        read_times(path)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read"):
        read_times(tmp_path / "t.csv")


def test_the_papers_targets():
    time = paper_targets("time", "validation")
    assert time.to_dict() == {
        "criteo1tb": 0.12367,
        "fastmri": 0.72671,
        "imagenet_resnet": 0.71012,
        "ogbg": 0.27867,
    }
    assert paper_targets("step", "train")["ogbg"] == 0.76547
    with pytest.raises(UserError, match="expected columns workload and target"):
        paper_targets("step", "test")


def test_algoperfs_targets():
    found = algoperf_targets()
    assert found["imagenet_resnet"] == 0.77431
    assert found.index.is_monotonic_increasing


def test_targets_from_files(tmp_path: Path):
    long = tmp_path / "long.csv"
    long.write_text(
        "workload,split,condition,target\nw,train,time,1\nw,test,time,2\nw,test,step,3\n"
    )
    found = named_targets(str(long))
    assert found["time", "test"].to_dict() == {"w": 2}
    assert found["step", "test"].to_dict() == {"w": 3}
    wide = tmp_path / "wide.csv"
    wide.write_text("workload,train_target,validation_target\nw,1,2\nv,3,\n")
    found = named_targets(str(wide))
    assert found["time", "train"].to_dict() == {"w": 1, "v": 3}
    assert found["time", "validation"].to_dict() == {"w": 2}  # an empty cell gives no target
    theirs = tmp_path / "workload_targets.json"
    theirs.write_text(
        json.dumps({"workloads": {"w": {"validation_target_value": 0.5, "step_hint": 1}, "x": {}}})
    )
    assert named_targets(str(theirs))["time", "validation"].to_dict() == {"w": 0.5}
    theirs.write_text('{"w": 0.25}')
    assert named_targets(str(theirs))["step", "validation"].to_dict() == {"w": 0.25}


def test_every_target_of_a_file_by_condition_and_split(tmp_path: Path):
    path = tmp_path / "targets.csv"

    def found(text: str) -> dict[tuple[str, str], dict[str, float]]:
        path.write_text(text)
        return {key: series.to_dict() for key, series in named_targets(str(path)).items()}

    both = {("time", "validation"): {"w": 1.0}, ("step", "validation"): {"w": 1.0}}
    assert found("workload,target\nw,1\n") == both
    assert found("\ufeffworkload,target\nw,1\n") == both
    assert found("workload,condition,train_target\nw,step,2\n") == {("step", "train"): {"w": 2.0}}
    assert found("workload,split,target\nw,test,3\n") == {
        ("time", "test"): {"w": 3.0},
        ("step", "test"): {"w": 3.0},
    }
    with pytest.raises(UserError, match="expected at least one target, got none"):
        found("workload,target\n")
    theirs = tmp_path / "workload_targets.json"
    spec = {"validation_target_value": 0.5, "test_target_value": 0.6, "step_hint": 1}
    theirs.write_text(json.dumps({"workloads": {"w": spec}}), encoding="utf-8-sig")
    assert {split: series["w"] for (_, split), series in named_targets(str(theirs)).items()} == {
        "validation": 0.5,
        "test": 0.6,
    }


def test_targets_by_name():
    paper = named_targets("paper")
    assert set(paper) == {(c, s) for c in ("time", "step") for s in ("train", "validation")}
    assert paper["step", "train"].equals(paper_targets("step", "train"))
    assert named_targets("algoperf")["time", "validation"].equals(algoperf_targets())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", ""),
        ("t.csv", "workload,goal\nw,1\n"),
        ("t.csv", "workload,target\nw,1\nw,2\n"),
        ("t.csv", "workload,target\nw,soon\n"),
        ("t.json", "{"),
        ("t.json", "[1]"),
        ("t.json", '{"w": "soon"}'),
    ],
)
def test_bad_files_of_targets_are_refused(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="targets"):
        named_targets(str(tmp_path / name))


def test_a_wide_table_with_both_names_takes_the_submission(tmp_path: Path):
    path = tmp_path / "times.csv"
    path.write_text("submission,optimizer,a\nx,adam,3\ny,adam,5\n")
    source = records_from_times(path)
    assert [(run.optimizer, run.workload) for run in source.records] == [("x", "a"), ("y", "a")]
