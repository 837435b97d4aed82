"""Budgets transferred to other hardware, and prompts, against the paper's tables."""

from __future__ import annotations

import dataclasses
import re
from importlib import resources
from pathlib import Path

import pandas as pd
import pytest

from timetrial.bench import suite as suites
from timetrial.bench.commands.command import load_checked_suite
from timetrial.bench.timing.calibrate import calibrate, target_setter, windows
from timetrial.bench.timing.calibration import (
    calibration_tags,
    paper_reference,
    transfer,
    usual_cpu,
)
from timetrial.bench.timing.estimate import steps_within
from timetrial.framework.budget import Budget
from timetrial.framework.calibration import (
    Calibration,
    Reference,
    check_fits,
    load_calibration,
    save_calibration,
)
from timetrial.framework.config import (
    ConfigError,
    RunConfig,
    calibrated_seconds,
    workload_texts,
)
from timetrial.framework.errors import UserError
from timetrial.optimizers import OPTIMIZERS


def paper(name: str) -> pd.DataFrame:
    with (resources.files("timetrial.tracking") / "paper" / name).open() as file:
        return pd.read_csv(file)


TABLE_5 = {"criteo1tb": 11_387, "fastmri": 10_308, "imagenet_resnet": 81_783, "ogbg": 14_859}
TABLE_7 = {
    "criteo1tb": [7672, 7672],
    "fastmri": [38_227, 37_841],
    "imagenet_resnet": [158_572, 159_119],
    "ogbg": [79_248, 79_672],
}


@pytest.mark.parametrize("workload", TABLE_5)
def test_table_5_follows_from_the_papers_step_times(workload: str):
    row = paper("hardware_calibration.csv").set_index("workload").loc[workload]
    here = row[f"a100x{row['gpus_used']}_step_s"]
    found = transfer(paper_reference(workload, "v100x8"), here)
    assert found == TABLE_5[workload] == row["max_allowed_time_s"]


@pytest.mark.parametrize("workload", TABLE_5)
@pytest.mark.parametrize("name", ["v100x8", "a100x1", "a100x2"])
def test_every_machine_of_the_paper_carries_over_the_same_budget(workload: str, name: str):
    reference = paper_reference(workload, name)
    assert transfer(reference, 0.5) == transfer(paper_reference(workload, "v100x8"), 0.5)
    assert transfer(reference, reference.step_seconds) == int(reference.runtime_seconds)


def test_the_example_of_appendix_a():
    reference = paper_reference("criteo1tb", "v100x8")
    assert transfer(reference, 1.067542214) == 11_387
    assert reference.step_seconds == pytest.approx(0.7221336833, abs=1e-10)
    assert reference.runtime_seconds == 7703


@pytest.mark.parametrize("workload", TABLE_7)
def test_table_7_follows_from_budget_and_step_time(workload: str):
    budgets = paper("targets.csv").query("condition == 'time'").set_index("workload")["budget"]
    rows = paper("velo_step_estimate.csv").query("workload == @workload")
    assert budgets[workload] == TABLE_5[workload]
    single = [steps_within(budgets[workload], [seconds]) for seconds in rows["step_s"]]
    assert single == TABLE_7[workload] == rows["estimated_total_steps"].tolist()
    both = steps_within(budgets[workload], rows["step_s"].tolist())
    assert both == rows["trial1_estimated_steps"].iloc[0]


def test_short_budgets_keep_their_milliseconds():
    assert transfer(Reference("x", 10.0, 1.0), 0.33333) == 3.333
    assert transfer(Reference("x", 300.0, 1.0), 0.99999) == 299


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_times_must_be_positive(seconds: float):
    with pytest.raises(ValueError, match="expected a time > 0"):
        transfer(Reference("x", 10.0, 1.0), seconds)
    with pytest.raises(ValueError, match="expected step_seconds > 0"):
        Reference("x", 10.0, seconds)


def test_windows_are_equal_and_behind_the_warm_up():
    seconds = [100.0, 200.0, 203.0, 204.0, 205.0, 206.0, 216.0, 226.0]
    assert windows(seconds, warm_up_steps=2, count=3) == (2.0, 1.0, 10.0)
    assert windows(seconds, warm_up_steps=2, count=4) == (1.0, 1.0, 10.0, 10.0)
    assert windows(seconds, warm_up_steps=7, count=1) == (10.0,)
    for warm_up, count in ((0, 3), (6, 3), (3, 0)):
        with pytest.raises(ValueError, match="expected a warm-up"):
            windows(seconds, warm_up_steps=warm_up, count=count)


def test_target_setting_algorithms_are_the_papers_and_exist_here():
    assert {w: target_setter(w) for w in TABLE_5} == {
        "criteo1tb": "nadamw",
        "fastmri": "nesterov",
        "imagenet_resnet": "heavy_ball",
        "ogbg": "nesterov",
    }
    assert target_setter("flights_dlrm") == suites.PACEMAKER
    assert {target_setter(w) for w in (*TABLE_5, "flights_dlrm")} <= set(OPTIMIZERS)


