"""Worker processes of a preparation, and how much of the work is done.

Boundary: runs tasks; independent of what they do.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from timetrial.workloads.data.errors import DataError

T = TypeVar("T")

POLL_SECONDS: Final = 0.5
"""Time between two reports of progress."""


class _Counter:
    """Work done by the tasks: in this process, or shared by all workers."""

    def __init__(self) -> None:
        self.shared: Any = None
        self.show: Callable[[int], None] | None = None
        self.done = 0


_COUNTER: Final = _Counter()


def advance(amount: int) -> None:
    """Adds to the work done; called by tasks."""
    if _COUNTER.shared is not None:
        with _COUNTER.shared.get_lock():
            _COUNTER.shared.value += amount
        return
    _COUNTER.done += amount
    if _COUNTER.show is not None:
        _COUNTER.show(_COUNTER.done)


def _start_worker(shared: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the workers
    _COUNTER.shared = shared


def _run(task: Callable[[], T]) -> T:
    return task()


def finished(
    tasks: Sequence[Callable[[], T]], processes: int, show: Callable[[int], None]
) -> Iterator[T]:
    """Runs tasks; yields results as they come.

    Args:
        tasks: picklable functions.
        processes: number of worker processes; 1 runs the tasks here, in order.
        show: takes the work done so far, as given to ``advance``.

    Raises:
        DataError: a worker process died. Exceptions of tasks are passed on.
    """
    if processes == 1 or len(tasks) < 2:
        _COUNTER.done, _COUNTER.show = 0, show
        try:
            for task in tasks:
                yield task()
        finally:
            _COUNTER.show = None
        return
    context = multiprocessing.get_context("spawn")
    shared = context.Value(ctypes.c_int64, 0)
    before = set(multiprocessing.active_children())
    pool = concurrent.futures.ProcessPoolExecutor(
        min(processes, len(tasks)), context, _start_worker, (shared,)
    )
    try:
        waiting = {pool.submit(_run, task) for task in tasks}
        while waiting:
            done, waiting = concurrent.futures.wait(
                waiting, POLL_SECONDS, concurrent.futures.FIRST_COMPLETED
            )
            show(shared.value)
            for future in done:
                yield future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise DataError(
            "a worker process ended unexpectedly, perhaps for lack of memory; "
            "the same command continues, with fewer --workers if need be"
        ) from error
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            with contextlib.suppress(OSError):
                child.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
