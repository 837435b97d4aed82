"""Pools of machines: their file, the admission of a node, the command, the tags of runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tiny_suite

from timetrial.bench import suite as suites
from timetrial.bench.cli import main
from timetrial.bench.launch import admission as admissions
from timetrial.bench.launch import pooling
from timetrial.bench.launch.admission import (
    Admission,
    admission,
    hardware_differences,
    judged,
    machine_tags,
    measured_step_seconds,
    pool_tags,
    reference_run,
)
from timetrial.bench.launch.pool import Pool, PoolCalibration, load_pool, save_pool
from timetrial.bench.launch.pooling import make_pool
from timetrial.bench.planning import planned, time_budget
from timetrial.bench.suite import Suite
from timetrial.bench.workshop import Workshop
from timetrial.framework.config import Tracking, digest, workload_texts
from timetrial.framework.errors import ConfigError, UserError
from timetrial.framework.machine import cores_text, usable_cores
from timetrial.framework.records import Row
from timetrial.framework.types import Status
from timetrial.tracking.record.journal import RunHeader
from timetrial.tracking.store.opening import open_store
from timetrial.tracking.store.recording import start_recording
from timetrial.workloads import WORKLOADS

TINY = {"workload.step_hint": "60", "workload.eval_every_steps": "25"}
CALIBRATION = PoolCalibration(TINY, "heavy_ball", 0.01, 0.02, "2026-01-31")
VERSIONS = {"python": "3.12.4", "jax": "0.9.0", "jaxlib": "0.9.0"}
POOL = Pool("lab", "gpu", "H100", 1, "Xeon", 8, "550.1", VERSIONS, {"tiny": CALIBRATION})


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_suite.register(monkeypatch, tmp_path, steps=60, eval_every_steps=25)
    (tmp_path / "s.yaml").write_text(
        "summary: x\npresets: p\nworkloads: [tiny]\noptimizers: [adam]\n"
    )
    monkeypatch.chdir(tmp_path)


def this_machine(**changed: object) -> Pool:
    """A pool that this machine belongs to."""
    here = machine_tags()
    pool = Pool(
        name="lab",
        device_platform=here["device_platform"],
        device_kind=here["device_kind"],
        device_count=int(here["device_count"]),
        host_cpu=here["host_cpu"],
        host_cores=int(here["host_cores"]),
        driver="",
        versions={name: here[f"version.{name}"] for name in VERSIONS},
        calibrations={"tiny": CALIBRATION},
    )
    return dataclasses.replace(pool, **changed)


def takes(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of the reference run takes so long."""
    for module in (admissions, pooling):
        monkeypatch.setattr(module, "measured_step_seconds", lambda program: seconds)


# The file


def test_a_pool_is_read_as_it_was_written():
    save_pool(POOL, Path("pools/lab.yaml"))
    assert load_pool("lab") == load_pool("pools/lab.yaml") == POOL
    Path("pools/lab.yaml").rename("elsewhere.yaml")
    assert load_pool("elsewhere.yaml") == POOL


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("device_kind: H100", "device_kin: H100", r"line 5: unknown config key 'device_kin'"),
        ("host_cores: 8", "host_cores: many", r"lab\.yaml: host_cores: .*whole number"),
        ("host_cores: 8", "host_cores: 0", r"host_cores: expected a value >= 1, got 0"),
        ("    optimizer: heavy_ball\n", "", r"calibrations\.tiny\.optimizer: expected a value"),
        ("step_seconds: 0.01", "step_seconds: 0", r"calibrations\.tiny\.step_seconds: .*> 0"),
        ("step_seconds: 0.01", "pace: 0.01", r"unknown config key 'calibrations\.tiny\.pace'"),
        ("  jaxlib: 0.9.0\n", "", r"versions: expected those of python, jax, jaxlib, got python"),
        ("name: lab", "name: a/b", r"name: expected at most 64 letters"),
        ("name: lab", "name: other", r"expected name: lab, got name: other"),
        ("driver: '550.1'\n", "", r"driver: expected a value"),
    ],
)
def test_a_wrong_pool_is_refused_by_file_and_key(old: str, new: str, expected: str):
    path = Path("pools/lab.yaml")
    save_pool(dataclasses.replace(POOL, driver="'550.1'"), path)
    text = path.read_text().replace("driver: '''550.1'''", "driver: '550.1'")
    assert old in text
    path.write_text("".join(text.replace(old, new).splitlines(keepends=True)[1:]))
    with pytest.raises(ConfigError, match=expected) as refused:
        load_pool("lab")
    assert "pools/lab.yaml" in str(refused.value)


def test_a_changed_byte_and_a_missing_file_are_noticed():
    save_pool(POOL, Path("pools/lab.yaml"))
    text = Path("pools/lab.yaml").read_text()
    Path("pools/lab.yaml").write_text(text.replace("0.01", "0.02"))
    with pytest.raises(ConfigError, match="the file was changed"):
        load_pool("lab")
    with pytest.raises(ConfigError, match=r"found none\. Known: lab; .*timetrial pool NAME"):
        load_pool("lba")
    with pytest.raises(ConfigError, match="expected at most 64 letters"):
        load_pool("../lab")


