"""The jobs of a suite: their order, what they wait for, and that they travel as text."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tiny_suite

from timetrial.bench import suite as suites
from timetrial.bench.launch.graph import Job, graph
from timetrial.bench.suite import Suite
from timetrial.framework.config import ConfigError, Tracking, digest
from timetrial.tracking.record import schema

TRACKING = Tracking(experiment="e")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_suite.register(monkeypatch, tmp_path, steps=30, eval_every_steps=5)


def make_suite(*optimizers: str, conditions=("step",), seeds=(0, 1, 2)) -> Suite:
    return Suite("s", "summary", "p", ("tiny",), optimizers, seeds, conditions)


def test_a_race_by_steps_has_no_edges():
    jobs = graph(make_suite("adam", "velo"), TRACKING, {})
    assert [job.name for job in jobs] == [
        *(f"tiny adam seed {seed}" for seed in range(3)),
        *(f"tiny velo[embedded] seed {seed}" for seed in range(3)),
    ]
    assert not any(job.after or job.told_by or job.sets_budget for job in jobs)
    assert [job.position for job in jobs] == list(range(6))


def test_the_reference_run_comes_alone_until_its_seconds_are_known():
    suite = make_suite("adam", "heavy_ball", conditions=("step", "time"))
    (first,) = graph(suite, TRACKING, {"tiny": None}, "pool")
    assert first.sets_budget
    assert first.pool == "pool"
    assert "heavy_ball" in first.name
    jobs = graph(suite, TRACKING, {"tiny": 2.5}, "pool")
    assert jobs[0] == first
    assert len({job.digest for job in jobs}) == len(jobs) == 6
    assert all(job.pool == "pool" for job in jobs)
    assert sum(job.sets_budget for job in jobs) == 1


def test_the_first_trial_of_velo_comes_before_all_that_it_tells():
    suite = make_suite("velo", "velo_short", conditions=("time",))
    jobs = graph(suite, TRACKING, {"tiny": 2.5})[1:]
    velo = [job for job in jobs if "velo[" in job.name]
    short = [job for job in jobs if "velo_short[" in job.name]
    assert [job.after for job in velo] == ["", velo[0].digest, velo[0].digest]
    assert {job.after for job in short} == {velo[0].digest}
    assert {job.told_by for job in short} == {tuple(job.digest for job in velo)}


def test_any_order_of_endings_reaches_every_job():
    suite = make_suite("adam", "velo", "velo_short", "heavy_ball", conditions=("step", "time"))
    everything = {job.digest for job in graph(suite, TRACKING, {"tiny": 1.0})}
    for seed in range(5):
        chooser, ended = random.Random(seed), set()
        while True:
            reference = digest(suites.pacemaker(suite, TRACKING, "tiny"))
            seconds = 1.0 if reference in ended else None
            jobs = graph(suite, TRACKING, {"tiny": seconds})
            ready = [j for j in jobs if j.digest not in ended and j.after in ("", *ended)]
            if not ready:
                break
            ended.add(chooser.choice(ready).digest)
        assert ended == everything


def test_a_job_is_the_same_run_on_another_machine(monkeypatch: pytest.MonkeyPatch):
    suite = make_suite("adam", "velo", conditions=("step", "time"))
    there = Tracking(experiment="e", root="/elsewhere")
    for job in graph(suite, TRACKING, {"tiny": 0.1 + 0.2}):
        config = job.config(there)
        assert digest(config) == job.digest
        assert config.tracking == there
        assert job.tags[schema.SUITE] == "s"
    broken = Job("0" * 16, job.name, job.settings, 0)
    with pytest.raises(ConfigError, match=r"expected the configuration 0{16}, got [0-9a-f]{16}"):
        broken.config(there)
