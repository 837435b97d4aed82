from __future__ import annotations

import logging
import os
import signal
import threading
import time as clocks
from typing import Any

import pytest

from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.store.connection import Connection
from timetrial.tracking.store.errors import OutageError


class Time:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def connection(time: Time, connect: Any = object, **options: Any) -> Connection:
    return Connection(connect, advice="; later", now=time, **options)


@pytest.mark.parametrize("timeout", [0.01, 1.0, 10.0, 60.0])
def test_an_outage_takes_a_tenth_of_the_wall_time_at_most(timeout: float):
    time = Time()
    store = connection(time)
    wasted = 0.0

    def hang() -> None:
        nonlocal wasted
        time.seconds += timeout
        wasted += timeout
        raise OutageError("timed out")

    for _ in range(2000):  # evaluations, 5 seconds apart
        time.seconds += 5.0
        store.attempt(hang)
    assert wasted <= timeout + 0.1 * (time.seconds - 1000.0)
    for _ in range(500):  # ends of short runs
        time.seconds += 1.0
        store.attempt(hang, urgent=True)
    assert wasted <= timeout + 0.2 * (time.seconds - 1000.0) + 5 * (timeout < 5)


def test_an_outage_is_told_once_and_again_after_it_ended(caplog: pytest.LogCaptureFixture):
    time = Time()
    store = connection(time)
    fails = True

    def send() -> None:
        if fails:
            raise OutageError("no answer")

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert isinstance(store.attempt(send), OutageError)
            time.seconds += 1
        assert [each.getMessage() for each in caplog.records] == ["no answer; later"]
        fails = False
        assert store.attempt(send) is None
        assert store.outage is None
        fails = True
        store.attempt(send)
    assert len(caplog.records) == 2


def test_lists_that_can_be_read_do_not_end_the_outage_of_a_full_disk(
    caplog: pytest.LogCaptureFixture,
):
    store = connection(Time())

    def full() -> None:
        raise OutageError("disk full")

    for _ in range(3):
        assert store.attempt(full) is not None
        assert store.attempt(lambda: None, part="lists") is None
    assert len(caplog.records) == 1


def test_what_is_no_outage_is_raised():
    store = connection(Time())

    def refuse() -> None:
        raise TrackingError("was deleted")

    with pytest.raises(TrackingError, match="was deleted"):
        store.attempt(refuse)
    assert store.outage is None


def test_a_store_is_opened_at_first_use_and_again_after_a_failure():
    opened: list[str] = []

    def connect() -> Any:
        opened.append("try")
        if len(opened) == 1:
            raise OutageError("not yet")
        return "client"

    same = True
    store = connection(Time(), connect, check=lambda: same)
    assert opened == []
    with pytest.raises(OutageError):
        _ = store.client
    assert (store.client, store.client, len(opened)) == ("client", "client", 2)
    assert store.generation == 1
    same = False  # the file was replaced
    assert store.attempt(lambda: store.client) is None
    assert (len(opened), store.generation) == (3, 2)


def test_no_request_is_made_when_the_time_of_an_attempt_is_over():
    time = Time()
    store = connection(time)
    requests = 0

    def slow() -> None:
        nonlocal requests
        for _ in range(10):
            _ = store.client
            requests += 1
            time.seconds += 4.0

    assert isinstance(store.attempt(slow, seconds=15.0), OutageError)
    assert requests == 4
    assert store.client is not None  # outside of an attempt there is no limit


def test_any_use_waits_for_what_is_done_aside_in_its_order():
    store, done = connection(Time()), []
    go = threading.Event()

    def first() -> None:
        go.wait(10)
        assert store.attempt(lambda: done.append(store.client and "first")) is None

    store.later(first)
    store.later(lambda: done.append("second"))
    assert done == []  # neither call has waited
    threading.Timer(0.05, go.set).start()
    _ = store.client
    done.append("used")
    assert done == ["first", "second", "used"]


def test_an_error_aside_is_raised_once_by_the_next_use():
    def broken() -> None:
        raise RuntimeError("a mistake of ours")

    store = connection(Time())
    store.later(broken)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        store.attempt(lambda: None)
    assert store.attempt(lambda: None) is None


def test_a_signal_leaves_what_is_done_aside_two_seconds():
    time, asked = Time(), []
    store = connection(time)

    def requests() -> None:
        while len(asked) < 1000:
            clocks.sleep(0.02)
            time.seconds += 0.5
            asked.append(store.client)

    answers = []
    store.later(lambda: answers.append(store.attempt(requests, seconds=60.0)))
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        store.settle()
    assert 4 <= len(asked) <= 30
    assert isinstance(answers[0], OutageError)
    assert store.client is not None  # later uses have their time again