def test_the_tag_tells_machines_apart_and_outlives_a_further_workload():
    assert POOL.tag.startswith("lab@")
    more = {"tiny": CALIBRATION, "other": CALIBRATION}
    assert dataclasses.replace(POOL, calibrations=more).tag == POOL.tag
    for changed in (
        {"device_kind": "A100"}, {"device_count": 2}, {"host_cpu": "EPYC"}, {"host_cores": 4},
        {"driver": "551"}, {"versions": {**VERSIONS, "jax": "0.9.1"}}, {"name": "b"},
    ):  # fmt: skip
        assert dataclasses.replace(POOL, **changed).tag != POOL.tag
    assert POOL.identity("tiny") == {"pool": POOL.tag, "pool.step_seconds": "0.01"}
    with pytest.raises(ConfigError, match=r"\(tiny\), got nope; .*timetrial pool lab workloads="):
        POOL.identity("nope")


# Admission


def test_differences_are_listed_by_tag():
    here = {**POOL.machine, "device_count": "8", "version.jax": "0.9.1", "host": "n1"}
    del here["driver"]
    assert hardware_differences(POOL, here) == {
        "device_count": ("1", "8"),
        "driver": ("550.1", "unknown"),
        "version.jax": ("0.9.0", "0.9.1"),
    }
    assert hardware_differences(dataclasses.replace(POOL, driver=""), POOL.machine) == {}
    assert hardware_differences(this_machine()) == {}


@pytest.mark.parametrize(
    ("seconds", "admitted"),
    [(0.01, True), (0.0104, True), (0.0096, True), (0.0106, False), (0.0094, False), (0.03, False)],
)
def test_slow_and_fast_machines_are_refused(
    seconds: float, admitted: bool, monkeypatch: pytest.MonkeyPatch
):
    takes(seconds, monkeypatch)
    found = admission(this_machine(), "tiny")
    assert found.ratio == pytest.approx(seconds / 0.01)
    assert found.admitted is admitted
    assert ("allowed: 0.95 to 1.05 times" in found.reason) is not admitted


def test_other_hardware_is_refused_without_a_measurement(monkeypatch: pytest.MonkeyPatch):
    takes(float("nan"), monkeypatch)
    found = admission(this_machine(device_count=8), "tiny")
    assert (found.ratio, found.admitted) == (None, False)
    assert "device_count: expected 8, got 1" in found.reason
    with pytest.raises(ConfigError, match="got nope"):
        admission(this_machine(), "nope")


def test_one_disturbed_group_does_not_count(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[int, int]] = []

    def groups(program: object, count: int, number: int) -> tuple[float, ...]:
        asked.append((count, number))
        return (0.5, 0.1, 0.11, 0.1, 0.9)

    monkeypatch.setattr(admissions, "warm_step_seconds", groups)
    assert measured_step_seconds(None) == 0.11
    assert asked == [(4, 5)]  # 20 steps that take a second or more

    monkeypatch.setattr(
        admissions, "warm_step_seconds", lambda _, count, n: asked.append((count, n)) or (1e-3,) * n
    )
    measured_step_seconds(None)
    assert asked[-1] == (200, 5)  # short steps fill a second


def test_a_node_is_admitted_by_real_steps(monkeypatch: pytest.MonkeyPatch):
    """The ratio is the machine's own business; what follows from it is not."""
    workshop = Workshop()
    monkeypatch.setattr(admissions, "LEAST_SECONDS", 0.0)
    pool = make_pool("lab", {"tiny": TINY}, date="2026-01-31")
    assert hardware_differences(pool) == {}
    step = pool.calibrations["tiny"].step_seconds
    assert 1e-6 < step < 1
    found = admission(pool, "tiny", workshop)
    assert found == judged(pool, "tiny", found.ratio * step)
    assert 0.01 < found.ratio < 100
    slow = dataclasses.replace(pool.calibrations["tiny"], step_seconds=1000 * step)
    refused = admission(dataclasses.replace(pool, calibrations={"tiny": slow}), "tiny", workshop)
    assert not refused.admitted
    assert refused.ratio < 0.5


def test_settings_of_every_workload_are_read_back_from_their_texts():
    for name in WORKLOADS.built_in:
        texts = workload_texts(suites.load_run([f"workload={name}", "optimizer=adam"]).workload)
        assert workload_texts(reference_run(name, texts, "heavy_ball").workload) == texts
    with pytest.raises(ConfigError, match=r"workload\.stephint"):
        reference_run("tiny", {"workload.stephint": "3"}, "heavy_ball")


def test_tags_of_a_run_in_a_pool(monkeypatch: pytest.MonkeyPatch):
    here = {"gpu_uuid": "GPU-a", "cpu_affinity": "0-7", "driver": "550.1", "host": "n1"}
    monkeypatch.setattr(admissions, "host_tags", lambda: here)
    del here["host"]
    assert pool_tags(POOL, Admission("tiny", 1.01234, True)) == {
        "pool": POOL.tag,
        "pool.step_seconds": "0.01",
        "admission_ratio": "1.0123",
        **here,
    }
    with pytest.raises(ValueError, match="expected a machine admitted to pool lab: too slow"):
        pool_tags(POOL, Admission("tiny", 1.3, False, "too slow"))


