"""The doctor's judgements, on made-up machines and on this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_suite

from timetrial.bench import cli
from timetrial.bench import suite as suites
from timetrial.bench.doctor import activity as machine
from timetrial.bench.doctor import command
from timetrial.bench.doctor.activity import (
    Activity,
    Process,
    cpu_quota,
    disk_free,
    governor,
    memory,
    observe,
)
from timetrial.bench.doctor.findings import (
    GIB,
    Level,
    StepTiming,
    activity_finding,
    core_findings,
    gpu_findings,
    machine_finding,
    space_findings,
    step_finding,
)
from timetrial.bench.timing.calibrate import calibrate
from timetrial.framework.calibration import Calibration, Reference, save_calibration
from timetrial.framework.config import Tracking
from timetrial.framework.errors import UserError

IDLE = Activity(1.0, 2, others=0.005, stolen=0.0, load=0.1)
BUSY = Activity(1.0, 2, 0.63, 0.0, 2.4, (Process(4242, "python", 0.98), Process(7, "x", 0.28)))


def test_other_processes_are_named_with_their_share():
    found = activity_finding(BUSY, "cpu")
    assert (found.level, found.topic) == (Level.FAIL, "processes")
    assert found.text == (
        "other processes use 63 % of the 2 usable cores: python (pid 4242) 98 %, x (pid 7) 28 %; "
        "load average 2.4"
    )
    assert found.remedy == "end them, or wait; at most 16 % is fit for time budgets"
    assert found.numbers == {"others": 0.63, "stolen": 0.0, "load": 2.4}
    assert activity_finding(IDLE, "cpu").level is Level.OK
    assert activity_finding(Activity(1.0, 2, 0.55, 0.0, 1.0), "gpu").level is Level.OK


def test_steal_and_unknown_systems():
    stolen = activity_finding(Activity(1.0, 1, 0.0, 0.2, None), "cpu")
    assert (stolen.level, stolen.text) == (
        Level.FAIL,
        "the hypervisor takes 20 % of the usable core",
    )
    unknown = activity_finding(Activity(1.0, 2, None, None, None), "cpu")
    assert unknown.level is Level.WARN
    assert "unknown" in unknown.text


def test_quota_and_governor():
    assert core_findings(2, None, None) == []
    assert core_findings(2, 2.0, "performance") == []
    (quota,) = core_findings(4, 1.5, "schedutil")
    assert quota.level is Level.WARN
    assert "allows 1.5 CPU seconds per second, of 4 usable cores" in quota.text
    assert "taskset -c 0-0" in quota.remedy
    (slow,) = core_findings(2, None, "powersave")
    assert (slow.topic, slow.level) == ("governor", Level.WARN)


def test_space():
    levels = [f.level for f in space_findings((GIB, 16 * GIB), GIB, "runs")]
    assert levels == [Level.WARN, Level.WARN]
    levels = [f.level for f in space_findings((8 * GIB, 16 * GIB), 50 * GIB, "runs")]
    assert levels == [Level.OK, Level.OK]
    (full,) = space_findings(None, 1000, "runs")
    assert full.level is Level.FAIL
    assert full.remedy
    assert space_findings(None, None, "runs") == []


def test_gpus():
    assert gpu_findings("cpu", {}) == []
    (unknown,) = gpu_findings("gpu", {})
    assert (unknown.level, unknown.remedy) == (Level.WARN, "pip install 'timetrial[gpu]'")
    (busy,) = gpu_findings("gpu", {0: 0, 1: 2})
    assert (busy.level, busy.text) == (Level.FAIL, "2 other processes on GPU 1")
    assert [f.level for f in gpu_findings("gpu", {0: 0, 1: None})] == [Level.OK]


TIMING = StepTiming("w", "heavy_ball", 20, 0.1, 0.05)


def calibration(**hardware: str) -> Calibration:
    return Calibration(
        workload="w",
        workload_settings={},
        optimizer="heavy_ball",
        steps=60,
        warm_up_steps=12,
        window_step_seconds=(0.1,),
        step_seconds=0.1,
        spread=0.0,
        reference=Reference("this machine", 6.0, 0.1),
        budget_seconds=6.0,
        date="2024-02-29",
        hardware={"host": "a", "host_cores": "2", **hardware},
        versions={"jax": "0.9.0", "python": "3.11.1"},
    )


@pytest.mark.parametrize(
    ("step_seconds", "level"),
    [(0.1, Level.OK), (0.109, Level.OK), (0.111, Level.FAIL), (0.089, Level.FAIL)],
)
def test_steps_against_the_calibration(step_seconds: float, level: Level):
    timing = StepTiming("w", "heavy_ball", 20, step_seconds, 0.05)
    found = step_finding(timing, calibration())
    assert found.level is level
    assert f"{step_seconds / 0.1:.2f} times the calibration of 2024-02-29" in found.text
    assert found.numbers["ratio"] == pytest.approx(step_seconds / 0.1)
    assert ("timetrial calibrate w" in found.remedy) is (level is Level.FAIL)


def test_steps_without_a_calibration():
    found = step_finding(TIMING, None)
    assert (found.level, found.text) == (
        Level.OK,
        "w with heavy_ball: 0.1 s per step (median of 20 steps, spread 5 %)",
    )
    assert step_finding(StepTiming("w", "x", 20, 0.1, 0.5), None).level is Level.WARN
    why = "Other processes used 48 % of the 2 cores during 1 charged seconds (allowed: 16 %)."
    busy = step_finding(StepTiming("w", "x", 20, 0.1, 0.01, why), None)
    assert busy.level is Level.FAIL
    assert busy.text.endswith(why)


def test_a_calibration_of_another_machine():
    here = {"host": "b", "host_cores": "2", "version.jax": "0.9.0", "version.python": "3.12"}
    assert machine_finding(calibration(), here) is None  # another node of one kind
    other = machine_finding(calibration(host_cores="64"), here)
    assert other is not None
    assert other.level is Level.FAIL
    assert other.text == "the calibration of w is of host_cores 64, not 2"
    newer = machine_finding(calibration(), {**here, "version.jax": "0.10.0"})
    assert newer is not None
    assert newer.level is Level.WARN


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_quotas_of_control_groups(tmp_path: Path):
    assert cpu_quota(tmp_path / "nothing") is None
    second = write(
        tmp_path / "v2",
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
        },
    )
    assert cpu_quota(second) == 1.5
    inside = write(
        tmp_path / "container",
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"},
    )
    assert cpu_quota(inside) == 0.5
    first = write(
        tmp_path / "v1",
        {
            "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/x\n1:name=systemd:/x\n0::/x\n",
            "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "300000\n",
            "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cpu_quota(first) == 3.0
    free = write(tmp_path / "free", {"proc/self/cgroup": "0::/\n"})
    write(free, {"sys/fs/cgroup/cpu.max": "max 100000\n"})
    assert cpu_quota(free) is None


def test_governors(tmp_path: Path):
    assert governor(tmp_path) is None
    place = "sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor"
    write(tmp_path, {place.format(0): "powersave\n", place.format(1): "powersave\n"})
    assert governor(tmp_path) == "powersave"
    write(tmp_path, {place.format(12): "performance\n"})
    assert governor(tmp_path) == "performance, powersave"


def test_this_machine(tmp_path: Path):
    found = observe(0.1)
    assert found.cores >= 1
    assert found.seconds >= 0.1
    assert found.others is None or 0 <= found.others <= 1
    assert all(process.pid != os.getpid() for process in found.busiest)
    free = disk_free(tmp_path / "not" / "yet")
    assert free is not None
    assert free > 0
    known = memory()
    assert known is None or 0 < known[0] <= known[1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_burner_is_found():
    """It has a part of a core beside whatever else runs; ended by its own number."""
    burner = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    try:
        found = observe(0.5)
    finally:
        burner.kill()
        burner.wait()
    assert found.others is not None
    assert found.others * found.cores > 0.1
    assert found.busiest
    assert found.busiest[0].share >= found.busiest[-1].share > 0.05


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    tiny_suite.register(monkeypatch, tmp_path, steps=40, eval_every_steps=10)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "summary: mine\npresets: p\nworkloads: [tiny]\noptimizers: [adam]\nseeds: [0]\n"
        "conditions: [step, time]\n"
    )
    return tmp_path


def on(monkeypatch: pytest.MonkeyPatch, activity: Activity) -> None:
    """Makes this machine busy or idle."""
    monkeypatch.setattr(machine, "observe", lambda: activity)


def called(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    return int(ended.value.code or 0)


def test_fit_and_not_fit(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    on(monkeypatch, IDLE)
    assert called("doctor", "suite=mine.yaml", "--no-steps") == 0
    said = capsys.readouterr().out
    assert "\nok    processes   other processes use 0 % of the 2 usable cores" in said
    assert "ok    mine        this suite can run: 1 workloads with their data, 1 optimizers" in said
    assert said.endswith("\nfit for time budgets now\n")
    assert f"jax {command.version_tags()['version.jax']}" in said
    on(monkeypatch, BUSY)
    assert called("doctor", "suite=mine.yaml", "--no-steps") == 1
    said = capsys.readouterr().out
    assert "fail  processes   other processes use 63 %" in said
    assert "\n                  -> end them, or wait" in said
    assert said.endswith("\nnot fit for time budgets now\n")
    assert not (tiny / "runs").exists()  # nothing is recorded


def test_json(tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    on(monkeypatch, BUSY)
    assert called("doctor", "suite=mine.yaml", "--json", "--no-steps") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["fit"] is False
    assert found["suite"] == "mine"
    busy = next(f for f in found["findings"] if f["topic"] == "processes")
    assert (busy["level"], busy["numbers"]["others"]) == ("fail", 0.63)
    assert "python 3." in found["machine"]["versions"]


def test_a_suite_that_cannot_run_is_told(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def absent(settings: object) -> object:
        raise UserError("its data is not here: expected /data/tiny; make it with: x")

    on(monkeypatch, IDLE)
    entry = tiny_suite.WorkloadEntry("tiny", tiny_suite.TinySettings, absent)
    monkeypatch.setitem(tiny_suite.WORKLOADS, "tiny", entry)
    assert called("doctor", "suite=mine.yaml", "--no-steps") == 1
    assert "fail  mine        this suite cannot run: its data is not here" in (
        capsys.readouterr().out
    )


def test_steps_are_timed_against_the_calibration(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    suite, _ = suites.load_suite(["suite=mine.yaml"])
    words = ["workload.step_hint=40", "workload.eval_every_steps=10"]
    made = calibrate("tiny", words, share=1.0, date="2024-02-29")
    save_calibration(made, tiny / "runs" / "calibrations" / "tiny.yaml")
    (found,) = command.step_findings(suite, Tracking())
    assert "tiny with heavy_ball" in found.text
    assert "times the calibration of 2024-02-29" in found.text
    assert found.numbers["step_seconds"] > 0
    assert found.numbers["spread"] >= 0
    other = calibrate("tiny", ["workload.step_hint=41", words[1]], share=1.0, date="2024-02-29")
    save_calibration(other, tiny / "runs" / "calibrations" / "tiny.yaml")
    unfit, timed = command.step_findings(suite, Tracking())
    assert (unfit.level, unfit.topic) == (Level.WARN, "calibration")
    assert "workload.step_hint=40, got workload.step_hint=41" in unfit.text
    assert "calibration of" not in timed.text


def test_bench_refuses_a_busy_machine_before_a_suite_with_time_budgets(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    raced: list[dict[str, object]] = []
    monkeypatch.setattr(
        "timetrial.bench.race.race",
        lambda suite, tracking, typed, **options: raced.append(options) or 0,
    )
    on(monkeypatch, BUSY)
    assert called("bench", "suite=mine.yaml") == 2
    said = capsys.readouterr().err
    assert (
        "not fit for time budgets now: other processes use 63 % of the 2 usable cores: python"
        in (said)
    )
    assert "--busy-machine" in said
    assert not raced
    assert not (tiny / "runs").exists()
    assert called("bench", "suite=mine.yaml", "--plan") == 0
    assert called("bench", "suite=mine.yaml", "conditions=step") == 0  # no seconds are scored
    assert called("bench", "suite=mine.yaml", "--busy-machine", "--include-suspect") == 0
    on(monkeypatch, IDLE)
    assert called("bench", "suite=mine.yaml") == 0
    assert raced == [
        {"repeat_suspect": True, "include_suspect": False},
        {"repeat_suspect": False, "include_suspect": True},
        {"repeat_suspect": True, "include_suspect": False},
    ]


def test_the_quick_suite_is_never_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Its budgets are steps: `make bench` must run on a busy machine."""
    monkeypatch.setattr("timetrial.bench.race.race", lambda suite, tracking, **options: 0)
    monkeypatch.chdir(tmp_path)
    on(monkeypatch, BUSY)
    assert called("bench", "suite=quick") == 0
