"""Exceptions of signals: raised again where Python or a library drops them."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from timetrial.framework.errors import Interrupted, InterruptedAgain
from timetrial.framework.signals import errors_of_plugins, noted, raise_interrupted


class Signalled:
    """Gets a signal while it is removed from memory: Python drops the exception there."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        for _ in range(100):
            pass


def dropped_by_a_finalizer() -> None:
    Signalled()
    for _ in range(1000):
        time.sleep(0.01)
    raise AssertionError("no signal came")


def test_an_interruption_dropped_by_a_finalizer_is_raised_once_more():
    before = sys.unraisablehook
    with pytest.raises(Interrupted) as stopped, raise_interrupted():
        dropped_by_a_finalizer()
    assert stopped.value.number == signal.SIGHUP
    assert sys.unraisablehook is before


def dropped_by_a_library(instead: Exception | None) -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.0)
    except KeyboardInterrupt:
        if instead is not None:
            raise instead from None


@pytest.mark.parametrize("instead", [None, ValueError("another error")])
def test_an_interruption_that_a_library_drops_ends_the_block(instead: Exception | None):
    with pytest.raises(Interrupted), raise_interrupted():
        dropped_by_a_library(instead)


def test_only_exceptions_of_signals_pass_as_such():
    told = pytest.raises(RuntimeError, match=r"KeyboardInterrupt\(\) was raised in a test")
    with raise_interrupted(), told, errors_of_plugins("in a test"):
        raise KeyboardInterrupt
    with raise_interrupted(), pytest.raises(Interrupted), errors_of_plugins("in a test"):
        raise Interrupted(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), errors_of_plugins("in a test"):
        raise KeyboardInterrupt  # Python's own handler may have raised it


def test_a_second_signal_ends_a_wait_for_the_first():
    with noted() as signalled:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert signalled() == signal.SIGTERM
        with pytest.raises(InterruptedAgain):
            signal.raise_signal(signal.SIGTERM)
