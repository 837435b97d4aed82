"""A race by several workers: plans it, has workers started, shows progress, reports.

Boundary: between the command ``timetrial bench launcher=...`` and a launcher; makes no run itself.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from timetrial.bench.begun import note
from timetrial.bench.launch.launchers import Chosen
from timetrial.bench.launch.places import check_reachable, open_queue
from timetrial.bench.launch.planner import Planner
from timetrial.bench.launch.pool import load_pool
from timetrial.bench.launch.queue import Queue
from timetrial.bench.launch.tables import FAILED, FINISHED, RUNNING
from timetrial.bench.obstacles import obstacles
from timetrial.bench.planning import begun_race, headline, planned, print_left_out
from timetrial.bench.progress import Display
from timetrial.bench.report import report
from timetrial.bench.suite import Suite
from timetrial.bench.syncing import deliver_again, opened
from timetrial.bench.terminal import say
from timetrial.framework.config import Tracking
from timetrial.framework.errors import UserError
from timetrial.framework.paths import own_name
from timetrial.framework.types import Condition

LOOK_SECONDS: Final = 1.0
"""Pause between two looks at the queue, in seconds."""


def race_with(
    chosen: Chosen,
    suite: Suite,
    tracking: Tracking,
    words: Sequence[str],
    *,
    busy_machine: bool = False,
    include_suspect: bool = False,
    typed: Sequence[str] = (),
) -> int:
    """Races a suite with the workers of a launcher; the arguments else are those of ``race``.

    Args:
        chosen: the launcher.
        suite: the suite.
        tracking: store, queue and experiment of the runs.
        words: the words that the suite was read from, for the workers.
        busy_machine: race time budgets beside other processes.
        include_suspect: score runs whose seconds are suspect, too.
        typed: the words of this command, for ``timetrial`` without one.

    Returns:
        The exit code: 1 when a run failed or is missing.

    Raises:
        UserError: the launcher does not fit the suite or the store.
    """
    check(chosen, suite, tracking)
    command = ["worker", *words, *chosen.worker_words(), "--launched"]
    command += ["--busy-machine"] if busy_machine else []
    with open_queue(tracking) as queue:
        return _raced(chosen, suite, tracking, queue, command, include_suspect, typed)


def _raced(
    chosen: Chosen,
    suite: Suite,
    tracking: Tracking,
    queue: Queue,
    command: Sequence[str],
    include_suspect: bool,
    typed: Sequence[str],
) -> int:
    with queue.lock():
        store = opened(tracking)
    name = getattr(chosen.settings, "pool", "")
    pool = load_pool(name) if name else None
    planner = Planner(suite, tracking, store, queue, pool)
    planner.plan(again=True)
    queue.retry_failed()
    configs = planned(suite, tracking, store, pool)
    note(store.root, begun_race(suite, tracking, configs, typed))
    say(headline(suite, configs))
    print_left_out(suite)
    logs = Path(tracking.root).absolute() / "logs" / own_name(tracking.experiment)
    with Display() as display, _following(queue, len(configs), display):
        workers = chosen.launcher.workers or "as many"
        room = "" if chosen.launcher.workers else " as there is room for"
        display.line(f"{workers} workers{room} by launcher {chosen.name}; logs in {logs}")
        chosen.launcher.launch(command, logs)
    deliver_again(store, tracking)
    report(suite, tracking, store, include_suspect=include_suspect)
    return _told_failures(queue, planner)


def check(chosen: Chosen, suite: Suite, tracking: Tracking) -> None:
    """Refuses what cannot give a valid race.

    Raises:
        UserError: other machines do not reach the store, or seconds would not be comparable.
    """
    if chosen.launcher.leaves_machine:
        check_reachable(tracking, chosen.name)
    elif missing := obstacles(suite):
        raise UserError(f"suite {suite.name} cannot run here: {'; '.join(missing)}")
    if Condition.TIME not in suite.conditions:
        return
    settings = chosen.settings
    gpus, pool = getattr(settings, "gpus", 0), getattr(settings, "pool", "")
    if chosen.launcher.leaves_machine and not pool:
        raise UserError(
            f"launcher={chosen.name}: expected launcher.pool=NAME for time budgets: seconds compare"
            " on identical machines only (timetrial pool NAME); conditions=[step] needs none"
        )
    if chosen.launcher.workers > 1 and not gpus and not chosen.launcher.leaves_machine:
        raise UserError(
            f"launcher.workers={chosen.launcher.workers}: expected launcher.workers=1 for time "
            "budgets without GPUs: runs beside each other slow each other down; conditions=[step] "
            "allows more"
        )


@contextlib.contextmanager
def _following(queue: Queue, planned_runs: int, display: Display) -> Iterator[None]:
    """Shows the progress of all workers from a thread, inside its ``with`` block."""
    ended = threading.Event()

    def follow() -> None:
        shown: dict[str, int] = {}
        while not ended.wait(LOOK_SECONDS):
            try:
                counts = queue.counts()
            except Exception:  # the queue fails for a while; SQLAlchemy's drivers share no class
                continue
            if counts != shown:
                shown = counts
                total = max(planned_runs, sum(counts.values()))
                display.at(counts[FINISHED] + counts[FAILED], total)
                display.line(progress_text(counts, total))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def progress_text(counts: dict[str, int], total: int) -> str:
    """The states of all runs in one line; a total may include runs that are not known yet."""
    waiting = total - counts[FINISHED] - counts[RUNNING] - counts[FAILED]
    failed = f", {counts[FAILED]} failed" if counts[FAILED] else ""
    return (
        f"{counts[FINISHED]} of {total} finished, {counts[RUNNING]} running, {waiting} waiting"
        f"{failed}"
    )


def _told_failures(queue: Queue, planner: Planner) -> int:
    """Prints failed runs and missing time budgets; returns the exit code."""
    failed = queue.entries(FAILED)
    for entry in failed:
        print(f"timetrial: FAILED {entry.name}: {entry.error}", file=sys.stderr)
    planner.plan(again=True)
    missing = planner.without_budget()
    for workload in missing:
        text = "its reference run has not finished, and only a finished one sets the seconds"
        print(f"timetrial: FAILED {workload}, time budgets: {text}", file=sys.stderr)
    counts = queue.counts()
    left = sum(counts.values()) - counts[FINISHED] - counts[FAILED]
    if left:
        print(f"timetrial: {left} runs are left; the same command continues", file=sys.stderr)
    return 1 if failed or missing or left else 0
