"""Signals that end the program: Ctrl-C, SIGTERM and SIGHUP.

Boundary: handlers of this process; the trainer ends a run, ``bench.experiment`` records it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from timetrial.framework.errors import Interrupted, InterruptedAgain

__all__ = [
    "ENDING",
    "Interrupted",
    "exit_at_once",
    "held",
    "noted",
    "raise_interrupted",
    "raise_noted",
]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end the program."""

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def exit_at_once(line: str) -> Iterator[None]:
    """Inside, a signal prints one line and ends the process; nothing may be open yet.

    Used during imports: C extensions may swallow or print an exception there.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        os.write(2, f"timetrial: {line}\n".encode())
        os._exit(128 + number)

    with _handled_by(end):
        yield


@contextmanager
def raise_interrupted() -> Iterator[None]:
    """Inside, a signal raises ``Interrupted``, so that runs and files are closed properly."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise Interrupted(number)

    with _handled_by(interrupt):
        yield


_noted: list[int] = []
"""The signal that ``noted`` has received; one at most."""


@contextmanager
def noted() -> Iterator[Callable[[], int]]:
    """Inside, the first signal is noted only; a second one raises ``InterruptedAgain``.

    A block inside another one shares what that has received.

    Yields:
        A function that returns the number of the signal, 0 without.
    """
    inner = signal.getsignal(signal.SIGTERM) is _note
    with _handled_by(_note):
        try:
            yield lambda: _noted[0] if _noted else 0
        finally:
            if not inner:
                _noted.clear()


def _note(number: int, frame: FrameType | None) -> None:
    if _noted:
        raise InterruptedAgain(number)
    _noted.append(number)


def raise_noted() -> None:
    """Raises ``Interrupted`` if a signal was noted: for long waits inside ``noted``."""
    if _noted:
        raise Interrupted(_noted[0])


@contextmanager
def held() -> Iterator[None]:
    """Inside, signals wait: for short writes that must not be cut."""
    received: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        received.append(number)

    try:
        with _handled_by(hold):
            yield
    finally:
        for number in received[-1:]:
            signal.raise_signal(number)


@contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    """Installs a handler; ignored signals (``nohup``) stay ignored. Main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    changed = [number for number in ENDING if before[number] is not signal.SIG_IGN]
    for number in changed:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])
