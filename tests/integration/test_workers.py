"""A race by several workers: each run is made once, whatever happens to a worker."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import postgres
import pytest
import tiny_cli
import yaml
from command_line import command_line

from timetrial.bench import cli
from timetrial.bench.launch import admission as admissions
from timetrial.bench.launch.graph import Job
from timetrial.bench.launch.places import check_reachable, check_shared, open_queue, queue_uri
from timetrial.bench.launch.pool import Pool, PoolCalibration, save_pool
from timetrial.bench.launch.queue import Queue
from timetrial.bench.launch.tables import FAILED, FINISHED, RUNNING, WAITING
from timetrial.bench.launch.worker import split
from timetrial.bench.suite import load_suite
from timetrial.framework.config import Tracking
from timetrial.framework.errors import UserError
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Status
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.store.opening import open_store
from timetrial.workloads import WORKLOADS

TESTS = Path(__file__).parents[1]
SUITE = """\
summary: tiny
presets: p
workloads: [tiny]
optimizers: [adam, heavy_ball]
seeds: [0, 1]
"""


def write_suite(directory: Path) -> None:
    (directory / "p").mkdir()
    preset = "workload: {name: tiny, step_hint: 30, eval_every_steps: 5}\nbudget: {steps: 30}\n"
    (directory / "p" / "tiny.yaml").write_text(preset)
    (directory / "s.yaml").write_text(SUITE)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """Every metric of the four runs, made by ``timetrial bench`` one after the other."""
    root = tmp_path_factory.mktemp("alone")
    write_suite(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setitem(WORKLOADS, "tiny", None)
        tiny_cli.register()
        with pytest.raises(SystemExit, match="0"):
            cli.main(["bench", *words()])
        return numbers(runs())


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite of four runs of the tiny workload in the working directory."""
    write_suite(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(WORKLOADS, "tiny", None)
    tiny_cli.register()


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable:
    return command_line(capsys)


def words(root: str = "runs", *more: str) -> list[str]:
    return ["suite=s.yaml", f"tracking.root={root}", "tracking.experiment=e", *more]


def runs(root: str = "runs", uri: str | None = None) -> list[RunRecord]:
    return load_runs(open_store(uri, root=Path(root), create=False), "e")


def queue(root: str = "runs", url: str | None = None) -> Queue:
    return open_queue(Tracking(root=root, experiment="e", queue=url))


def numbers(records: list[RunRecord]) -> dict[str, list]:
    """Every metric of every evaluation of the finished runs; each run must be there once."""
    finished = [run for run in records if run.status == Status.FINISHED]
    found = {
        run.tags[schema.CONFIG_HASH]: [(row.step, dict(row.metrics)) for row in run.evaluations]
        for run in finished
    }
    assert len(found) == len(finished)
    return found


@contextmanager
def worker(*more: str, step_seconds: float = 0.0, root: str = "runs"):
    """A worker in a process of its own; killed at the end if it still runs."""
    environment = {
        **os.environ,
        "TINY_STEP_SECONDS": str(step_seconds),
        "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
    }
    command = [sys.executable, str(TESTS / "tiny_cli.py"), "worker", *words(root), *more]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    given_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < given_up, "waited too long"
        time.sleep(0.05)


def has_checkpoint(root: str = "runs") -> bool:
    return any(Path(root, "checkpoints").glob("*/*/[1-9]*/SHA256SUMS"))


def test_workers_make_the_same_race_as_bench_alone(call, alone: dict):
    outcome = call("worker", *words("shared"))
    assert outcome.code == 0, outcome.err
    assert "[4/4] tiny heavy_ball seed 1" in outcome.err
    assert numbers(runs("shared")) == alone
    assert {run.tags[schema.SUITE] for run in runs("shared")} == {"s"}

    again = call("worker", *words("shared"))
    assert (again.code, again.err) == (0, "")
    assert len(runs("shared")) == 4


def test_what_bench_has_recorded_is_not_made_again(call):
    assert call("bench", *words(), "seeds=[0]").code == 0
    outcome = call("worker", *words())
    assert outcome.code == 0
    assert "seed 0" not in outcome.err
    assert len(numbers(runs())) == 4


def test_the_reference_run_sets_the_seconds_of_the_others(call):
    Path("s.yaml").write_text(SUITE + "conditions: [step, time]\n")
    outcome = call("worker", *words(), "--busy-machine")
    assert outcome.code == 0, outcome.err
    found = runs()
    (reference,) = [run for run in found if schema.SETS_TIME_BUDGET in run.tags]
    assert reference.optimizer == "heavy_ball"
    told = {run.config.get("budget.also_seconds") for run in found if run is not reference}
    assert told == {str(reference.train_seconds)}
    assert len(numbers(found)) == 4


def test_a_failed_run_ends_no_race_and_waits_for_a_word(call, monkeypatch: pytest.MonkeyPatch):
    def broken(settings: tiny_cli.TinySettings):
        raise RuntimeError("no such thing")

    make = WORKLOADS["tiny"]
    monkeypatch.setitem(WORKLOADS, "tiny", type(make)("tiny", tiny_cli.TinySettings, broken))
    outcome = call("worker", *words(), "seeds=[0]")
    assert outcome.code == 1
    shown = call("status", *words())
    assert "0 of 2 finished, 0 running, 0 waiting, 2 failed" in shown.out
    assert shown.out.count("RuntimeError: no such thing") == 2

    monkeypatch.setitem(WORKLOADS, "tiny", make)
    assert call("worker", *words(), "seeds=[0]").code == 1
    assert call("worker", *words(), "seeds=[0]", "--retry-failed").code == 0
    assert len(numbers(runs())) == 2


def test_a_run_that_this_machine_reads_otherwise_is_left_to_others(call):
    with queue() as opened:
        assert call("worker", *words(), "seeds=[0]").code == 0
        opened.add([Job("0" * 16, "tiny other", "workload: tiny\noptimizer: adam\n", 9)])
        outcome = call("worker", *words(), "seeds=[0]")
        assert outcome.code == 2
        assert "its version of timetrial, a plug-in, a file or weights differ" in outcome.err
        assert opened.counts()[WAITING] == 1


def test_the_run_of_a_killed_worker_goes_on_in_another_from_its_checkpoint(call, alone: dict):
    with worker(step_seconds=0.3) as first:
        wait_until(lambda: first.poll() is not None or has_checkpoint())
        assert first.poll() is None, first.stderr and first.stderr.read()
        first.kill()
        first.wait()
    (killed,) = runs()
    outcome = call("worker", *words())
    assert outcome.code == 0, outcome.err
    assert "its worker died; another one continues it" in outcome.err
    assert "continues at update" in outcome.err
    assert numbers(runs()) == alone
    assert not [run for run in runs() if run.status != Status.FINISHED]
    assert killed.tags[schema.CONFIG_HASH] in numbers(runs())


def test_a_frozen_worker_loses_its_run_and_spoils_nothing(call, alone: dict):
    beat = "worker.heartbeat_seconds=0.3"
    with worker(beat, step_seconds=0.3) as frozen:
        wait_until(lambda: frozen.poll() is not None or has_checkpoint())
        frozen.send_signal(signal.SIGSTOP)
        outcome = call("worker", *words(), beat)
        assert outcome.code == 0, outcome.err
        assert len(numbers(runs())) == 4
        frozen.send_signal(signal.SIGCONT)
        _, err = frozen.communicate(timeout=120)
    assert "another worker has taken it over" in err
    assert numbers(runs()) == alone
    (other,) = [run for run in runs() if run.status != Status.FINISHED]
    assert other.status == Status.KILLED
    store = open_store(root=Path("runs"), create=False)
    experiment = store.experiment_id("e", create=False)
    marked = store.client.search_runs([experiment], "tags.superseded_by LIKE '%process%'")
    assert [run.info.status for run in marked] == ["KILLED"]


def test_without_common_files_a_run_starts_anew_and_its_orphan_is_closed(call, tmp_path: Path):
    uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    shared = [f"tracking.uri={uri}", f"tracking.queue=sqlite:///{tmp_path}/queue.db", "seeds=[0]"]
    with worker(*shared, root="first", step_seconds=0.3) as process:
        wait_until(lambda: process.poll() is not None or has_checkpoint("first"))
        process.kill()
        process.wait()
    outcome = call("worker", *words("second"), *shared)
    assert outcome.code == 0, outcome.err
    assert "continues at update" not in outcome.err
    found = runs("second", uri)
    assert len(numbers(found)) == 2
    store = open_store(uri, root=Path("second"), create=False)
    experiment = store.experiment_id("e", create=False)
    statuses = {
        run.info.status: run.data.tags.get(schema.SUPERSEDED_BY)
        for run in store.client.search_runs([experiment])
    }
    assert set(statuses) == {"FINISHED", "KILLED"}
    assert f"process {os.getpid()}" in statuses["KILLED"]


def test_a_cancelled_race_is_saved_and_goes_on_later(call):
    with worker("worker.heartbeat_seconds=0.2", step_seconds=0.3) as process:
        wait_until(lambda: process.poll() is not None or has_checkpoint())
        shown = json.loads(call("status", *words(), "--json").out)
        assert shown["counts"][RUNNING] == 1
        assert f"process {process.pid}" in shown["runs"][0]["worker"]
        assert call("cancel", *words()).code == 0
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "cancelled; the same command continues" in err
    (killed,) = runs()
    assert killed.status == Status.KILLED
    outcome = call("worker", *words())
    assert outcome.code == 0
    assert "continues at update" in outcome.err
    assert len(numbers(runs())) == 4


def make_pool(monkeypatch: pytest.MonkeyPatch, ratio: float) -> Pool:
    """A pool like this machine, whose steps take ``ratio`` times as long here."""
    here = dict.fromkeys(("device_platform", "device_kind", "host_cpu"), "x")
    versions = {"python": "3", "jax": "1", "jaxlib": "1"}
    settings = {"workload.step_hint": "30", "workload.eval_every_steps": "5"}
    pace = PoolCalibration(settings, "heavy_ball", 0.01, 0.02, "2026-01-31")
    pool = Pool("lab", **here, device_count=1, host_cores=2, driver="", versions=versions,
                calibrations={"tiny": pace})  # fmt: skip
    save_pool(pool, Path("pools/lab.yaml"))
    monkeypatch.setattr(admissions, "machine_tags", lambda: pool.machine)
    monkeypatch.setattr(admissions, "measured_step_seconds", lambda program: 0.01 * ratio)
    return pool


@pytest.mark.parametrize("ratio", [1.01, 1.2])
def test_only_admitted_machines_make_the_timed_runs_of_a_pool(
    call, ratio: float, monkeypatch: pytest.MonkeyPatch
):
    """Refused, a worker makes nothing of the pool, not even the reference run."""
    Path("s.yaml").write_text(SUITE + "conditions: [step, time]\n")
    pool = make_pool(monkeypatch, ratio)
    outcome = call("worker", *words(), "--busy-machine", "worker.pool=lab")
    if ratio > 1.05:
        assert outcome.code == 1
        assert "not admitted to pool lab: heavy_ball on tiny takes 0.012 s per step" in outcome.err
        assert "1 runs wait for machines of other pools" in outcome.err
        return
    assert outcome.code == 0, outcome.err
    found = runs()
    assert len(numbers(found)) == 4
    assert {run.tags["pool"] for run in found} == {pool.tag}
    assert {run.tags["admission_ratio"] for run in found} == {"1.0100"}


def test_a_reference_run_of_another_machine_sets_no_seconds_of_a_pool(
    call, monkeypatch: pytest.MonkeyPatch
):
    Path("s.yaml").write_text(SUITE + "conditions: [step, time]\n")
    alone = ["seeds=[0]", "optimizers=[heavy_ball]", "--busy-machine"]
    assert call("worker", *words(), *alone).code == 0
    (other,) = runs()
    pool = make_pool(monkeypatch, ratio=1.0)
    outcome = call("worker", *words(), "--busy-machine", "worker.pool=lab", "seeds=[0]")
    assert outcome.code == 0, outcome.err
    mine = [run for run in runs() if run.tags.get("pool") == pool.tag]
    (reference,) = [run for run in mine if schema.SETS_TIME_BUDGET in run.tags]
    told = {run.config["budget.also_seconds"] for run in mine if run is not reference}
    assert told == {str(reference.train_seconds)} != {str(other.train_seconds)}


def test_status_of_a_race_without_workers_says_how_to_begin(call):
    outcome = call("status", *words())
    assert outcome.code == 2
    assert "no workers have raced in 'e' yet" in outcome.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["launcher=nope"], "unknown launcher 'nope'"),
        (["launcher.workers=-1"], "launcher.workers: expected a whole number >= 0, got -1"),
        (["launcher.works=2"], "did you mean 'launcher.workers'"),
        (["launcher.gpus=1"], "a machine with 0 GPUs"),
        (["launcher.workers=2", "conditions=[time]"], "expected launcher.workers=1 for time"),
    ],
)
def test_wrong_launchers_are_refused_before_anything_starts(call, given: list[str], message: str):
    outcome = call("bench", *words(), *given, "--busy-machine")
    assert outcome.code == 2
    assert message in outcome.err
    assert not Path("runs").exists()


