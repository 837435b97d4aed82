"""The connection to a store: opened at first use, and left alone for a while when it fails.

Boundary: time, attempts and a thread; the caller supplies what connects, checks and sends.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Literal

from timetrial.framework.errors import UserError
from timetrial.framework.signals import held
from timetrial.tracking.store.errors import OutageError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)

REST_FACTOR: Final = 9.0
"""Pause after a failure, in units of its duration: an outage takes a tenth of the wall time."""

LONGEST_PAUSE_SECONDS: Final = 600.0
SHORT_PAUSE_SECONDS: Final = 5.0
"""An urgent attempt is made in spite of a pause that ends within these seconds."""

BRIEF_SECONDS: Final = 2.0
"""Longest time of further requests after a second signal."""


Part = Literal["runs", "artifacts", "lists"]
"""Parts of a store that fail apart from each other: written runs, artifacts, what is read."""


class Connection:
    """A client of a store, and what is known of an outage.

    Args:
        connect: opens the store; called again after each failure.
        check: called before each attempt; raises if the store takes nothing, and returns False if
            it must be opened again.
        advice: what a warning says after the reason of an outage; "" gives no warnings.
        now: returns seconds on a monotonic clock; replaced in tests.

    Attributes:
        generation: number of times that the store was opened.
    """

    def __init__(
        self,
        connect: Callable[[], MlflowClient],
        check: Callable[[], bool] = lambda: True,
        advice: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.generation = 0
        self._connect = connect
        self._check = check
        self._advice = advice
        self._now = now
        self._client: MlflowClient | None = None
        self._deadline = math.inf
        self._outages: dict[Part, UserError] = {}
        self._paused_until: dict[Part, float] = {}
        self._under_way: threading.Event | None = None
        self._inside = threading.local()
        self._thread_deadline = math.inf
        self._thread_error: BaseException | None = None

    def later(self, action: Callable[[], object]) -> None:
        """Runs an action in a thread, after earlier ones; any other use waits for its end."""
        earlier, ended = self._under_way, threading.Event()

        def work() -> None:
            if earlier is not None:
                earlier.wait()
            self._inside.thread = True
            try:
                action()
            except BaseException as error:
                self._thread_error = error
            finally:
                ended.set()

        self._under_way = ended
        threading.Thread(target=work, name="tracking store").start()

    def settle(self) -> None:
        """Waits for the actions of ``later``; raises what they raised.

        Raises:
            KeyboardInterrupt: a signal came; the actions had ``BRIEF_SECONDS`` to end.
        """
        ended = self._under_way
        if ended is None or hasattr(self._inside, "thread"):
            return
        try:
            ended.wait()
        except KeyboardInterrupt:
            self._thread_deadline = self._now() + BRIEF_SECONDS
            with held():
                ended.wait()
            raise
        finally:
            if ended.is_set():
                self._under_way, self._thread_deadline = None, math.inf
        error, self._thread_error = self._thread_error, None
        if error is not None:
            raise error

    @property
    def client(self) -> MlflowClient:
        """The open client.

        Raises:
            OutageError: the store cannot be opened, or the time of an attempt is over.
        """
        self.settle()
        if self._now() > min(self._deadline, self._thread_deadline):
            raise OutageError("tracking store: too slow; the rest is sent later")
        if self._client is None:
            self._client = self._connect()
            self.generation += 1
        return self._client

    @property
    def outage(self) -> UserError | None:
        """The error of the last attempt to write runs; None if that succeeded."""
        return self._outages.get("runs")

    def attempt(
        self,
        action: Callable[[], object],
        *,
        part: Part = "runs",
        seconds: float = math.inf,
        urgent: bool = False,
    ) -> UserError | None:
        """Runs an action that uses the client; the first error of an outage gives a warning.

        After a failure this part of the store is left alone for nine times its duration.

        Args:
            action: what to run.
            part: what the action needs of the store.
            seconds: after this time no further request is made.
            urgent: try also shortly before the end of a pause.

        Returns:
            None after a success; else the error of this attempt, or of the last one in a pause.

        Raises:
            UserError: the action fails for another reason than an outage.
        """
        self.settle()
        left = self._paused_until.get(part, 0.0) - self._now()
        if part in self._outages and left > (SHORT_PAUSE_SECONDS if urgent else 0):
            return self._outages[part]
        began = self._now()
        try:
            with self._within(seconds):
                if not self._check():
                    self._client = None
                action()
        except OutageError as error:
            self.failed(error, self._now() - began, part)
            return error
        self._outages.pop(part, None)
        if part == "runs":  # so it also answers; the reverse is not true of a full disk
            self._outages.pop("lists", None)
        return None

    def failed(self, error: UserError, seconds: float, part: Part = "runs") -> None:
        """Notes a failure that took so long; warns unless the store failed before."""
        if not self._outages and self._advice:
            _log.warning("%s%s", error, self._advice)
        self._outages[part] = error
        rest = min(REST_FACTOR * seconds, LONGEST_PAUSE_SECONDS)
        self._paused_until[part] = self._now() + rest

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        self._deadline = self._now() + seconds
        try:
            yield
        finally:
            self._deadline = math.inf
