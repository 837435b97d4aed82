"""Workers in jobs of Slurm: what sbatch is given, the payload, preemption, and refusals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import launched
import pytest

from timetrial.bench.launch import launchers, slurm
from timetrial.bench.launch.driver import check
from timetrial.bench.launch.slurm import (
    Slurm,
    SlurmSettings,
    executor_of,
    folder_of,
    sbatch_parameters,
)
from timetrial.bench.launch.slurm_job import Work
from timetrial.bench.suite import load_suite
from timetrial.framework.config import ConfigError
from timetrial.framework.errors import UserError

submitit = pytest.importorskip("submitit")

GOLDEN = launched.ROOT / "tests" / "golden" / "slurm"

FILES = {
    "array.sbatch": SlurmSettings(
        workers=40,
        parallel=16,
        hours=24,
        partition="gpu",
        account="lab",
        qos="long",
        constraint="a100",
        gpus=1,
        cpus=8,
        memory_gb=62.5,
        pool="a100",
    ),
    "plain.sbatch": SlurmSettings(workers=2, hours=0.75, signal_seconds=60),
}


@pytest.mark.parametrize("name", FILES)
def test_the_sbatch_file_is_the_golden_one(name: str):
    settings = FILES[name]
    text = submitit.slurm.slurm._make_sbatch_string(
        command="python -u -m submitit.core._submit /shared/slurm",
        folder="/shared/slurm",
        map_count=settings.workers,
        **sbatch_parameters(settings),
    )
    assert text == (GOLDEN / name).read_text()


def test_a_node_is_exclusive_for_a_pool_unless_the_user_says_otherwise():
    for pool, exclusive, expected in (("", None, False), ("p", None, True), ("p", False, False)):
        found = sbatch_parameters(SlurmSettings(pool=pool, exclusive=exclusive))
        assert found.get("exclusive", False) is expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("workers=0", "launcher.workers: expected a whole number >= 1, got 0"),
        ("hours=0", "launcher.hours: expected a finite number > 0, got 0"),
        ("memory_gb=-1", "launcher.memory_gb: expected a finite number >= 0"),
        ("signal_seconds=90000", "launcher.signal_seconds: expected fewer than the 86400 of"),
        ("cluster=pbs", "launcher.cluster"),
        ("partitoin=gpu", "partition"),
    ],
)
def test_settings_out_of_range_are_refused(word: str, message: str):
    with pytest.raises(ConfigError, match=message):
        launchers.split(["launcher=slurm", f"launcher.{word}"])


def test_without_submitit_or_slurm_one_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="got one without srun"):
        executor_of(SlurmSettings(), tmp_path / "jobs")
    monkeypatch.setattr(slurm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "timetrial\[slurm\]"'):
        Slurm(SlurmSettings())


@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_a_store_that_other_machines_do_not_reach_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    chosen, words = launchers.split([f"launcher={name}"])
    suite, tracking = load_suite(["suite=quick", f"tracking.root={tmp_path}", *words])
    with pytest.raises(UserError, match=f"launcher={name}: expected tracking.uri=http"):
        check(chosen, suite, tracking)
    suite, tracking = load_suite(["suite=quick", "tracking.uri=http://127.0.0.1:1"])
    with pytest.raises(UserError, match="keeps no queue of runs"):
        check(chosen, suite, tracking)


def test_files_of_jobs_lie_in_the_root_unless_a_folder_is_named(tmp_path: Path):
    assert folder_of(SlurmSettings(), ["worker", "tracking.root=/data/runs"]) == Path(
        "/data/runs/slurm"
    )
    assert folder_of(SlurmSettings(folder=str(tmp_path)), []) == tmp_path
    assert folder_of(SlurmSettings(), []).name == "slurm"


def fake_worker(tmp_path: Path, code: str) -> Work:
    """A worker whose command line is a script, found before the installed one."""
    (tmp_path / "timetrial.py").write_text(code)
    return Work(["worker"], 3, str(tmp_path / "logs"), str(tmp_path))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # submitit leaves its logs open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_debug_executor_runs_the_payload(tmp_path: Path):
    launcher = Slurm(SlurmSettings(workers=1, cluster="debug", folder=str(tmp_path / "jobs")))
    assert not launcher.leaves_machine
    launcher.launch(["--version"], tmp_path / "logs")
    assert "timetrial" in (tmp_path / "logs" / "worker-0.log").read_text()
    with pytest.raises(UserError, match="every worker ended; see"):
        launcher.launch(["wurker"], tmp_path / "logs")
    assert "did you mean 'worker'" in (tmp_path / "logs" / "worker-0.log").read_text()


STUBBORN = """\
import signal, sys, time
def end(number, frame):
    print("saved after", signal.Signals(number).name, flush=True)
    time.sleep(0.3)
    sys.exit(128 + number)
