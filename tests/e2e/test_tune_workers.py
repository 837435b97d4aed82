"""Studies with many workers, some of them killed: no trial is lost, doubled or changed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import tiny_cli

from timetrial.bench.tune.study import tune
from timetrial.framework.entries import WorkloadEntry
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.store.opening import open_store
from timetrial.workloads import WORKLOADS

pytestmark = pytest.mark.slow  # whole processes that are killed, restarted and waited for

ROOT = Path(__file__).parents[2]
TINY = ["workload=tiny", "optimizer=adam", "study.name=study", "study.heartbeat_seconds=1"]
TINY += ["tracking.checkpoint_minutes=0.001"]


def start(root: Path, *words: str, step_seconds: float = 0.0) -> subprocess.Popen[str]:
    """The command line in a process of its own, as on another machine."""
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    environment["TINY_STEP_SECONDS"] = str(step_seconds)
    command = [sys.executable, str(ROOT / "tests" / "tiny_cli.py"), "tune", *TINY, *words]
    return subprocess.Popen(
        [*command, f"tracking.root={root}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=ROOT,
    )


def ended(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate(timeout=400)
    return text


def load(root: Path, url: str | None = None) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(url or f"sqlite:///{root}/studies.db")
    trials = optuna.load_study(study_name="study", storage=storage).trials
    storage.remove_session()
    storage.engine.dispose()
    return trials


def complete(
    trials: list[optuna.trial.FrozenTrial],
) -> dict[int, tuple[dict[str, float], float]]:
    """Parameters and value of every completed trial, by its point; no point twice."""
    found = [t for t in trials if t.state is optuna.trial.TrialState.COMPLETE]
    by_point = {t.user_attrs["point"]: (t.params, t.value) for t in found}
    assert len(by_point) == len(found)
    return by_point


def wait_until(condition, processes: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if condition():
            return
        assert any(p.poll() is None for p in processes), [ended(p) for p in processes]
        time.sleep(0.05)
    raise AssertionError("what was waited for did not happen")


def checkpoints(root: Path) -> list[Path]:
    return list((root / "checkpoints").glob("*/*/*/SHA256SUMS"))


def running(root: Path, url: str | None) -> set[int]:
    """Processes that have a trial right now."""
    trials = [t for t in load(root, url) if t.state is optuna.trial.TrialState.RUNNING]
    return {trial.user_attrs["worker"]["pid"] for trial in trials}


def disturbed(
    root: Path, trials: int, workers: int, kills: int, *words: str, url: str | None = None
) -> str:
    """Starts workers at once on a fresh store, kills some at random moments of their trials."""
    chance = random.Random(7)
    given = [f"study.trials={trials}", *words]
    processes = [start(root, *given, step_seconds=0.1) for _ in range(workers)]
    wait_until(lambda: checkpoints(root), processes)
    for victim in processes[:kills]:
        wait_until(lambda pid=victim.pid: pid in running(root, url), processes)
        time.sleep(chance.uniform(0.3, 2.0))  # a trial takes three seconds at least
        victim.kill()
        victim.communicate()
    texts = [ended(process) for process in processes[kills:]]
    codes = [process.returncode for process in processes]
    assert codes == [-signal.SIGKILL] * kills + [0] * (workers - kills), texts
    runs = [path.parents[1] for path in checkpoints(root)]
    assert len(runs) == len({*runs}), "only the final checkpoint of each point is kept"
    return "\n".join(texts)


def check(root: Path, trials: int, url: str | None = None) -> list[optuna.trial.FrozenTrial]:
    """Exactly so many distinct completed points, each with one whole run."""
    study = load(root, url)
    points = complete(study)
    assert sorted(points) == list(range(trials))
    assert len({tuple(params.values()) for params, _ in points.values()}) == trials
    assert not [t for t in study if not t.state.is_finished()]
    records = load_runs(open_store(root=root, create=False), schema.STUDIES)
    assert {r.status for r in records} <= {"FINISHED", "KILLED"}
    for record in records:
        if record.status == "FINISHED":
            assert [e.step for e in record.evaluations] == [0, 5, 10, 15, 20, 23, 25, 30]
    whole = {r.tags[schema.POINT] for r in records if r.status == "FINISHED"}
    assert whole == {str(point) for point in points}
    return study


def check_undisturbed(root: Path, trials: int, study: list[optuna.trial.FrozenTrial]) -> None:
    """The same points with bitwise the same values, hence the same best, as of one worker alone."""
    words = [*TINY, f"study.trials={trials}", f"tracking.root={root}"]
    assert tune(words) == 0
    assert complete(study) == complete(load(root))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = WorkloadEntry("tiny", tiny_cli.TinySettings, tiny_cli.make_tiny)
    monkeypatch.setitem(WORKLOADS, "tiny", entry)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_one_of_two_workers_is_killed(tmp_path: Path):
    disturbed(tmp_path / "disturbed", 4, 2, 1)
    study = check(tmp_path / "disturbed", 4)
    assert len(study) == 5
    check_undisturbed(tmp_path / "alone", 4, study)


def test_a_killed_worker_alone_goes_on_from_its_checkpoint_when_started_again(tmp_path: Path):
    process = start(tmp_path, "study.trials=1", step_seconds=0.2)
    wait_until(lambda: checkpoints(tmp_path), [process])
    time.sleep(1.3)  # past the next evaluation, which is one second on
    process.kill()
    process.communicate()
    again = start(tmp_path, "study.trials=1")
    text = ended(again)
    assert again.returncode == 0, text
    assert "the worker of trial 0 died" in text
    records = load_runs(open_store(root=tmp_path, create=False), schema.STUDIES)
    assert [r.status for r in records] == ["FINISHED"]
    assert int(records[0].tags[schema.RESUMED_AT]) >= 5
    assert [e.step for e in records[0].evaluations] == [0, 5, 10, 15, 20, 23, 25, 30]


def test_two_of_four_workers_are_killed(tmp_path: Path):
    disturbed(tmp_path / "disturbed", 16, 4, 2)
    study = check(tmp_path / "disturbed", 16)
    assert 16 < len(study) <= 18
    check_undisturbed(tmp_path / "alone", 16, study)


def test_the_command_starts_its_workers_itself_and_ends_them_with_itself(tmp_path: Path):
    words = ["workload=flights_dlrm", "workload.eval_every_steps=4", "budget.steps=12"]
    command = [sys.executable, "-m", "timetrial.bench.cli", "tune", *words, "optimizer=adam"]
    command += ["study.trials=6", "study.name=study", "--workers", "2"]
    command += [f"tracking.root={tmp_path}"]
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    first = subprocess.Popen(command, cwd=ROOT, env=environment)
    wait_until(lambda: checkpoints(tmp_path), [first])
    first.terminate()
    assert first.wait(timeout=100) == 128 + signal.SIGTERM
    states = [t.state.name for t in load(tmp_path)]
    assert "RUNNING" not in states
    assert states.count("COMPLETE") < 6
    assert subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0
    assert len(complete(load(tmp_path))) == 6
    records = load_runs(open_store(root=tmp_path, create=False), schema.STUDIES)
    assert {r.tags[schema.CONCURRENT_RUNS] for r in records} == {"2"}


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """URL of a fresh database of a server that was started for it on a loopback port."""
    pytest.importorskip("psycopg", reason="needs the extra [postgres]")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not binaries:
        pytest.skip("needs Debian's PostgreSQL server: apt-get install postgresql")
    binary = binaries[-1].parent
    as_user: list[str] = []
    directory = Path(tempfile.mkdtemp(prefix="timetrial-postgresql-"))
    if os.geteuid() == 0:  # the server refuses to run as root
        if shutil.which("runuser") is None:
            pytest.skip("needs runuser to start PostgreSQL as its own user")
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(directory, "postgres")
    data, port = directory / "data", free_port()
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={directory}"

    def call(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, cwd="/", stdout=subprocess.DEVNULL)

    call(str(binary / "initdb"), "-D", str(data), "-U", "timetrial", "--auth=trust")
    server = [str(binary / "pg_ctl"), "-D", str(data), "-w"]
    call(*server, "-o", options, "-l", str(directory / "log"), "start")
    try:
        yield f"postgresql://timetrial@127.0.0.1:{port}/postgres"
    finally:
        call(*server, "-m", "immediate", "stop")
        shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_workers_on_a_fresh_postgresql_database_one_of_them_killed(tmp_path: Path, postgresql: str):
    url = postgresql.replace("postgresql:", "postgresql+psycopg:")
    disturbed(tmp_path, 6, 3, 1, f"study.storage={postgresql}", url=url)
    study = check(tmp_path, 6, url)
    assert len(study) == 7