def test_on_a_cpu_there_is_no_gpu_and_no_driver():
    found = pool_tags(this_machine(), Admission("tiny", 1.0, True))
    assert set(found) == {"pool", "pool.step_seconds", "admission_ratio", "cpu_affinity"}
    assert found["cpu_affinity"] == cores_text(usable_cores())


# The command


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["pool", *words])
    return int(ended.value.code or 0)


def test_the_command_makes_checks_and_extends_a_pool(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    takes(0.01, monkeypatch)
    assert run("lab", "suite=s.yaml") == 0
    made = load_pool("lab")
    assert made.calibrations["tiny"].workload_settings == TINY
    assert f"pool {made.tag} written to pools/lab.yaml" in capsys.readouterr().out
    takes(0.0101, monkeypatch)
    assert run("lab", "suite=s.yaml") == 0  # the same machine: kept
    assert load_pool("lab") == made
    assert run("lab", "--check") == 0
    out = capsys.readouterr().out
    assert "1.010 times the pool's seconds per step" in out
    assert f"this machine belongs to pool {made.tag}" in out
    takes(0.02, monkeypatch)
    assert run("lab", "--check", "suite=s.yaml") == 1
    assert "does not belong" in capsys.readouterr().out
    assert load_pool("lab") == made
    assert run("lab", "suite=s.yaml", "--replace") == 0
    assert load_pool("lab").calibrations["tiny"].step_seconds == 0.02


def test_another_pool_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    takes(0.01, monkeypatch)
    path = Path("pools/lab.yaml")
    other = this_machine(host_cores=4096)
    save_pool(other, path)
    assert run("lab", "suite=s.yaml") == 2
    assert "host_cores: expected 4096, got" in capsys.readouterr().err
    assert run("lab", "--check") == 1
    out = capsys.readouterr().out
    assert "host_cores               expected 4096, got" in out
    settings = {**TINY, "workload.step_hint": "61"}
    changed = dataclasses.replace(CALIBRATION, workload_settings=settings)
    save_pool(this_machine(calibrations={"tiny": changed}), path)
    assert run("lab", "suite=s.yaml") == 2
    assert "tiny: workload.step_hint: expected 61, got 60" in capsys.readouterr().err
    assert run("lab", "suite=s.yaml", "--replace") == 0
    assert load_pool("lab").calibrations["tiny"].workload_settings == TINY


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["lab", "--check"], "expected a file pools/lab.yaml, found none"),
        (["lab", "--check", "--replace"], "expected one of them, got both"),
        (["a b", "suite=s.yaml"], "expected at most 64 letters"),
        (["lab", "suite=none"], "unknown suite 'none'"),
        (["lab", "suite=s.yaml", "workload=[tiny]"], "did you mean 'workloads'"),
        ([], "required: NAME"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
):
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not Path("pools").exists()


# Time budgets


def test_the_seconds_of_a_pool_are_those_of_its_own_reference_run(tmp_path: Path):
    tracking = Tracking(uri=f"sqlite:///{tmp_path}/m.db", experiment="e", root=str(tmp_path / "r"))
    suite = Suite(*("s", "x", "p", ("tiny",), ("adam",), (0,)), conditions=("time",))
    store = open_store(tracking.uri, root=Path(tracking.root))
    store.experiment_id("e")
    pace = suites.pacemaker(suite, tracking, "tiny")
    other = dataclasses.replace(POOL, name="other", device_kind="A100")
    slower = dataclasses.replace(CALIBRATION, step_seconds=0.02)
    again = dataclasses.replace(POOL, calibrations={"tiny": slower})

    def record(seconds: float, tags: dict[str, str]) -> None:
        head = {
            "workload": "tiny", "optimizer": "heavy_ball", "seed": "0", "condition": "step",
            "budget": "60", "metric": "loss", "direction": "minimize", "config_hash": digest(pace),
        }  # fmt: skip
        run = start_recording(store, RunHeader("e", "reference", {**head, **tags}))
        run.log([Row(60, seconds, {"validation/loss": 0.5})])
        run.end(Status.FINISHED, {"stop_reason": "BUDGET", "diverged": "false"}, {})

    def budget(pool: Pool | None = None) -> float | None:
        return time_budget(suite, tracking, "tiny", store, pool)

    assert budget(POOL) is None
    record(1.5, {})
    assert (budget(), budget(POOL)) == (1.5, None)
    record(2.5, other.identity("tiny"))
    assert (budget(), budget(other), budget(POOL)) == (1.5, 2.5, None)
    record(3.5, POOL.identity("tiny"))
    assert (budget(), budget(other), budget(POOL), budget(again)) == (1.5, 2.5, 3.5, None)
    assert {config.budget.seconds for config in planned(suite, tracking, store, POOL)} == {3.5}
    with pytest.raises(UserError, match="got tiny"):
        budget(dataclasses.replace(POOL, calibrations={"other": CALIBRATION}))
