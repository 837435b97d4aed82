"""Keeps a claim alive while its run is made, and learns when it is lost.

Boundary: a thread that talks to the queue; ``experiment.run`` asks whether to stop.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, TypeVar

import sqlalchemy as sa

from timetrial.bench.launch.queue import Queue
from timetrial.bench.launch.tables import Claim
from timetrial.framework.errors import UserError

CONFIRM_SECONDS: Final = 600.0
"""Longest wait for a queue that is away; a run that has ended then counts as lost."""

RETRY_SECONDS: Final = 2.0
"""Pause between two attempts to reach it, in seconds."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


def patiently(call: Callable[[], T], tell: Callable[[str], None]) -> T:
    """What a call to a queue returns, as soon as the queue answers.

    Args:
        call: the call; it is repeated while the database is away.
        tell: shows a line when the wait begins.

    Raises:
        UserError: the database stayed away for ``CONFIRM_SECONDS``.
    """
    given_up, told = time.monotonic() + CONFIRM_SECONDS, False
    while True:
        try:
            return call()
        except sa.exc.DBAPIError as error:  # also the errors of a lost connection
            reason = " ".join(str(error.orig).split())[:200]
            if time.monotonic() > given_up:
                raise UserError(f"the queue of runs is away: {reason}") from error
        if not told:
            tell(f"the queue of runs is away, waiting up to {CONFIRM_SECONDS:.0f} s: {reason}")
            told = True
        time.sleep(RETRY_SECONDS)


class Keeper:
    """The owner of a claim; use it as a context manager while the run is made.

    A queue that fails stops no run: the claim is asked for again at the next heartbeat.

    Args:
        queue: the queue.
        claim: the claim.
        cancellations: how often the race was cancelled when this worker began.
        heartbeat_seconds: pause between two signs of life, > 0.

    Attributes:
        lost: True once another worker has the run.
        cancelled: True once the race was cancelled.
    """

    def __init__(
        self, queue: Queue, claim: Claim, cancellations: int, heartbeat_seconds: float
    ) -> None:
        self.lost = self.cancelled = False
        self._queue, self._claim = queue, claim
        self._cancellations = cancellations
        self._seconds = heartbeat_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def stopped(self) -> int:
        """SIGTERM once the claim is lost or the race cancelled, else 0."""
        return signal.SIGTERM if self.lost or self.cancelled else 0

    def confirm(self) -> bool:
        """Asks the queue whether the claim holds; waits while it fails."""
        given_up = time.monotonic() + CONFIRM_SECONDS
        while not self._asked():
            if time.monotonic() > given_up:
                self.lost = True
                break
            time.sleep(min(self._seconds, RETRY_SECONDS))
        return not self.lost

    def _beat(self) -> None:
        while not self.lost and not self._ended.wait(self._seconds):
            self._asked()

    def _asked(self) -> bool:
        """Renews the claim; False while the queue fails."""
        try:
            self.lost = not self._queue.renew(self._claim)
            self.cancelled = self._queue.cancellations() != self._cancellations
        except Exception as error:  # SQLAlchemy and its drivers share no class
            _log.debug("the queue failed: %s", error)
            return False
        return True
