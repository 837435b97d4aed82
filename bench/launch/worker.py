"""The command ``timetrial worker``: makes runs of a race until none is left, beside other workers.

Boundary: the loop of one process; ``queue`` says which run is next, ``making`` makes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import jax
import sqlalchemy as sa

from timetrial.bench.begun import note
from timetrial.bench.claims import SupersededError, TakenError
from timetrial.bench.launch.admission import admission, pool_tags
from timetrial.bench.launch.identity import is_gone, this_host, this_worker, worker_text
from timetrial.bench.launch.keeping import Keeper, patiently
from timetrial.bench.launch.places import open_queue
from timetrial.bench.launch.planner import Planner
from timetrial.bench.launch.pool import Pool, load_pool
from timetrial.bench.launch.queue import HEARTBEAT_SECONDS, SILENT_HEARTBEATS, Queue
from timetrial.bench.launch.tables import BLOCKED, FAILED, FINISHED, RUNNING, WAITING, Claim
from timetrial.bench.making import Made, Maker
from timetrial.bench.planning import begun_race, planned
from timetrial.bench.progress import Display
from timetrial.bench.resuming import is_over, named_journal, run_directory
from timetrial.bench.suite import Suite
from timetrial.bench.syncing import deliver_again, opened
from timetrial.bench.workshop import Workshop
from timetrial.framework import config as configuration
from timetrial.framework.config import RunConfig, Tracking
from timetrial.framework.errors import Interrupted, UserError
from timetrial.framework.overrides import split_off
from timetrial.framework.signals import raise_interrupted
from timetrial.framework.types import Condition
from timetrial.tracking.read.runs import is_finished
from timetrial.tracking.store.mirror import close_superseded
from timetrial.tracking.store.opening import Store

POLL_SECONDS: Final = 1.0
"""Shortest pause between two looks at a queue without a waiting run, in seconds."""

IDLE_SHARE: Final = 0.1
"""Longest pause, as a share of the time that a worker has found no run."""

COUNT_SECONDS: Final = 10.0
"""Pause between two counts of all runs for the display, in seconds: they cost the more the more
runs there are."""

LOCK_SECONDS: Final = 30.0
"""Time to wait for the files of a worker that lost its claim, but still holds them."""

CANCELLED: Final = "cancelled; the same command continues"


@dataclasses.dataclass(frozen=True)
class WorkerSettings:
    """Settings of one worker.

    Attributes:
        pool: name or file of the pool of identical machines it belongs to; "" makes no runs with
            time budgets of a pool.
        gpus: GPUs it must see, neither more nor fewer; 0 does not ask.
        heartbeat_seconds: pause between two signs of life, > 0; after four missed ones its run is
            given to another worker.
    """

    pool: str = ""
    gpus: int = 0
    heartbeat_seconds: float = HEARTBEAT_SECONDS

    def __post_init__(self) -> None:
        if self.gpus < 0:
            raise ValueError(f"gpus: expected a whole number >= 0, got {self.gpus}")
        if not 0 < self.heartbeat_seconds < math.inf:
            raise ValueError(
                f"heartbeat_seconds: expected a finite number > 0, got {self.heartbeat_seconds}"
            )


def split(words: Sequence[str]) -> tuple[WorkerSettings, list[str]]:
    """The settings ``worker.KEY=VALUE``, and the other words.

    Raises:
        ConfigError: a key is unknown or a value is out of range.
    """
    tree, rest = split_off(words, "worker")
    return configuration.convert(tree, WorkerSettings, "worker"), rest


def work(
    suite: Suite,
    tracking: Tracking,
    settings: WorkerSettings,
    *,
    repeat_suspect: bool = True,
    retry_failed: bool = False,
    typed: Sequence[str] = (),
) -> int:
    """Makes runs of a race until none is left that this worker can make.

    Args:
        suite: the suite.
        tracking: store, queue and experiment of the runs.
        settings: settings of the worker.
        repeat_suspect: at the end, make runs with suspect seconds once more.
        retry_failed: make failed runs once more.
        typed: the words of the command, for ``timetrial`` without one; empty where it is launched.

    Returns:
        The exit code: 1 when a run failed.
    """
    if settings.gpus and jax.device_count() != settings.gpus:
        raise UserError(
            f"worker.gpus={settings.gpus}: JAX sees {jax.device_count()} devices here; "
            "CUDA_VISIBLE_DEVICES chooses them"
        )
    with open_queue(tracking) as queue:
        return _worked(suite, tracking, settings, queue, repeat_suspect, retry_failed, typed)


def _worked(
    suite: Suite,
    tracking: Tracking,
    settings: WorkerSettings,
    queue: Queue,
    repeat_suspect: bool,
    retry_failed: bool,
    typed: Sequence[str],
) -> int:
    with queue.lock():  # one worker makes what a new database lacks
        store = opened(tracking)
    pool = load_pool(settings.pool) if settings.pool else None
    planner = Planner(suite, tracking, store, queue, pool)
    planner.plan(again=True)
    if typed:
        configs = planned(suite, tracking, store, pool)
        note(store.root, begun_race(suite, tracking, configs, typed))
    if retry_failed:
        queue.retry_failed()
    repeat = repeat_suspect and Condition.TIME in suite.conditions
    with raise_interrupted(), Display() as display:
        worker = Worker(tracking, settings, queue, store, planner, display)
        if pool is not None and Condition.TIME in suite.conditions:
            worker.join(pool)
        cancelled = worker.run(repeat)
    deliver_again(store, tracking)
    if cancelled:
        raise UserError(CANCELLED)
    left = queue.counts()
    if left[WAITING] or left[BLOCKED]:
        display.line(f"{left[WAITING] + left[BLOCKED]} runs wait for machines of other pools")
    return 1 if left[FAILED] or planner.without_budget() else 0


def idle_seconds(waited: float) -> float:
    """Pause before the next look of a worker that has found no run for ``waited`` seconds.

    Hundreds of workers may wait for one reference run; each second they would ask more than a
    database answers.
    """
    return min(max(POLL_SECONDS, IDLE_SHARE * waited), HEARTBEAT_SECONDS)


class Found(enum.Enum):
    """What a worker without a claim finds in the queue."""

    NOTHING_YET = enum.auto()
    NO_MORE = enum.auto()
    CANCELLED = enum.auto()


class Worker:
    """One worker of a race.

    Args:
        tracking, settings: as for ``work``.
        queue, store: the open queue and store.
        planner: adds runs to the queue.
        display: progress.
    """

    def __init__(
        self,
        tracking: Tracking,
        settings: WorkerSettings,
        queue: Queue,
        store: Store,
        planner: Planner,
        display: Display,
    ) -> None:
        self.tracking, self.settings = tracking, settings
        self.queue, self.store, self.planner, self.display = queue, store, planner, display
        self.maker = Maker(store, Workshop(), display)
        self.name = this_worker()
        self.pools = [""]
        self._proofs: dict[str, Mapping[str, str]] = {}
        self._begun = queue.cancellations()
        self._next_look = self._next_count = 0.0

    def join(self, pool: Pool) -> None:
        """Compares this machine with a pool; refused, it makes only runs of any machine."""
        for workload in self.planner.suite.workloads:
            found = admission(pool, workload, self.maker.workshop)
            if not found.admitted:
                self.display.line(f"not admitted to pool {pool.name}: {found.reason}")
                return
            self.display.line(f"admitted to pool {pool.name}: {workload}, {found.ratio:.3f}")
            self._proofs[workload] = pool_tags(pool, found)
        self.pools.append(pool.tag)

    def run(self, repeat: bool) -> bool:
        """Makes runs until none is left; True if the race was cancelled.

        Args:
            repeat: at the end, make runs with suspect seconds once more.
        """
        idle_since = time.monotonic()
        while True:
            found = patiently(lambda: self._look(repeat), self.display.line)
            if isinstance(found, Claim):
                self.make(found)
                idle_since = time.monotonic()
            elif found is Found.NOTHING_YET:
                time.sleep(idle_seconds(time.monotonic() - idle_since))
            else:
                return found is Found.CANCELLED

    def _look(self, repeat: bool) -> Claim | Found:
        """Claims the next run; else says what the queue is waiting for."""
        if self.queue.cancellations() != self._begun:
            return Found.CANCELLED
        self._take_back()
        while (claim := self.queue.claim(self.name, self.pools)) is None:
            if self.planner.plan():
                continue
            if self.queue.counts()[RUNNING]:
                return Found.NOTHING_YET
            if not (repeat and self.queue.repeat_suspects()):
                return Found.NO_MORE
        return claim

    def _take_back(self) -> None:
        """Takes back the runs of dead workers, at most once a second."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + min(self.settings.heartbeat_seconds, POLL_SECONDS)
        silent = SILENT_HEARTBEATS * self.settings.heartbeat_seconds
        for name in self.queue.take_back(is_gone, silent, this_host()):
            self.display.line(f"{name}: its worker died; another one continues it")

    def _show_place(self) -> None:
        """Shows how many runs have ended, counted at most every ``COUNT_SECONDS``."""
        now = time.monotonic()
        if now < self._next_count:
            return
        self._next_count = now + COUNT_SECONDS
        counts = patiently(self.queue.counts, self.display.line)
        self.display.at(counts[FINISHED] + counts[FAILED], sum(counts.values()))

    def make(self, claim: Claim) -> None:
        """Makes a claimed run, and says to the queue how it ended.

        Raises:
            UserError: this machine cannot make it as it was planned; it waits for another one.
            Interrupted: a signal came; the run is saved and waits.
        """
        self._show_place()
        keeper = Keeper(self.queue, claim, self._begun, self.settings.heartbeat_seconds)
        ended = False
        try:
            config = claim.job.config(self.tracking)
            with keeper:
                made = self._made(claim, config, keeper)
            timed = config.budget.limit_seconds is not None or claim.job.sets_budget
            suspect = made.is_suspect and timed
            end = functools.partial(self.queue.finish, claim, error=made.error, suspect=suspect)
            ended = patiently(end, self.display.line)
        except Interrupted:
            if not keeper.lost and not keeper.cancelled:
                raise
        except SupersededError:
            pass
        finally:
            if not ended:
                with contextlib.suppress(sa.exc.DBAPIError):  # else its heartbeats are missed
                    self.queue.release(claim)
        if keeper.lost:
            self.display.line(f"{claim.job.name}: another worker has taken it over")
        elif claim.job.sets_budget:
            patiently(lambda: self.planner.plan(again=True), self.display.line)

    def _made(self, claim: Claim, config: RunConfig, keeper: Keeper) -> Made:
        """Makes or continues a run, unless the record has it already."""
        directory = run_directory(config)
        recorded = self._is_recorded(config, directory)
        again = claim.again or (recorded and self.planner.is_due(claim.job))
        if recorded and not again:
            self.display.elsewhere(config)
            return Made()
        self._supersede(claim, named_journal(directory))
        began = time.monotonic()
        while True:
            try:
                return self.maker.make(
                    config,
                    {**claim.job.tags, **self._proof(claim, config)},
                    claim.job.told_by,
                    again=again,
                    owner=keeper,
                    directory=directory,
                )
            except TakenError:
                if claim.token > 1 and time.monotonic() - began > self._lock_seconds():
                    directory = run_directory(config) / f"claim-{claim.token}"
                    self._supersede(claim, "")
                elif not again and self._is_recorded(config, directory):
                    return Made()
                if number := keeper.stopped():
                    raise Interrupted(number) from None
                time.sleep(POLL_SECONDS)

    def _supersede(self, claim: Claim, continued: str) -> None:
        """Closes the attempts of earlier claims in the store, except the one to be continued."""
        if claim.token > 1:
            experiment, successor = self.tracking.experiment, worker_text(self.name)
            close_superseded(self.store, experiment, claim.job.digest, continued, successor)

    def _lock_seconds(self) -> float:
        return min(LOCK_SECONDS, 2 * self.settings.heartbeat_seconds)

    def _proof(self, claim: Claim, config: RunConfig) -> Mapping[str, str]:
        """Tags that prove that the machine is one of the run's pool."""
        return self._proofs[config.workload.name] if claim.job.pool else {}

    def _is_recorded(self, config: RunConfig, directory: Path) -> bool:
        """True when a journal here, or the store, has the finished run."""
        digest = configuration.digest(config)
        if is_over(self.store.root, directory):
            return True
        return is_finished(self.store, self.tracking.experiment, digest)
