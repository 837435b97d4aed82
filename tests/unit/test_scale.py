"""A dry race: hundreds of runs in simulated time, with deaths and frozen workers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import postgres
import pytest

from benchmarks.scale import throughput
from benchmarks.scale.growth import exponents
from benchmarks.scale.races import Durations, race_of
from benchmarks.scale.record import Record
from benchmarks.scale.simulation import BrokenRuleError, Chances, Simulation
from timetrial.bench.launch.identity import this_host, this_worker
from timetrial.bench.launch.places import open_queue
from timetrial.bench.launch.queue import Queue
from timetrial.bench.launch.tables import FAILED, FINISHED
from timetrial.bench.launch.worker import idle_seconds
from timetrial.framework.config import Tracking
from timetrial.tracking.read.runs import finished_configs
from timetrial.tracking.store.opening import open_store

BAD_DAY = Chances(fail=0.05, preempt=0.1, die=0.08, die_late=0.05, freeze=0.08)


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with postgres.server() as url:
        yield url


Make = Callable[..., Simulation]


@pytest.fixture
def simulation() -> Iterator[Make]:
    with contextlib.ExitStack() as stack:

        def make(root: Path, runs: int, workers: int, database: str | None = None, **parts):
            suite, tracking = race_of(runs, root)
            queue = open_queue(dataclasses.replace(tracking, queue=database))
            stack.enter_context(queue)
            record = parts.pop("record", Record(tracking.experiment))
            place = (suite, tracking, queue.engine, workers)
            return Simulation(*place, Durations(0), record, **parts)

        yield make


def test_a_race_of_300_runs_by_20_workers_makes_each_run_once(simulation: Make, tmp_path: Path):
    store = open_store(root=tmp_path)
    record = Record("scale-300", store)
    race = simulation(tmp_path, 300, 20, chances=BAD_DAY, record=record)
    race.run()
    assert len(race.jobs) == 308
    for event in ("died", "died after the record", "came back too late", "preempted", "failed"):
        assert race.events[event] > 0, event
    assert race.events["recorded already"] == race.events["died after the record"]
    counts = race.queue.counts()
    assert counts[FINISHED] == len(record.finished) == 308 - counts[FAILED]
    assert finished_configs(store, "scale-300") == record.finished.keys()


def test_the_same_on_postgresql(simulation: Make, tmp_path: Path, postgres_url: str):
    race = simulation(tmp_path, 44, 10, postgres_url, chances=BAD_DAY)
    race.run()
    assert len(race.record.finished) + race.queue.counts()[FAILED] == len(race.jobs) == 44


def test_equal_seeds_make_equal_races(simulation: Make, tmp_path: Path):
    first, second = (simulation(tmp_path / name, 44, 5, seed=3) for name in "ab")
    first.run()
    second.run()
    assert (first.now, first.events) == (second.now, second.events)


@pytest.mark.parametrize("broken", ["finish", "renew", "claim"])
def test_a_broken_queue_is_noticed(
    simulation: Make, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without fencing, or with claims that are given twice, the rules do not hold."""
    race = simulation(tmp_path, 44, 10, chances=Chances(freeze=0.5))
    whole = getattr(Queue, broken)
    given = []

    def claim_twice(queue: Queue, worker: str, pools=("",)):
        found = whole(queue, worker, pools)
        given.append(found)
        return given[-2] if found is None and len(given) > 1 else found

    monkeypatch.setattr(Queue, broken, claim_twice if broken == "claim" else lambda *_, **__: True)
    with pytest.raises(BrokenRuleError):
        race.run()


def test_processes_claim_every_run_once(tmp_path: Path):
    tracking = Tracking(root=str(tmp_path), experiment="e")
    rate = throughput.measure(tracking, 60, 2)
    assert rate.claims == 60
    assert rate.per_second > 0


def test_exponents_of_known_costs():
    sizes = [1250, 2500, 5000]
    costs = [{"linear": 3.0 * n, "square": 1e-6 * n * n, "constant": 2.0} for n in sizes]
    assert exponents(sizes, costs) == pytest.approx({"linear": 1, "square": 2, "constant": 0})


def test_the_longer_a_worker_waits_the_less_it_asks():
    assert [idle_seconds(s) for s in (0.0, 10.0, 50.0, 1e4)] == [1.0, 1.0, 5.0, 15.0]


def test_only_workers_of_this_host_are_looked_up(tmp_path: Path):
    with open_queue(Tracking(root=str(tmp_path))) as queue:
        queue.add(throughput.jobs(2))
        elsewhere = {**json.loads(this_worker()), "host": "another%"}
        queue.claim(json.dumps(elsewhere))
        queue.claim(this_worker())
        asked: list[str] = []
        assert queue.take_back(lambda worker: bool(asked.append(worker)), near=this_host()) == []
        assert asked == [this_worker()]
        assert queue.take_back(lambda _: True, near=this_host()) == ["run 1"]