def made(**fields: object) -> Calibration:
    config = suites.load_run(["workload=flights_dlrm", "optimizer=adam"])
    calibration = Calibration(
        workload="flights_dlrm",
        workload_settings=workload_texts(config.workload),
        optimizer="heavy_ball",
        steps=60,
        warm_up_steps=12,
        window_step_seconds=(0.1, 0.2, 0.15),
        step_seconds=0.15,
        spread=0.1 / 0.15,
        reference=Reference("v100x8", 7703.0, 0.72),
        budget_seconds=12.5,
        date="2024-02-29",
        hardware={"host": "alpha", "host_cores": "2"},
        versions={"jax": "0.9.0"},
        cpu_seconds_per_second=1.75,
    )
    return dataclasses.replace(calibration, **fields)


def test_a_calibration_file_reads_back_and_is_readable(tmp_path: Path):
    path = tmp_path / "calibrations" / "flights_dlrm.yaml"
    save_calibration(made(), path)
    assert load_calibration(path) == made()
    text = path.read_text()
    assert "budget_seconds: 12.5" in text
    assert "date: '2024-02-29'" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.replace("step_seconds: 0.15\n", "", 1), "lacks"),
        (lambda s: s.replace("budget_seconds: 12.5", "budget_seconds: 0"), "budget_seconds > 0"),
        (lambda s: s.replace("budget_seconds: 12.5", "budget_seconds: soon"), "no calibration"),
        (lambda s: s.replace("runtime_seconds", "runtime"), "no calibration"),
        (lambda s: "[1, 2]", "expected a mapping"),
        (lambda s: "{", "not valid YAML"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change, message: str):
    path = tmp_path / "c.yaml"
    save_calibration(made(), path)
    path.write_text(change(path.read_text().partition("\n")[2]))  # without its checksum
    with pytest.raises(UserError, match=re.escape(message)):
        load_calibration(path)


def test_a_changed_number_is_noticed(tmp_path: Path):
    path = tmp_path / "c.yaml"
    save_calibration(made(), path)
    path.write_text(path.read_text().replace("budget_seconds: 12.5", "budget_seconds: 13.5"))
    with pytest.raises(UserError, match="changed since it was written"):
        load_calibration(path)


def test_files_that_are_missing_or_cannot_be_written_are_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        load_calibration(tmp_path / "nowhere.yaml")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        save_calibration(made(), tmp_path / "file" / "c.yaml")


def check(calibration: Calibration, config: RunConfig) -> None:
    check_fits(calibration, config.workload.name, workload_texts(config.workload), "here")


def test_a_calibration_of_something_else_is_refused(tmp_path: Path):
    config = suites.load_run(["workload=flights_dlrm", "optimizer=nesterov", "budget.seconds=3"])
    check(made(), config)
    other = suites.load_run(["workload=flights_dlrm", "workload.batch_size=64", "optimizer=adam"])
    with pytest.raises(UserError, match=r"workload\.batch_size=64, got workload\.batch_size=512"):
        check(made(), other)
    gnn = suites.load_run(["workload=assays_gnn", "optimizer=adam"])
    path = tmp_path / "c.yaml"
    save_calibration(made(), path)
    with pytest.raises(UserError, match="workload=assays_gnn, got workload=flights_dlrm"):
        calibrated_seconds(path, gnn.workload, "here")
    assert calibrated_seconds(path, config.workload, "here") == 12.5


@pytest.mark.parametrize(
    ("setting", "difference"),
    [
        ("batch_size=4096", r"workload\.batch_size=4096, got workload\.batch_size=512"),
        ("step_hint=7", r"workload\.step_hint=7, got workload\.step_hint="),
        ("eval_every_steps=9", r"workload\.eval_every_steps=9, got workload\.eval_every_steps="),
    ],
)
@pytest.mark.parametrize("where", ["run", "suite"])
def test_every_setting_of_the_workload_is_compared(
    tmp_path: Path, setting: str, difference: str, where: str
):
    """A file measured at batch size 512 was accepted for a run at 4096."""
    save_calibration(made(), tmp_path / "flights_dlrm.yaml")
    preset = tmp_path / "p" / "flights_dlrm.yaml"
    preset.parent.mkdir()
    key, value = setting.split("=")
    preset.write_text(f"workload: {{name: flights_dlrm, {key}: {value}}}\nbudget: {{steps: 9}}\n")
    run = ["workload=flights_dlrm", "optimizer=adam", f"workload.{setting}"]
    run += [f"budget.calibration={tmp_path / 'flights_dlrm.yaml'}"]
    suite = [f"presets={preset.parent}", f"calibrations={tmp_path}", "conditions=time"]
    suite += ["workloads=flights_dlrm", "optimizers=adam"]
    with pytest.raises(ConfigError, match=difference):
        _ = suites.load_run(run) if where == "run" else load_checked_suite(suite)


