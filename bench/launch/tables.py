"""The tables of a queue, and what their rows mean.

Boundary: columns and plain data; ``queue`` has the transactions.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final

import sqlalchemy as sa

from timetrial.bench.launch.graph import Job

WAITING, BLOCKED, RUNNING, FINISHED, FAILED = "waiting", "blocked", "running", "finished", "failed"
STATES: Final = (FINISHED, RUNNING, WAITING, BLOCKED, FAILED)
"""States of a run; a blocked one waits for another run to end."""

META = sa.MetaData()

RUNS = sa.Table(
    "timetrial_queue",
    META,
    sa.Column("experiment", sa.String(250), primary_key=True),
    sa.Column("digest", sa.String(16), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("settings", sa.Text, nullable=False),
    sa.Column("tags", sa.Text, nullable=False),
    sa.Column("after", sa.String(16), nullable=False),
    sa.Column("told_by", sa.Text, nullable=False),
    sa.Column("pool", sa.String(250), nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("token", sa.Integer, nullable=False, default=0),
    sa.Column("worker", sa.Text, nullable=False, default=""),
    sa.Column("started", sa.Float(53)),
    sa.Column("beat", sa.Float(53)),
    sa.Column("deaths", sa.Integer, nullable=False, default=0),
    sa.Column("repeats", sa.Integer, nullable=False, default=0),
    sa.Column("suspect", sa.Integer, nullable=False, default=0),
    sa.Column("error", sa.Text, nullable=False, default=""),
    sa.Index("timetrial_queue_next", "experiment", "state", "position"),
    sa.Index("timetrial_queue_after", "experiment", "after"),
)

RACES = sa.Table(
    "timetrial_races",
    META,
    sa.Column("experiment", sa.String(250), primary_key=True),
    sa.Column("planned", sa.String(64), nullable=False, default=""),
    sa.Column("cancelled", sa.Integer, nullable=False, default=0),
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A run that one worker makes.

    Attributes:
        job: the run.
        token: number of the claim, from 1; later claims of the run have higher ones.
        deaths: workers that died while they made it.
        again: it is finished, and made once more because its seconds are suspect.
    """

    job: Job
    token: int
    deaths: int
    again: bool


@dataclasses.dataclass(frozen=True)
class Entry:
    """A run in the queue, as ``timetrial status`` shows it.

    Attributes:
        digest, name, pool: those of the job.
        state: one of ``STATES``.
        worker: who makes it or made it last.
        seconds: since its claim, while it runs.
        silent_seconds: since the last sign of life, while it runs.
        deaths: workers that died while they made it.
        error: why it failed; "" otherwise.
    """

    digest: str
    name: str
    pool: str
    state: str
    worker: str
    seconds: float
    silent_seconds: float
    deaths: int
    error: str


def row_of(job: Job, experiment: str) -> dict[str, Any]:
    """The row of a job that nobody has claimed yet."""
    return {
        "experiment": experiment,
        "digest": job.digest,
        "position": job.position,
        "name": job.name,
        "settings": job.settings,
        "tags": json.dumps(dict(job.tags)),
        "after": job.after,
        "told_by": json.dumps(job.told_by),
        "pool": job.pool,
        "state": BLOCKED if job.after else WAITING,
    }


def job_of(row: Any) -> Job:
    """The job of a row."""
    return Job(
        row["digest"],
        row["name"],
        row["settings"],
        row["position"],
        row["after"],
        tuple(json.loads(row["told_by"])),
        json.loads(row["tags"]),
        row["pool"],
    )


def entry_of(row: Any) -> Entry:
    """What a row shows; its column ``now`` is the time of the query."""
    running = row["state"] == RUNNING
    return Entry(
        row["digest"],
        row["name"],
        row["pool"],
        row["state"],
        row["worker"],
        row["now"] - row["started"] if running else 0.0,
        row["now"] - row["beat"] if running else 0.0,
        row["deaths"],
        row["error"],
    )
