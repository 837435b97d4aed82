"""The commands ``timetrial status`` and ``timetrial cancel``: a race as its queue knows it.

Boundary: prints; any machine that reaches the queue may ask.
"""

from __future__ import annotations

import json

from timetrial.bench.launch.driver import progress_text
from timetrial.bench.launch.identity import worker_text
from timetrial.bench.launch.places import open_queue, queue_exists
from timetrial.bench.launch.queue import Queue
from timetrial.bench.launch.tables import BLOCKED, FAILED, FINISHED, RUNNING, WAITING, Entry
from timetrial.bench.progress import duration
from timetrial.framework.config import Tracking
from timetrial.framework.errors import UserError

SILENT_SECONDS = 30.0
"""Time without a sign of life that is worth a word."""


def status(tracking: Tracking, *, all_runs: bool = False, as_json: bool = False) -> int:
    """Prints what runs, what failed, and how many runs wait.

    Args:
        tracking: queue and experiment of the race.
        all_runs: list the finished and waiting runs, too.
        as_json: print one JSON document instead.
    """
    shown = (RUNNING, FAILED, *((FINISHED, WAITING, BLOCKED) if all_runs else ()))
    with _existing(tracking) as queue:
        counts, entries = queue.counts(), queue.entries(*shown)
    if as_json:
        runs = [{**vars(entry), "worker": worker_text(entry.worker)} for entry in entries]
        print(json.dumps({"experiment": tracking.experiment, "counts": counts, "runs": runs}))
        return 0
    print(f"{tracking.experiment}: {progress_text(counts, sum(counts.values()))}")
    for entry in entries:
        print(f"  {entry.state:<9} {entry.name:<44} {_details(entry)}".rstrip())
    return 0


def cancel(tracking: Tracking, *, forget: bool = False) -> int:
    """Ends the workers of now; their runs are saved, and wait.

    Args:
        tracking: queue and experiment of the race.
        forget: remove the runs from the queue; recorded ones stay recorded.
    """
    with _existing(tracking) as queue:
        running = queue.cancel()
        print(
            f"{tracking.experiment}: cancelled; {running} running runs end within a minute, saved; "
            "the same command continues the race"
        )
        if forget:
            print(f"{queue.forget()} runs removed from the queue; what is recorded stays recorded")
    return 0


def _details(entry: Entry) -> str:
    if entry.state == RUNNING:
        text = f"{worker_text(entry.worker)}, for {duration(entry.seconds)}"
        silent = f", silent for {duration(entry.silent_seconds)}"
        return text + (silent if entry.silent_seconds > SILENT_SECONDS else "")
    if entry.state == FAILED:
        return entry.error
    return f"pool {entry.pool}" if entry.pool and entry.state != FINISHED else ""


def _existing(tracking: Tracking) -> Queue:
    """The queue of a race that workers have begun.

    Raises:
        UserError: there is none.
    """
    queue = open_queue(tracking) if queue_exists(tracking) else None
    if queue is None or not any(queue.counts().values()):
        raise UserError(
            f"no workers have raced in {tracking.experiment!r} yet; begin with: timetrial bench "
            "launcher=local launcher.workers=2, or timetrial worker"
        )
    return queue
