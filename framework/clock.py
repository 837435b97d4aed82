"""The clock: a ledger of wall time in which exactly one account is charged at any moment.

Boundary: measures only; it never stops a run and never looks at a metric.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import jax

from timetrial.framework.types import PyTree

TRAIN = "train"
"""The account that a time budget is compared with."""


class Clock:
    """Books wall time to accounts: ``compile``, ``train``, ``eval``, ``log`` and ``other``.

    Because every moment belongs to exactly one account, the accounts sum to the wall time since
    the clock was made. Dispatch in JAX is asynchronous, so an account is left only after the
    device has finished the work that was issued on it: ``charge(..., after=state)``.

    Args:
        now: returns seconds on a monotonic clock; replaced in tests.
        wait: blocks until arrays are computed; replaced in tests.
        account: charged first, and whenever nothing else is (set-up, mostly).
    """

    def __init__(
        self,
        now: Callable[[], float] = time.perf_counter,
        wait: Callable[[PyTree], object] = jax.block_until_ready,
        account: str = "other",
    ) -> None:
        self._now = now
        self._wait = wait
        self._account = account
        self._since = now()
        self._booked: dict[str, float] = {}

    def _switch(self, account: str) -> None:
        now = self._now()
        self._booked[self._account] = self.seconds(self._account, now)
        self._account, self._since = account, now

    @contextmanager
    def charge(self, account: str, after: PyTree = ()) -> Iterator[None]:
        """Charges ``account`` inside the ``with`` block, and the previous one again after it.

        Args:
            account: whom to charge.
            after: arrays that the previous account is still computing; it pays until they are
                ready. The block itself must end with its own arrays ready.
        """
        self._wait(after)
        previous = self._account
        self._switch(account)
        try:
            yield
        finally:
            self._switch(previous)

    def resume(self, accounts: Mapping[str, float]) -> None:
        """Adds the seconds of an earlier part of the run, as ``accounts`` gave them."""
        for name, seconds in accounts.items():
            self._booked[name] = self._booked.get(name, 0.0) + seconds

    def wait(self, arrays: PyTree) -> float:
        """Waits until ``arrays`` are computed; returns the train seconds at that moment."""
        self._wait(arrays)
        return self.train_seconds

    def seconds(self, account: str, now: float | None = None) -> float:
        """Seconds charged to ``account`` so far."""
        running = 0.0
        if account == self._account:
            running = (self._now() if now is None else now) - self._since
        return self._booked.get(account, 0.0) + running

    @property
    def train_seconds(self) -> float:
        """Seconds charged to training so far: what a time budget is compared with."""
        return self.seconds(TRAIN)

    def accounts(self) -> Mapping[str, float]:
        """Seconds by account at one moment; they sum to the wall time since the clock was made."""
        now = self._now()
        return {name: self.seconds(name, now) for name in sorted({*self._booked, self._account})}