def test_a_file_without_cpu_seconds_is_read(tmp_path: Path):
    path = tmp_path / "c.yaml"
    save_calibration(made(), path)
    budget = Budget(seconds=12.5, calibration=str(path))
    assert usual_cpu(budget) == 1.75
    assert usual_cpu(dataclasses.replace(budget, charge_compile=True)) is None
    assert usual_cpu(Budget(seconds=12.0, calibration=str(path))) is None  # of another file
    text = path.read_text().partition("\n")[2]  # older files have no checksum either
    path.write_text(text.replace("cpu_seconds_per_second: 1.75\n", ""))
    assert load_calibration(path) == made(cpu_seconds_per_second=None)
    assert usual_cpu(budget) is None
    assert usual_cpu(Budget(seconds=12.5)) is None


def test_a_run_takes_its_budget_from_a_calibration_file(tmp_path: Path):
    path = tmp_path / "c.yaml"
    save_calibration(made(), path)
    words = ["workload=flights_dlrm", "optimizer=adam", f"budget.calibration={path}"]
    config = suites.load_run(words)
    assert config.budget == Budget(seconds=12.5, calibration=str(path))
    assert config.budget.condition == "time"
    preset = tmp_path / "preset.yaml"
    preset.write_text(f"workload: flights_dlrm\nbudget: {{calibration: {path}}}\n")
    from_preset = suites.load_run([f"preset={preset}", "optimizer=adam"])
    assert from_preset.budget == config.budget
    # As with steps and seconds, the limit that is given replaces the preset's.
    over = suites.load_run([f"preset={preset}", "optimizer=adam", "budget.steps=7"])
    assert over.budget == Budget(steps=7)
    steps = tmp_path / "steps.yaml"
    steps.write_text("workload: flights_dlrm\nbudget: {steps: 150}\n")
    replaced = suites.load_run([f"preset={steps}", *words[1:]])
    assert replaced.budget == config.budget
    with pytest.raises(ConfigError, match="workload=assays_gnn, got workload=flights_dlrm"):
        suites.load_run(["workload=assays_gnn", *words[1:]])
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere"):
        suites.load_run([*words[:2], "budget.calibration=nowhere.yaml"])
    with pytest.raises(ConfigError, match=r"budget\.calibration goes with budget\.seconds"):
        suites.load_run([*words, "budget.steps=3"])


def test_where_the_seconds_come_from_is_no_part_of_what_is_run(tmp_path: Path):
    from timetrial.framework.config import digest

    path = tmp_path / "c.yaml"
    save_calibration(made(), path)
    words = ["workload=flights_dlrm", "optimizer=adam"]
    calibrated = suites.load_run([*words, f"budget.calibration={path}"])
    assert digest(calibrated) == digest(suites.load_run([*words, "budget.seconds=12.5"]))


def test_tags_say_which_calibration_the_budget_comes_from(tmp_path: Path):
    path = tmp_path / "c.yaml"
    save_calibration(made(), path)
    tags = calibration_tags(Budget(seconds=12.5, calibration=str(path)))
    assert len(tags["calibration"]) == 12
    assert tags["calibration.reference"] == "v100x8"
    assert tags["calibration.date"] == "2024-02-29"
    save_calibration(made(budget_seconds=13.0), path)
    assert set(calibration_tags(Budget(seconds=12.5, calibration=str(path)))) == {
        "calibration.file"
    }
    again = calibration_tags(Budget(seconds=13.0, calibration=str(path)))
    assert again["calibration"] != tags["calibration"]
    path.unlink()
    assert set(calibration_tags(Budget(seconds=13.0, calibration=str(path)))) == {
        "calibration.file"
    }
    assert calibration_tags(Budget(seconds=13.0)) == {}


@pytest.mark.parametrize(
    ("workload", "options", "message"),
    [
        ("flights", {}, "did you mean 'flights_dlrm'"),
        ("flights_dlrm", {"reference": "v100x8"}, "no time per step for flights_dlrm"),
        ("flights_dlrm", {"reference": "v100"}, "expected v100x8, a100x1, a100x2 or a calibration"),
        ("flights_dlrm", {"share": 0.0}, "--share: expected"),
        ("flights_dlrm", {"share": 1.5}, "--share: expected"),
        ("flights_dlrm", {"warm_up_steps": 0}, "--warm-up"),
        ("flights_dlrm", {"warm_up_steps": 19}, "--warm-up"),
        ("flights_dlrm", {"window_count": 0}, "windows"),
        ("flights_dlrm", {"overrides": ["budget.seconds=3"]}, "expected budget.steps"),
        ("flights_dlrm", {"overrides": ["workload.batch=3"]}, "did you mean"),
    ],
)
def test_bad_input_is_refused_before_anything_is_run(workload: str, options: dict, message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        calibrate(workload, **options, date="2024-02-29")
