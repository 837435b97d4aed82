"""Workers of a race in simulated time, with failures, preemptions, deaths and frozen workers.

Boundary: a heap of events instead of processes; makes no run. Jobs come from the real graph, claims
from the real queue, and every rule that must hold is checked at each step.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
import itertools
import random
from collections.abc import Callable

import sqlalchemy as sa

from benchmarks.scale.races import Durations
from benchmarks.scale.record import Record
from timetrial.bench.launch.graph import Job, graph
from timetrial.bench.launch.queue import HEARTBEAT_SECONDS, Queue
from timetrial.bench.launch.tables import BLOCKED, FAILED, FINISHED, RUNNING, WAITING, Claim
from timetrial.bench.launch.worker import idle_seconds
from timetrial.bench.suite import Suite
from timetrial.framework.config import Tracking
from timetrial.framework.types import Condition, Status

RESTART_SECONDS = 120.0
"""Time until a dead worker is replaced."""

ROUNDS = 10
"""Calls of the command until every reference run has finished."""


class BrokenRuleError(AssertionError):
    """A run was made twice, lost, or made too early."""


@dataclasses.dataclass(frozen=True)
class Chances:
    """Probabilities of what happens to one attempt at a run.

    Attributes:
        fail: it raises.
        preempt: its worker gives it back, saved.
        die: its worker vanishes.
        die_late: its worker vanishes after the run is recorded, before the queue knows it.
        freeze: its worker stands still for 1 to 10 minutes.
    """

    fail: float = 0.01
    preempt: float = 0.03
    die: float = 0.02
    die_late: float = 0.005
    freeze: float = 0.02


@dataclasses.dataclass
class Worker:
    """A simulated worker.

    Attributes:
        name: its name; a replacement has another one.
        looked: time of its last look at dead workers.
        idle_since: since when it has found no run; None while it has one.
    """

    name: str
    looked: float = -1e9
    idle_since: float | None = None


class Simulation:
    """One race in simulated time.

    Args:
        suite, tracking: the race.
        engine: database of the queue, with its tables.
        workers: number of workers.
        durations: wall seconds of the runs.
        record: where finished runs are recorded.
        chances: what goes wrong.
        seed: seed of what goes wrong.

    Attributes:
        now: simulated seconds.
        events: how often what happened.
    """

    def __init__(
        self,
        suite: Suite,
        tracking: Tracking,
        engine: sa.Engine,
        workers: int,
        durations: Durations,
        record: Record,
        chances: Chances | None = None,
        seed: int = 0,
    ) -> None:
        self.suite, self.tracking, self.record = suite, tracking, record
        self.now, self.events = 0.0, collections.Counter[str]()
        self.queue = Queue(engine, tracking.experiment, clock=lambda: self.now)
        self.jobs: dict[str, Job] = {}
        self._workers, self._durations = workers, durations
        self._chances, self._random = chances or Chances(), random.Random(f"fates {seed}")
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._seconds: dict[str, float | None] = dict.fromkeys(suite.workloads)
        self._length: dict[str, float] = {}
        self._left: dict[str, float] = {}  # seconds that remain behind the last checkpoint
        self._active: dict[str, str] = {}  # healthy worker of each run
        self._tokens: dict[str, int] = {}
        self._ended: set[str] = set()

    def run(self) -> None:
        """Makes the race until no run is left.

        Raises:
            BrokenRuleError: a rule does not hold.
        """
        self._plan()
        for _ in range(ROUNDS):
            for _ in range(self._workers):
                self._start(self._random.uniform(0, 5))
            while self._heap:
                self.now, _, event = heapq.heappop(self._heap)
                event()
            if None not in self._seconds.values():
                break
            self.events["failed runs made again"] += self.queue.retry_failed()
        self._check_end()

    def _at(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + seconds, next(self._numbers), event))

    def _start(self, delay: float) -> None:
        worker = Worker(f"worker {next(self._numbers)}")
        self._at(delay, lambda: self._look(worker))

    def _plan(self) -> None:
        """Adds what is known of the race to the queue."""
        found = graph(self.suite, self.tracking, self._seconds)
        self.jobs = {job.digest: job for job in found}
        self.queue.add(found)

    def _look(self, worker: Worker) -> None:
        """One turn of a worker's loop."""
        if self.now - worker.looked >= 1.0:
            worker.looked = self.now
            self.events["taken back"] += len(self.queue.take_back())
        claim = self.queue.claim(worker.name)
        if claim is not None:
            worker.idle_since = None
            self._check_claim(claim, worker)
            self._begin(worker, claim)
        elif self.queue.counts()[RUNNING]:
            if worker.idle_since is None:
                worker.idle_since = self.now
            pause = idle_seconds(self.now - worker.idle_since)
            self._at(pause, lambda: self._look(worker))

    def _begin(self, worker: Worker, claim: Claim) -> None:
        job, chances = claim.job, self._chances
        if job.digest in self.record.finished and not claim.again:
            self.events["recorded already"] += 1
            self._end(worker, claim)
            return
        if job.digest not in self._length:
            self._length[job.digest] = self._left[job.digest] = self._durations.draw(job.name)
        self._active[job.digest] = worker.name
        fates = (self._fail, self._preempt, self._die, self._die_late, self._freeze)
        weights = [chances.fail, chances.preempt, chances.die, chances.die_late, chances.freeze]
        fate = self._random.choices([*fates, self._finish], [*weights, max(0.0, 1 - sum(weights))])[
            0
        ]
        left = self._left[job.digest]
        whole = fate in (self._finish, self._die_late)
        lasts = left if whole else left * self._random.uniform(0.05, 0.95)
        self._live(worker, claim, lasts, fate)

    def _live(
        self,
        worker: Worker,
        claim: Claim,
        lasts: float,
        fate: Callable[[Worker, Claim, float], None],
        done: float = 0.0,
    ) -> None:
        """Signs of life until the fate comes."""
        if lasts - done <= HEARTBEAT_SECONDS:
            self._at(lasts - done, lambda: fate(worker, claim, lasts))
            return

        def beat() -> None:
            self._require(self.queue.renew(claim), f"{claim.job.name}: a live claim was lost")
            self._live(worker, claim, lasts, fate, done + HEARTBEAT_SECONDS)

        self._at(HEARTBEAT_SECONDS, beat)

    def _finish(self, worker: Worker, claim: Claim, lasted: float) -> None:
        job = claim.job
        self._require(self.queue.renew(claim), f"{job.name}: a live claim was lost")
        self.record.add(job, Status.FINISHED, self._length[job.digest])
        self._end(worker, claim)

    def _end(self, worker: Worker, claim: Claim) -> None:
        job = claim.job
        self._active.pop(job.digest, None)
        self._require(self.queue.finish(claim), f"{job.name}: its end was refused")
        self._ended.add(job.digest)
        self.events["finished"] += 1
        workload = job.name.split()[0]
        if job.sets_budget and self._seconds[workload] is None:
            self._seconds[workload] = self._length[job.digest]
            self._plan()
        self._at(0.0, lambda: self._look(worker))

    def _fail(self, worker: Worker, claim: Claim, lasted: float) -> None:
        self._active.pop(claim.job.digest)
        self.record.add(claim.job, Status.FAILED, lasted)
        ended = self.queue.finish(claim, error="ValueError: drawn")
        self._require(ended, f"{claim.job.name}: its failure was refused")
        self._ended.add(claim.job.digest)
        self.events["failed"] += 1
        self._at(0.0, lambda: self._look(worker))

    def _preempt(self, worker: Worker, claim: Claim, lasted: float) -> None:
        self._active.pop(claim.job.digest)
        self._left[claim.job.digest] -= lasted
        self._require(self.queue.release(claim), f"{claim.job.name}: its release was refused")
        self.events["preempted"] += 1
        self._start(RESTART_SECONDS)

    def _die(self, worker: Worker, claim: Claim, lasted: float) -> None:
        self._active.pop(claim.job.digest)
        self._left[claim.job.digest] -= lasted * self._random.random()  # to its last checkpoint
        self.events["died"] += 1
        self._start(RESTART_SECONDS)

    def _die_late(self, worker: Worker, claim: Claim, lasted: float) -> None:
        self.record.add(claim.job, Status.FINISHED, self._length[claim.job.digest])
        self._active.pop(claim.job.digest)
        self.events["died after the record"] += 1
        self._start(RESTART_SECONDS)

    def _freeze(self, worker: Worker, claim: Claim, lasted: float) -> None:
        self._active.pop(claim.job.digest)
        self.events["frozen"] += 1
        self._at(self._random.uniform(60, 600), lambda: self._wake(worker, claim, lasted))

    def _wake(self, worker: Worker, claim: Claim, lasted: float) -> None:
        """A frozen worker goes on; if its claim was lost, it must not change anything."""
        digest, name = claim.job.digest, claim.job.name
        if self.queue.renew(claim):
            self._active[digest] = worker.name
            self._live(worker, claim, self._left[digest] - lasted, self._finish)
            return
        self.events["came back too late"] += 1
        for what in ("finish", "release"):
            changed = getattr(self.queue, what)(claim)
            self._require(not changed, f"{name}: a lost claim could {what}")
        self.record.add(claim.job, Status.KILLED, lasted)
        self._at(0.0, lambda: self._look(worker))

    def _check_claim(self, claim: Claim, worker: Worker) -> None:
        job = claim.job
        holder = self._active.get(job.digest)
        self._require(holder is None, f"{job.name}: given to {worker.name}, made by {holder}")
        self._require(
            claim.token > self._tokens.get(job.digest, 0), f"{job.name}: token {claim.token} again"
        )
        self._tokens[job.digest] = claim.token
        self._require(
            not job.after or job.after in self._ended, f"{job.name}: begun before {job.after}"
        )
        known = self.jobs.get(job.digest)
        same = known is not None and dataclasses.replace(known, position=job.position) == job
        self._require(same, f"{job.name}: differs from the planned run")

    def _check_end(self) -> None:
        """Nothing was made twice, and nothing was lost."""
        entries = self.queue.entries()
        states = {entry.digest: entry.state for entry in entries}
        counts = self.queue.counts()
        self._require(states.keys() == self.jobs.keys(), "the queue has other runs than the plan")
        left = {state: counts[state] for state in (RUNNING, WAITING, BLOCKED) if counts[state]}
        self._require(not left, f"runs are left: {left}")
        missing = None in self._seconds.values() and Condition.TIME in self.suite.conditions
        self._require(not missing, f"no time budget after {ROUNDS} rounds: {self._seconds}")
        finished = {digest for digest, state in states.items() if state == FINISHED}
        self._require(finished == self.record.finished.keys(), "queue and record differ")
        twice = [digest for digest, number in self.record.finished.items() if number > 1]
        self._require(not twice, f"recorded twice: {twice}")
        self._require(counts[FAILED] + counts[FINISHED] == len(self.jobs), "runs have no end")

    def _require(self, holds: bool, text: str) -> None:
        if not holds:
            raise BrokenRuleError(f"at {self.now:.0f} s: {text}")