def test_a_server_keeps_no_queue(call):
    outcome = call("worker", *words(), "tracking.uri=http://127.0.0.1:9")
    assert outcome.code == 2
    assert "tracking.queue: expected postgresql://" in outcome.err


def test_a_study_does_not_share_the_database_of_the_store():
    tracking = Tracking(uri="postgresql://me@db/t")
    with pytest.raises(UserError, match=r"expected another database than tracking\.uri"):
        check_shared("postgresql+psycopg://me@db/t", tracking, "ray")
    with pytest.raises(UserError, match="a file of this one"):
        check_shared("sqlite:///studies.db", tracking, "ray")
    check_shared("postgresql://me@db/studies", tracking, "ray")


@pytest.mark.parametrize("file", ["kubernetes.yaml", "skypilot.yaml"])
def test_the_commands_of_the_examples_are_understood(file: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QUEUE", "postgresql://me@db/timetrial")
    tree = yaml.safe_load((TESTS.parent / "examples" / "cluster" / file).read_text())
    if file == "kubernetes.yaml":
        (container,) = tree["spec"]["template"]["spec"]["containers"]
        given = [*container["command"], *container["args"]]
        given = [word.replace("$(QUEUE)", os.environ["QUEUE"]) for word in given]
    else:
        given = shlex.split(os.path.expandvars(tree["run"].replace("\\\n", " ")))
    assert given[:2] == ["timetrial", "worker"]
    settings, rest = split(given[2:])
    assert settings.gpus == 1
    suite, tracking = load_suite(rest)
    assert suite.name == "paper-step"
    assert queue_uri(tracking) == os.environ["QUEUE"]
    check_reachable(tracking, "kubernetes")


@pytest.mark.slow
def test_four_workers_share_a_race_on_postgresql(call):
    """Store and queue in one new database: all four workers find it empty."""
    Path("s.yaml").write_text(SUITE.replace("[0, 1]", "[0, 1, 2, 3, 4, 5]"))
    assert call("bench", *words("alone")).code == 0
    with postgres.server() as url:
        place, hosts = f"tracking.uri={url}", [f"host{number}" for number in range(4)]
        started = [worker(place, root=host, step_seconds=0.2) for host in hosts]
        processes = [each.__enter__() for each in started]
        try:
            for process in processes:
                _, err = process.communicate(timeout=300)
                assert process.returncode == 0, err
        finally:
            for each in started:
                each.__exit__(None, None, None)
        with queue("host0", url) as opened:
            assert opened.counts()[FINISHED] == 12
            assert not opened.entries(FAILED)
            makers = {entry.worker for entry in opened.entries()}
        assert len(makers) > 1
        assert numbers(runs("host0", url)) == numbers(runs("alone"))