signal.signal(signal.SIGHUP, end)
print("begun", flush=True)
time.sleep(60)
"""


def test_signals_of_slurm_reach_a_worker_as_one_sighup(tmp_path: Path):
    """SIGTERM, SIGUSR2 and SIGINT, which Slurm sends to all processes, do nothing to it."""
    work = fake_worker(tmp_path, STUBBORN)
    log = tmp_path / "logs" / "worker-3.log"
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(work()))
    thread.start()
    launched.wait_until(lambda: log.exists() and "begun" in log.read_text())
    process = work._child._process
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        process.send_signal(number)
    time.sleep(0.2)
    assert process.poll() is None
    again = work.checkpoint()
    assert "saved after SIGHUP" in log.read_text(), "checkpoint waits until the run is saved"
    work._child.send(signal.SIGHUP)  # a second one, from scancel, would end it unsaved
    thread.join()
    assert codes == [128 + signal.SIGHUP]
    assert again.function == Work(work.command, 3, work.logs, work.directory)
    assert again.function._child is None


def test_a_worker_that_is_killed_starts_again_in_its_job(tmp_path: Path):
    killed_once = "import os, pathlib\np = pathlib.Path('n')\nn = len(p.read_text()) if p.exists()"
    killed_once += " else 0\np.write_text('x' * (n + 1))\nn or os.kill(os.getpid(), 9)\n"
    assert fake_worker(tmp_path, killed_once)() == 0
    assert (tmp_path / "n").read_text() == "xx"


class FakeJob:
    """A job of Slurm by its files: one that has not begun has none."""

    def __init__(self, folder: Path, number: int, code: int | None) -> None:
        self.job_id = f"7_{number}"
        self.paths = types.SimpleNamespace(stdout=folder / f"{number}.out")
        if code is not None:
            self.paths.stdout.touch()
        self.done = lambda force_check=False: code is not None
        self.result = lambda: code


@pytest.mark.parametrize(("code", "given_up"), [(0, True), (1, True), (2, False)])
def test_jobs_that_have_not_begun_are_given_up_when_no_run_is_left(
    code: int, given_up: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr(slurm, "scancel", lambda *words: called.append(words))
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.0)
    jobs = [FakeJob(tmp_path, 0, code), FakeJob(tmp_path, 1, None), FakeJob(tmp_path, 2, None)]
    looks = iter([0, 0, 0, 0, *[signal.SIGINT] * 9])
    number, codes = Slurm(SlurmSettings())._wait(jobs, lambda: next(looks))
    assert number == (0 if given_up else signal.SIGINT)
    assert codes == [code]
    assert called == ([("--state=PENDING", "7_1", "7_2")] if given_up else [])


def test_ending_a_job_array_spares_what_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr(slurm, "scancel", lambda *words: called.append(words))
    Slurm(SlurmSettings())._end([FakeJob(tmp_path, 0, 129), FakeJob(tmp_path, 1, 129)])
    assert called == [("--state=PENDING", "7"), ("--state=RUNNING", "--signal=INT", "7")]


@pytest.mark.slow
def test_a_preempted_job_is_requeued_and_the_race_is_bitwise_the_same(tmp_path: Path):
    """submitit's local executor: SIGTERM is bypassed, SIGUSR2 saves the run and requeues."""
    site, root, alone = tmp_path / "site", tmp_path / "runs", tmp_path / "alone"
    launched.install(site)
    log = tmp_path / "bench.log"
    variables = launched.environment(site)
    engine = ["launcher=slurm", "launcher.cluster=local", "launcher.workers=2"]
    bench = launched.start(["bench", *launched.words(site, root), *engine], variables, log)
    with launched.queue(root) as queue:
        makers = launched.wait_until(lambda: launched.running(queue), bench)
        worker, digest = next(iter(makers.items()))
        where = root / "checkpoints" / launched.EXPERIMENT / digest
        launched.wait_until(lambda: list(where.glob("*/SHA256SUMS")), bench)
        job = launched.parent(worker)
        os.kill(job, signal.SIGTERM)
        os.kill(worker, signal.SIGTERM)
        time.sleep(0.5)
        assert launched.running(queue).get(worker) == digest, "SIGTERM changes nothing"
        os.kill(job, signal.SIGUSR2)
        os.kill(worker, signal.SIGUSR2)
        launched.wait_until(lambda: worker not in launched.running(queue), bench)
        assert bench.wait(timeout=300) == 0, log.read_text()
        assert launched.finished(queue) == launched.RUNS
        deaths = [entry.deaths for entry in queue.entries()]
    assert deaths == [0] * launched.RUNS, "no run was lost: its claim was released"
    assert "Requeued job" in "".join(p.read_text() for p in (root / "slurm").glob("*_log.out"))
    fast = launched.environment(site, step_seconds=0)
    launched.start(["bench", *launched.words(site, alone)], fast, log).wait(timeout=300)
    assert len(launched.evaluations(alone)) == launched.RUNS
    assert launched.evaluations(root) == launched.evaluations(alone)


