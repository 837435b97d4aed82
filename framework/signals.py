"""Signals that end the program: Ctrl-C, SIGTERM and SIGHUP.

Boundary: handlers of this process; the trainer ends a run, ``bench.experiment`` records it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from timetrial.framework.errors import Interrupted, InterruptedAgain

__all__ = [
    "ENDING",
    "Interrupted",
    "errors_of_plugins",
    "exit_at_once",
    "exit_with",
    "held",
    "noted",
    "raise_interrupted",
    "raise_noted",
]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end the program."""

_received: list[int] = []
"""All signals that were raised or noted in this process."""

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def exit_at_once(line: str) -> Iterator[None]:
    """Inside, a signal prints one line, if any, and ends the process; nothing may be open yet.

    Used during imports: C extensions may swallow or print an exception there. After another signal
    the process is ending anyway, and has its own line.
    """

    def end(number: int, frame: FrameType | None) -> None:
        if _received:
            return
        if line:
            os.write(2, f"timetrial: {line}\n".encode())
        os._exit(128 + number)

    with _handled_by(end):
        yield


def exit_with(code: int) -> None:
    """From now on a signal ends the process at once, with a code that is decided already."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        os._exit(code)

    _install(end)


@contextmanager
def raise_interrupted() -> Iterator[None]:
    """Inside, a signal raises ``Interrupted``, so that runs and files are closed properly.

    Libraries may drop the exception, or raise another one; the end of the block raises it again.
    Python drops it in finalizers and callbacks of the garbage collector; then it is raised once
    more, a moment later.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        received.append(number)
        _received.append(number)
        raise Interrupted(number)

    with _handled_by(interrupt), _raised_outside_finalizers():
        try:
            yield
        except Exception as error:
            if received:
                raise Interrupted(received[0]) from error
            raise
    if received:
        raise Interrupted(received[0])


@contextmanager
def _raised_outside_finalizers() -> Iterator[None]:
    """Sends the signal once more whose exception Python drops in a finalizer."""
    before = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, Interrupted):
            before(dropped)
            return
        again = threading.Timer(0.02, os.kill, (os.getpid(), dropped.exc_value.number))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        if sys.unraisablehook is hook:
            sys.unraisablehook = before


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
    _received.append(number)
    if _noted:
        raise InterruptedAgain(number)
    _noted.append(number)


def is_signal(stop: BaseException) -> bool:
    """True for an exception raised by a handler of signals, also by Python's own for Ctrl-C."""
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return isinstance(stop, Interrupted) or (default and isinstance(stop, KeyboardInterrupt))


@contextmanager
def errors_of_plugins(moment: str) -> Iterator[None]:
    """Turns what a plug-in raises to end the process (SystemExit, ...) into a RuntimeError.

    Args:
        moment: when it is raised, for the message.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as stop:
        if is_signal(stop):
            raise
        raise RuntimeError(f"{stop!r} was raised {moment}") from stop


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
    before = _install(handler)
    try:
        yield
    finally:
        for number, former in before.items():
            if signal.getsignal(number) is handler:  # ``exit_with`` stays
                signal.signal(number, former)


def _install(handler: Handler) -> Mapping[signal.Signals, Any]:
    """Installs a handler of the signals that are not ignored; returns their former ones."""
    before = {number: signal.getsignal(number) for number in ENDING}
    changed = {n: former for n, former in before.items() if former is not signal.SIG_IGN}
    for number in changed:
        signal.signal(number, handler)
    return changed
