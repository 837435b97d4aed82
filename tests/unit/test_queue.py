"""The queue of a race: who makes which run, on sqlite and on PostgreSQL."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import postgres
import pytest
import sqlalchemy as sa

from timetrial.bench.launch import keeping
from timetrial.bench.launch import queue as queues
from timetrial.bench.launch.graph import Job
from timetrial.bench.launch.places import open_queue
from timetrial.bench.launch.queue import Queue
from timetrial.bench.launch.tables import BLOCKED, FAILED, FINISHED, RUNNING, WAITING
from timetrial.framework.config import Tracking
from timetrial.framework.errors import UserError


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    place = Tracking(root=str(tmp_path), experiment=request.node.name)
    if request.param == "postgresql":
        place = dataclasses.replace(place, queue=request.getfixturevalue("postgres_url"))
    with open_queue(place) as opened:
        yield opened


def job(number: int, **changes) -> Job:
    return Job(f"digest{number}", f"run {number}", "seed: 1\n", number, **changes)


def states(queue: Queue) -> dict[str, str]:
    return {entry.digest: entry.state for entry in queue.entries()}


def test_runs_are_claimed_in_order_each_once(queue: Queue):
    jobs = [job(n, tags={"suite": "s"}, told_by=("a", "b")) for n in range(3)]
    queue.add(reversed(jobs))
    queue.add(jobs)  # a second worker plans, too
    claims = [queue.claim(f"w{n}") for n in range(4)]
    assert [claim and claim.job for claim in claims] == [*jobs, None]
    assert [claim.token for claim in claims if claim] == [1, 1, 1]
    assert queue.counts() == {FINISHED: 0, RUNNING: 3, WAITING: 0, BLOCKED: 0, FAILED: 0}


def test_many_workers_at_once_claim_every_run_exactly_once(queue: Queue):
    queue.add(job(number) for number in range(60))
    claimed: list[str] = []

    def work(name: str) -> None:
        while (claim := queue.claim(name)) is not None:
            claimed.append(claim.job.digest)
            assert queue.renew(claim)
            assert queue.finish(claim)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(f"digest{n}" for n in range(60))
    assert queue.counts()[FINISHED] == 60


def test_a_worker_that_was_only_thought_dead_changes_nothing(queue: Queue):
    queue.add([job(0)])
    first = queue.claim("frozen")
    assert first is not None
    assert queue.take_back(seconds=3600) == []
    assert queue.take_back(seconds=-1) == ["run 0"]
    assert not queue.renew(first)
    second = queue.claim("next")
    assert second is not None
    assert (second.token, second.deaths) == (2, 1)
    assert not queue.renew(first)
    assert not queue.finish(first)
    assert not queue.release(first)
    assert states(queue) == {"digest0": RUNNING}
    assert queue.finish(second)
    assert not queue.finish(second)
    assert states(queue) == {"digest0": FINISHED}


def test_workers_known_to_be_dead_lose_their_runs_at_once(queue: Queue):
    queue.add([job(0), job(1)])
    queue.claim("dead")
    queue.claim("alive")
    assert queue.take_back(lambda worker: worker == "dead") == ["run 0"]
    assert states(queue) == {"digest0": WAITING, "digest1": RUNNING}


def test_a_run_that_kills_its_workers_is_given_up(queue: Queue):
    queue.add([job(0), job(1, after="digest0")])
    for number in range(queues.MAX_DEATHS):
        claim = queue.claim(f"w{number}")
        assert claim is not None
        assert claim.job.digest == "digest0"
        queue.take_back(seconds=-1)
    assert states(queue) == {"digest0": FAILED, "digest1": WAITING}
    assert "4 workers died" in queue.entries(FAILED)[0].error
    assert queue.retry_failed() == 1
    claim = queue.claim("w")
    assert claim is not None
    assert claim.deaths == 0


def test_a_run_waits_until_its_first_trial_has_ended(queue: Queue):
    queue.add([job(0), job(1, after="digest0"), job(2, after="elsewhere")])
    assert states(queue) == {"digest0": WAITING, "digest1": BLOCKED, "digest2": WAITING}
    first, third = queue.claim("w"), queue.claim("w")
    assert first is not None
    assert third is not None
    assert third.job.digest == "digest2"
    assert queue.claim("w") is None
    queue.finish(first, error="ValueError: no")  # its steps are then measured
    assert states(queue)["digest1"] == WAITING


def test_runs_of_a_pool_wait_for_its_machines(queue: Queue):
    queue.add([job(0, pool="h100"), job(1)])
    claim = queue.claim("any")
    assert claim is not None
    assert claim.job.digest == "digest1"
    assert queue.claim("any") is None
    claim = queue.claim("member", ["", "h100"])
    assert claim is not None
    assert claim.job.pool == "h100"


def test_recorded_runs_are_settled_and_suspect_ones_repeated_once(queue: Queue):
    queue.add([job(0), job(1), job(2, after="digest0"), job(3, tags={"sets_time_budget": "true"})])
    queue.settle(["digest0", "unknown"])
    assert list(states(queue).values()) == [FINISHED, WAITING, WAITING, WAITING]
    for number in (1, 2, 3):
        claim = queue.claim("w")
        assert claim is not None
        queue.finish(claim, suspect=number != 2)
    assert queue.repeat_suspects() == 1  # the reference run has told its seconds
    again = queue.claim("w")
    assert again is not None
    assert (again.job.digest, again.again) == ("digest1", True)
    queue.finish(again, suspect=True)
    assert queue.repeat_suspects() == 0


def test_a_cancelled_race_is_seen_by_all_and_can_be_forgotten(queue: Queue):
    queue.add([job(0)], plan="p")
    assert (queue.planned("p"), queue.planned("q")) == (True, False)
    before = queue.cancellations()
    assert queue.cancel() == 0
    assert queue.cancellations() == before + 1
    assert queue.planned("p")
    assert queue.forget() == 1
    assert not queue.planned("p")
    assert queue.entries() == []


def test_experiments_do_not_see_each_other(queue: Queue):
    other = Queue(queue.engine, "another")
    queue.add([job(0)])
    other.add([job(0), job(1)])
    claim = other.claim("w")
    assert claim is not None
    assert other.finish(claim)
    assert states(queue) == {"digest0": WAITING}
    other.forget()


def test_calls_wait_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keeping, "RETRY_SECONDS", 0.0)
    failures, told = [sa.exc.OperationalError("SELECT", {}, Exception("gone")) for _ in "ab"], []

    def call() -> str:
        if failures:
            raise failures.pop()
        return "back"

    assert keeping.patiently(call, told.append) == "back"
    assert told == ["the queue of runs is away, waiting up to 600 s: gone"]
    monkeypatch.setattr(keeping, "CONFIRM_SECONDS", 0.0)
    failures.append(sa.exc.OperationalError("SELECT", {}, Exception("gone")))
    with pytest.raises(UserError, match="the queue of runs is away: gone"):
        keeping.patiently(call, told.append)


def test_a_keeper_notices_a_lost_claim_and_survives_an_outage(queue: Queue):
    queue.add([job(0)])
    claim = queue.claim("w")
    assert claim is not None
    real = queue.renew
    outages = iter([sa.exc.OperationalError("UPDATE", {}, Exception("gone"))])

    def renew(held):
        for error in outages:
            raise error
        return real(held)

    queue.renew = renew  # type: ignore[method-assign]
    with keeping.Keeper(queue, claim, 0, heartbeat_seconds=0.01) as keeper:
        assert keeper.confirm()
        assert keeper.stopped() == 0
        queue.take_back(seconds=-1)
        assert not keeper.confirm()
        assert keeper.stopped() == signal.SIGTERM
    assert keeper.lost
