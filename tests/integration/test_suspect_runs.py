"""Runs beside a busy machine: recorded, marked, repeated; on a made-up machine and a real one."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

import optax
import pytest
import tiny_suite

from timetrial.bench import experiment
from timetrial.bench import race as races
from timetrial.bench import suite as suites
from timetrial.bench.doctor.activity import observe
from timetrial.bench.experiment import run
from timetrial.bench.suite import Suite, load_run
from timetrial.bench.workshop import Workshop
from timetrial.framework.budget import StopReason
from timetrial.framework.callbacks import Callback
from timetrial.framework.clock import Clock
from timetrial.framework.config import RunConfig, Tracking, digest
from timetrial.framework.credibility import MOST_OTHERS
from timetrial.framework.entries import OptimizerEntry
from timetrial.framework.errors import Interrupted
from timetrial.framework.machine import CoreTimes
from timetrial.framework.meter import Meter
from timetrial.framework.records import RunRecord
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.record.journal import experiment_of, journals_in, read_journal
from timetrial.tracking.scores.conditions import by_condition
from timetrial.tracking.scores.machines import left_out
from timetrial.tracking.scores.targets import trials
from timetrial.tracking.store.opening import Store, open_store

STEPS = 40


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_suite.register(monkeypatch, tmp_path, steps=STEPS, eval_every_steps=10)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all tests, each with its own experiment: the first use takes seconds."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def tracking(root: Path, request: pytest.FixtureRequest) -> Tracking:
    return Tracking(f"sqlite:///{root}/m.db", request.node.name, str(root))


def open_(tracking: Tracking) -> Store:
    return open_store(tracking.uri, root=Path(tracking.root))


class Machine:
    """Two cores whose load the test decides, and clocks that run 100,000 times as fast.

    Attributes:
        others: share of the cores used by other processes, for one run after the other; then 0.
        rate: CPU seconds of the run per second.
    """

    SPEED = 1e5

    def __init__(self, *others: float, rate: float = 1.6) -> None:
        self.others = list(others)
        self.rate = rate

    def now(self) -> float:
        return self.SPEED * time.perf_counter()

    def cpu(self) -> float:
        return self.rate * self.now()

    def clock(self, meter: Meter) -> Clock:
        return Clock(self.now, cpu=self.cpu, meter=meter)

    def meter(self, gpus: object = ()) -> Meter:
        share = self.others.pop(0) if self.others else 0.0
        frozen: list[float] = []  # one moment for the three counters of a reading

        def read(cores: Collection[int]) -> CoreTimes:
            frozen[:] = [self.now()]
            busy = (self.rate + 2 * share) * frozen[0]
            return CoreTimes(busy, 0.0, 2 * frozen[0] - busy)

        own: Callable[[], float] = lambda: self.rate * frozen[0]  # noqa: E731
        return Meter({0, 1}, read_cores=read, own_cpu=own, now=lambda: frozen[0])


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    def made(*others: float, rate: float = 1.6) -> Machine:
        here = Machine(*others, rate=rate)
        monkeypatch.setattr(experiment, "Clock", here.clock)
        monkeypatch.setattr(experiment, "Meter", here.meter)
        return here

    return made


def config_of(tracking: Tracking, *words: str) -> RunConfig:
    given = load_run(["workload=tiny", "workload.eval_every_steps=10", "optimizer=adam", *words])
    return dataclasses.replace(given, tracking=tracking)


def recorded(tracking: Tracking) -> list[RunRecord]:
    return load_runs(open_(tracking), tracking.experiment)


def test_cpu_seconds_and_the_machine_are_recorded(tracking: Tracking, machine):
    machine(0.05)
    store = open_(tracking)
    result = run(config_of(tracking, "budget.steps=40"), store, Workshop())
    (record,) = recorded(tracking)
    metrics = store.client.get_run(record.run_id).data.metrics
    for account in ("train", "eval", "compile", "log", "other"):
        seconds = metrics[f"time/{account}_seconds"]
        assert metrics[f"time/{account}_cpu_seconds"] == pytest.approx(1.6 * seconds, rel=0.2)
    assert metrics["system/other_processes_percentage_mean"] == pytest.approx(5.0)
    assert metrics["system/steal_percentage_mean"] == 0
    assert metrics["system/cpu_utilization_percentage_mean"] == pytest.approx(85.0)
    if hasattr(os, "getloadavg"):
        assert metrics["system/load_average_start"] >= 0
        assert metrics["system/load_average_end"] >= 0
    history = store.client.get_metric_history(record.run_id, "system/other_processes_percentage")
    assert [point.step for point in history] == [10, 20, 30, 40]
    # evaluations hold the workload's metrics only, as before
    assert all(not key.startswith("system/") for e in record.evaluations for key in e.metrics)
    assert [e.metrics for e in record.evaluations] == [e.metrics for e in result.evaluations]
    journal = next(p for p in journals_in(store.root) if experiment_of(p) == tracking.experiment)
    rows = read_journal(journal, evaluations_only=True).rows
    assert [row.step for row in rows if "system/load_average" in row.metrics] == [10, 20, 30, 40]


def test_20_of_20_runs_are_marked_beside_others_and_20_of_20_are_not_alone(
    tracking: Tracking, machine
):
    """With shares of other processes as measured with and without a burner per core."""
    workshop, store = Workshop(), open_(tracking)
    for share, doubts in ((0.02, 0), (0.45, 20)):
        machine(*[share] * 20)
        marked = 0
        for seed in range(20):
            config = config_of(tracking, f"seed={seed}", "budget.seconds=500")
            result = run(config, store, workshop)
            assert result.reason is StopReason.BUDGET
            marked += bool(result.doubt)
        assert marked == doubts


def test_the_mark_is_a_sentence_with_the_numbers(tracking: Tracking, machine):
    machine(0.48)
    store, workshop = open_(tracking), Workshop()
    result = run(config_of(tracking, "budget.seconds=500"), store, workshop)
    (record,) = recorded(tracking)
    said = record.tags[schema.SECONDS_SUSPECT]
    assert said == result.doubt
    assert said.startswith("Other processes used 48 % of the 2 cores during ")
    assert said.endswith("(allowed: 5 %).")
    machine(0.01)
    run(config_of(tracking, "budget.seconds=500", "seed=1"), store, workshop)
    other = next(r for r in recorded(tracking) if r.seed == 1)
    assert schema.SECONDS_SUSPECT not in other.tags


def test_a_resumed_run_remembers_the_busy_machine(tracking: Tracking, machine, tmp_path: Path):
    """Half of the run beside others, half alone: a quarter of the cores in all."""

    class Kill(Callback):
        def on_step_end(self, info) -> None:
            if info.step == 21:
                signal.raise_signal(signal.SIGTERM)

    config = config_of(tracking, "budget.steps=40")
    store, directory = open_(tracking), tmp_path / "run"
    machine(0.9, 0.0, rate=0.2)
    with pytest.raises(Interrupted):
        run(config, store, Workshop(), callbacks=[Kill()], directory=directory)
    result = run(config, store, Workshop(), directory=directory)
    assert result.step == 40
    assert result.doubt.startswith("Other processes used ")


def make_suite(*optimizers: str, seeds=(0,)) -> Suite:
    return Suite("s", "summary", "p", ("tiny",), optimizers, seeds, ("step", "time"))


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(races, "report", lambda *arguments, **options: 0)


def raced(tracking: Tracking, suite: Suite, **options: bool) -> list[RunRecord]:
    assert races.race(suite, tracking, **options) == 0
    return recorded(tracking)


def is_marked(record: RunRecord) -> bool:
    return schema.SECONDS_SUSPECT in record.tags


def test_a_suite_makes_marked_runs_again_at_its_end(
    tracking: Tracking,
    machine,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    machine(0.0, 0.5, 0.0, 0.5)  # heavy_ball, adam, nesterov; then adam again
    suite = make_suite("adam", "nesterov", "heavy_ball")
    runs = raced(tracking, suite)
    made = [(r.optimizer, is_marked(r)) for r in runs]
    assert made == [
        *(("heavy_ball", False), ("adam", True), ("nesterov", False)),
        ("adam", True),  # once only
    ]
    said = "".join(capsys.readouterr())
    assert "tiny: runs with suspect seconds are made again: 1" in said
    assert "seconds suspect: Other processes used 50 % of the 2 cores" in said
    assert "Left out of the scores under time control" in said
    # the same command makes it again: now the machine is idle
    monkeypatch.setattr(races, "report", lambda *arguments, **options: 0)
    runs = raced(tracking, suite)
    assert [(r.optimizer, is_marked(r)) for r in runs[4:]] == [("adam", False)]
    chosen = trials(by_condition(runs), condition="time")
    assert [r.run_id for r in chosen if r.optimizer == "adam"] == [runs[4].run_id]
    assert left_out(by_condition(runs)) == []
    assert len(raced(tracking, suite)) == 5  # nothing is left to repeat


@pytest.mark.usefixtures("no_report")
def test_repeated_runs_are_those_under_a_time_budget_only(tracking: Tracking, machine):
    machine(*[0.5] * 9)
    suite = Suite("s", "summary", "p", ("tiny",), ("adam", "heavy_ball"), (0,), ("step",))
    runs = raced(tracking, suite)
    assert [is_marked(r) for r in runs] == [True, True]


@pytest.mark.usefixtures("no_report")
def test_a_busy_machine_that_was_accepted_repeats_nothing(tracking: Tracking, machine):
    machine(0.0, *[0.5] * 9)
    runs = raced(tracking, make_suite("adam", "heavy_ball"), repeat_suspect=False)
    assert [(r.optimizer, is_marked(r)) for r in runs] == [("heavy_ball", False), ("adam", True)]


@pytest.mark.usefixtures("no_report")
def test_a_marked_reference_run_is_repeated_before_it_sets_the_budget(tracking: Tracking, machine):
    machine(0.5, 0.0)
    suite = make_suite("adam", "heavy_ball")
    runs = raced(tracking, suite)
    assert [(r.optimizer, is_marked(r)) for r in runs] == [
        *(("heavy_ball", True), ("heavy_ball", False), ("adam", False))
    ]
    (budget,) = {
        r.budget for r in by_condition(runs) if r.condition == "time" and r.optimizer == "adam"
    }
    assert budget == runs[1].train_seconds
    assert len(raced(tracking, suite)) == 3


@pytest.mark.usefixtures("no_report")
def test_a_reference_run_that_stays_marked_sets_the_budget_for_good(tracking: Tracking, machine):
    machine(0.5, 0.5)
    suite = make_suite("adam", "heavy_ball")
    first = raced(tracking, suite)
    assert [(r.optimizer, is_marked(r)) for r in first] == [
        *(("heavy_ball", True), ("heavy_ball", True), ("adam", False))
    ]
    timed_adam = next(
        r for r in by_condition(first) if r.optimizer == "adam" and r.condition == "time"
    )
    assert timed_adam.budget == first[0].train_seconds
    assert len(raced(tracking, suite)) == 3  # another budget would void every run


@pytest.mark.usefixtures("no_report")
def test_a_marked_reference_run_without_followers_is_repeated_after_an_interruption(
    tracking: Tracking, machine
):
    machine(0.5, 0.0)
    suite = make_suite("adam", "heavy_ball")
    pace = suites.pacemaker(suite, tracking, "tiny")
    store = open_(tracking)
    run(pace, store, Workshop(), tags={schema.SETS_TIME_BUDGET: "true"})
    assert races.reference_is_due(suite, pace, {digest(pace)}, store)
    runs = raced(tracking, suite)
    assert [(r.optimizer, is_marked(r)) for r in runs] == [
        *(("heavy_ball", True), ("heavy_ball", False), ("adam", False))
    ]


@pytest.mark.usefixtures("no_report")
def test_steps_are_told_by_a_credible_trial(
    tracking: Tracking, machine, monkeypatch: pytest.MonkeyPatch
):
    """The first trial under a time budget tells its steps to later ones: marked, it is repeated."""

    @dataclasses.dataclass(frozen=True)
    class Settings:
        pass

    entry = OptimizerEntry(
        "needs steps", Settings, lambda settings, horizon: optax.sgd(0.01), needs_steps=True
    )
    monkeypatch.setitem(OPTIMIZERS, "told", entry)
    machine(0.0, 0.0, 0.0, 0.5, 0.0)  # reference run, two seeds under steps, two under time
    runs = raced(tracking, make_suite("told", "heavy_ball", seeds=(0, 1)))
    told = [r for r in runs if r.condition == "time" and r.optimizer == "told"]
    assert [(r.seed, is_marked(r)) for r in told] == [(0, True), (0, False), (1, False)]
    assert told[2].config["budget.expected_steps"] == str(told[1].step)


BESIDE_A_BURNER = """
import os, subprocess, sys
core = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {core})  # the burner inherits it
import tiny_cli
tiny_cli.register()
from timetrial.bench.experiment import run
from timetrial.bench.workshop import Workshop
from timetrial.bench.suite import load_run
from timetrial.tracking.store.opening import open_store
from pathlib import Path
root = sys.argv[1]
config = load_run(["workload=tiny", "workload.eval_every_steps=1000", "optimizer=adam",
                   "budget.seconds=1", f"tracking.root={root}"])
store, workshop = open_store(root=Path(root)), Workshop()
workshop.program(config)
burner = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
try:
    result = run(config, store, workshop)
finally:
    burner.kill()
    burner.wait()
print(result.doubt)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pins processes to one core")
def test_a_run_beside_a_real_burner_is_marked(tmp_path: Path):
    """One burner on the only core of the run, both ended after seconds.

    Its share can only grow beside further processes. That a run alone is not marked is judged by
    the made-up machine above, since this one may be busy.
    """
    before = observe(0.5).others
    done = subprocess.run(
        [sys.executable, "-c", BESIDE_A_BURNER, str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        },
    )
    assert "of the only core during" in done.stdout
    (record,) = load_runs(open_store(root=tmp_path / "runs", create=False), "timetrial")
    assert record.tags[schema.SECONDS_SUSPECT] == done.stdout.strip()
    share = float(done.stdout.split("used ")[1].split(" %")[0]) / 100
    assert share > MOST_OTHERS
    if before is not None:
        assert 0 <= before <= 1
        assert share > min(before, 0.3)