@pytest.mark.slow
def test_ctrl_c_in_the_command_ends_the_jobs_with_their_runs_saved(tmp_path: Path):
    site, root = tmp_path / "site", tmp_path / "runs"
    launched.install(site)
    log = tmp_path / "bench.log"
    engine = ["launcher=slurm", "launcher.cluster=local"]
    words = launched.words(site, root)
    bench = launched.start(["bench", *words, *engine], launched.environment(site, 0.3), log)
    with launched.queue(root) as queue:
        makers = launched.wait_until(lambda: launched.running(queue), bench)
        time.sleep(1)
        bench.send_signal(signal.SIGINT)
        assert bench.wait(timeout=120) == 130, log.read_text()
        launched.wait_until(lambda: not launched.running(queue))
    assert "timetrial cancel" in log.read_text()
    for worker in makers:
        launched.wait_until(lambda worker=worker: not Path(f"/proc/{worker}").exists())
    status = subprocess.run(
        [sys.executable, "-m", "timetrial", "status", *words],
        env=launched.environment(site),
        cwd=launched.ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "0 running" in status


@pytest.mark.slow
def test_a_study_in_jobs(tmp_path: Path):
    site, root, log = tmp_path / "site", tmp_path / "runs", tmp_path / "tune.log"
    launched.install(site)
    words = ["tune", "workload=soaked", "optimizer=adam", "study.trials=3", "budget.steps=10"]
    engine = ["launcher=slurm", "launcher.cluster=local", "launcher.workers=2"]
    variables = launched.environment(site, step_seconds=0)
    tune = launched.start([*words, f"tracking.root={root}", *engine], variables, log)
    assert tune.wait(timeout=300) == 0, log.read_text()
    printed = "".join(path.read_text() for path in (root / "slurm").glob("*_log.out"))
    assert printed.count("(point ") == 3
