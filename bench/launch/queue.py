"""The queue of a race: its runs in a database, each claimed by one worker at a time.

Boundary: one table and its transactions; makes no run and reads no record. The record says which
runs are finished: the queue only says who makes which one next, and can be rebuilt from the record.

A claim has a number that grows with every claim of a run, a fencing token: Martin Kleppmann, "How
to do distributed locking", 2016,
https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html. Every later change names
it, so that a worker which was only thought dead changes nothing any more.
Times are those of the database: clocks of machines may differ.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from timetrial.bench.launch.graph import Job
from timetrial.bench.launch.tables import (
    BLOCKED,
    FAILED,
    FINISHED,
    META,
    RACES,
    RUNNING,
    RUNS,
    STATES,
    WAITING,
    Claim,
    Entry,
    entry_of,
    job_of,
    row_of,
)

HEARTBEAT_SECONDS: Final = 15.0
SILENT_HEARTBEATS: Final = 4
"""Missed heartbeats after which a worker counts as dead."""

MAX_DEATHS: Final = 4
"""Deaths of workers after which a run is given up: the run may be their cause."""

_CLOCKS: Final = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch from clock_timestamp())",
}

_LOCK: Final = zlib.crc32(b"timetrial queue")


class Queue:
    """The runs of one experiment in a database; a context manager that closes its connections.

    Args:
        engine: sqlite or PostgreSQL.
        experiment: experiment of the runs.
        clock: returns seconds since 1970; None takes the database's clock.
    """

    def __init__(
        self, engine: sa.Engine, experiment: str, clock: Callable[[], float] | None = None
    ) -> None:
        self.engine = engine
        self.experiment = experiment
        self._clock = clock
        self._mine = RUNS.c.experiment == experiment

    def __enter__(self) -> Queue:
        return self

    def __exit__(self, *exception: object) -> None:
        self.engine.dispose()

    def make_tables(self) -> None:
        """Makes the tables that are missing; several workers may call it at once."""
        with self.lock():
            META.create_all(self.engine)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Excludes other workers inside; for what is done once per race.

        With sqlite nothing is excluded: its own transactions do that.
        """
        if self.engine.dialect.name != "postgresql":
            yield
            return
        with self.engine.connect() as connection:
            connection.execute(sa.text(f"SELECT pg_advisory_lock({_LOCK})"))
            try:
                yield
            finally:
                connection.execute(sa.text(f"SELECT pg_advisory_unlock({_LOCK})"))

    def add(self, jobs: Iterable[Job], plan: str = "") -> None:
        """Adds the jobs that the queue lacks; the others stay as they are.

        Args:
            jobs: the jobs.
            plan: identity of what the jobs were planned from, for ``planned``.
        """
        rows = [row_of(job, self.experiment) for job in jobs]
        with self.engine.begin() as connection:
            for start in range(0, len(rows), 500):
                connection.execute(
                    self._insert(RUNS).on_conflict_do_nothing(), rows[start : start + 500]
                )
            self._unblock(connection)
            self._set_race(connection, planned=plan)

    def planned(self, plan: str) -> bool:
        """True when the jobs of a plan were the last ones added."""
        query = sa.select(RACES.c.planned).where(RACES.c.experiment == self.experiment)
        with self.engine.connect() as connection:
            return connection.execute(query).scalar() == plan

    def claim(self, worker: str, pools: Sequence[str] = ("",)) -> Claim | None:
        """Claims the first waiting run; None if none waits.

        Args:
            worker: who makes it.
            pools: pools of the worker's machine; "" stands for runs of any machine.
        """
        first = (
            sa.select(RUNS)
            .where(self._mine, RUNS.c.state == WAITING, RUNS.c.pool.in_(pools))
            .order_by(RUNS.c.position)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with self.engine.begin() as connection:
            row = connection.execute(first).mappings().first()
            if row is None:
                return None
            now, token = self._now(), row["token"] + 1
            taken = {"state": RUNNING, "token": token, "worker": worker, "started": now}
            connection.execute(
                self._update(row["digest"]).values({**taken, "beat": now, "error": ""})
            )
        return Claim(job_of(row), token, row["deaths"], row["repeats"] > 0)

    def renew(self, claim: Claim) -> bool:
        """A sign of life of a claim's worker; False when another worker has the run."""
        with self.engine.begin() as connection:
            held = self._held(claim).values(beat=self._now())
            return connection.execute(held).rowcount == 1

    def finish(self, claim: Claim, *, error: str = "", suspect: bool = False) -> bool:
        """Ends a run, finished or, with an error, failed; runs that wait for it may begin.

        Returns:
            False when another worker has the run; nothing is changed then.
        """
        state = FAILED if error else FINISHED
        held = self._held(claim).values(state=state, error=error[:2000], suspect=int(suspect))
        with self.engine.begin() as connection:
            if connection.execute(held).rowcount != 1:
                return False
            self._unblock(connection, claim.job.digest)
        return True

    def release(self, claim: Claim) -> bool:
        """Gives a claim back: the run waits for another worker, or for the same one."""
        with self.engine.begin() as connection:
            return connection.execute(self._held(claim).values(state=WAITING)).rowcount == 1

    def take_back(
        self,
        gone: Callable[[str], bool] = lambda worker: False,
        seconds: float = SILENT_HEARTBEATS * HEARTBEAT_SECONDS,
        near: str = "",
    ) -> list[str]:
        """Takes back the runs of dead workers: they wait again, or fail after ``MAX_DEATHS``.

        Args:
            gone: says whether a worker is known to be dead.
            seconds: time without a sign of life after which any worker counts as dead.
            near: beginning of the names of those workers that ``gone`` is asked about.

        Returns:
            The names of the runs.
        """
        running = (RUNS.c.digest, RUNS.c.name, RUNS.c.worker, RUNS.c.token, RUNS.c.deaths)
        silent = self._now() - RUNS.c.beat
        query = sa.select(*running, silent.label("silent")).where(
            sa.or_(silent > seconds, RUNS.c.worker.startswith(near, autoescape=True))
        )
        names = []
        with self.engine.begin() as connection:
            for row in connection.execute(query.where(self._mine, RUNS.c.state == RUNNING)):
                if row.silent <= seconds and not gone(row.worker):
                    continue
                lost = row.deaths + 1 >= MAX_DEATHS
                error = f"given up: {MAX_DEATHS} workers died while they made it" if lost else ""
                changed = self._update(row.digest).where(
                    RUNS.c.state == RUNNING, RUNS.c.token == row.token
                )
                state = FAILED if lost else WAITING
                done = connection.execute(
                    changed.values(state=state, deaths=row.deaths + 1, error=error)
                )
                names += [row.name] if done.rowcount else []
                if lost:
                    self._unblock(connection, row.digest)
        return names

    def retry_failed(self) -> int:
        """Lets the failed runs wait again; returns their number."""
        failed = sa.update(RUNS).where(self._mine, RUNS.c.state == FAILED)
        with self.engine.begin() as connection:
            return int(connection.execute(failed.values(state=WAITING, deaths=0)).rowcount)

    def repeat_suspects(self) -> int:
        """Lets the runs with suspect seconds wait again, each once; returns their number.

        Reference runs are left out: other runs have taken their seconds already.
        """
        suspects = sa.update(RUNS).where(
            self._mine,
            RUNS.c.state == FINISHED,
            RUNS.c.suspect == 1,
            RUNS.c.repeats == 0,
            RUNS.c.tags.not_like('%"sets_time_budget"%'),
        )
        with self.engine.begin() as connection:
            return int(connection.execute(suspects.values(state=WAITING, repeats=1)).rowcount)

    def reopen(self, digests: Iterable[str], pool: str) -> None:
        """Lets finished runs of other machines wait for those of a pool."""
        elsewhere = sa.update(RUNS).where(
            self._mine,
            RUNS.c.digest.in_(list(digests)),
            RUNS.c.state == FINISHED,
            RUNS.c.pool != pool,
        )
        with self.engine.begin() as connection:
            connection.execute(elsewhere.values(state=WAITING, pool=pool))

    def settle(self, digests: Iterable[str]) -> None:
        """Marks waiting runs as finished that the record has already."""
        known = [{"known": digest} for digest in digests]
        # One row each, by the primary key: with lists of digests sqlite reads all waiting runs.
        open_ = self._update(sa.bindparam("known", type_=sa.String)).where(
            sa.or_(RUNS.c.state == WAITING, RUNS.c.state == BLOCKED), RUNS.c.repeats == 0
        )
        with self.engine.begin() as connection:
            if known:
                connection.execute(open_.values(state=FINISHED), known)
            self._unblock(connection)

    def counts(self) -> dict[str, int]:
        """Number of runs by state."""
        query = sa.select(RUNS.c.state, sa.func.count()).where(self._mine)
        with self.engine.connect() as connection:
            rows = connection.execute(query.group_by(RUNS.c.state)).all()
        found = {row[0]: int(row[1]) for row in rows}
        return {state: found.get(state, 0) for state in STATES}

    def entries(self, *states: str) -> list[Entry]:
        """The runs in the order of the race; with states, only those."""
        shown = [column for column in RUNS.c if column.name not in ("settings", "told_by", "tags")]
        query = sa.select(*shown, self._now().label("now")).where(self._mine)
        if states:
            query = query.where(RUNS.c.state.in_(states))
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(RUNS.c.position)).mappings().all()
        return [entry_of(row) for row in rows]

    def cancel(self) -> int:
        """Asks all workers of now to end; returns the number of running runs."""
        with self.engine.begin() as connection:
            self._set_race(connection, cancelled=RACES.c.cancelled + 1)
        return self.counts()[RUNNING]

    def cancellations(self) -> int:
        """How often the race was cancelled."""
        query = sa.select(RACES.c.cancelled).where(RACES.c.experiment == self.experiment)
        with self.engine.connect() as connection:
            return int(connection.execute(query).scalar() or 0)

    def forget(self) -> int:
        """Removes all runs from the queue, not from the record; returns their number."""
        with self.engine.begin() as connection:
            connection.execute(sa.delete(RACES).where(RACES.c.experiment == self.experiment))
            return int(connection.execute(sa.delete(RUNS).where(self._mine)).rowcount)

    def _now(self) -> sa.ColumnElement[float]:
        if self._clock is not None:
            return sa.literal(self._clock(), sa.Float(53))
        return sa.literal_column(_CLOCKS[self.engine.dialect.name], sa.Float(53))

    def _update(self, digest: str | sa.BindParameter[str]) -> sa.Update:
        return sa.update(RUNS).where(self._mine, RUNS.c.digest == digest)

    def _held(self, claim: Claim) -> sa.Update:
        held = (RUNS.c.state == RUNNING, RUNS.c.token == claim.token)
        return self._update(claim.job.digest).where(*held)

    def _insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """An insert that can skip or change rows which are there already."""
        if self.engine.dialect.name == "postgresql":
            return postgresql.insert(table)
        return sqlite.insert(table)

    def _set_race(self, connection: sa.Connection, **values: Any) -> None:
        first = {name: value if isinstance(value, str) else 1 for name, value in values.items()}
        insert = self._insert(RACES).values(
            {"planned": "", "cancelled": 0, **first, "experiment": self.experiment}
        )
        connection.execute(insert.on_conflict_do_update(index_elements=["experiment"], set_=values))

    def _unblock(self, connection: sa.Connection, ended: str = "") -> None:
        """Lets runs wait whose first trial has ended; those of one trial, or all."""
        blocked = sa.update(RUNS).where(self._mine, RUNS.c.state == BLOCKED)
        if ended:
            chosen = RUNS.c.after == ended
        else:
            others = RUNS.alias()
            chosen = ~sa.exists().where(
                others.c.experiment == self.experiment,
                others.c.digest == RUNS.c.after,
                others.c.state.in_((WAITING, BLOCKED, RUNNING)),
            )
        connection.execute(blocked.where(chosen).values(state=WAITING))
