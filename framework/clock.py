"""The clock: a ledger of wall time; exactly one account is charged at any moment.

Boundary: measures time; stops no run and reads no metric.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from timetrial.framework.meter import Meter
from timetrial.framework.types import PyTree

TRAIN = "train"
"""Account of updates; a time budget limits it together with ``DATA_WAIT``."""

DATA_WAIT = "data_wait"
"""Account of waiting for the next batch."""


T = TypeVar("T")


def charged(accounts: Mapping[str, float]) -> float:
    """Charged seconds among those of all accounts: updates, and the wait for their batches."""
    return accounts.get(TRAIN, 0.0) + accounts.get(DATA_WAIT, 0.0)


def _block_until_ready() -> Callable[[PyTree], object]:
    """JAX's function; readers of records import this module without JAX."""
    import jax

    return jax.block_until_ready


class Clock:
    """Books wall time to accounts: ``compile``, ``train``, ``data_wait``, ``eval``, ``log``, ....

    Every moment belongs to exactly one account, so the accounts sum to the wall time since the
    clock was made. Dispatch in JAX is asynchronous: an account is charged until the device has
    finished the work issued under it (``charge(..., after=state)``). CPU seconds of the process are
    booked likewise.

    Args:
        now: returns seconds on a monotonic clock; replaced in tests.
        wait: blocks until arrays are computed (default: JAX's function); replaced in tests.
        account: charged first, and outside every ``charge`` block (mostly set-up).
        cpu: returns the CPU seconds of this process, all threads together; replaced in tests.
        meter: observes the machine while charged time runs; it is read outside charged time.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.perf_counter,
        wait: Callable[[PyTree], object] | None = None,
        account: str = "other",
        cpu: Callable[[], float] = time.process_time,
        meter: Meter | None = None,
    ) -> None:
        self._now = now
        self._wait = wait or _block_until_ready()
        self._cpu = cpu
        self._account = account
        self._since = now()
        self._cpu_since = cpu()
        self._booked: dict[str, float] = {}
        self._cpu_booked: defaultdict[str, float] = defaultdict(float)
        self.meter = meter

    def _switch(self, account: str) -> None:
        starts, ends = (account == TRAIN, self._account == TRAIN)
        if self.meter is not None and starts and not ends:
            self.meter.start()
        now, cpu = self._now(), self._cpu()
        self._booked[self._account] = self.seconds(self._account, now)
        self._cpu_booked[self._account] += cpu - self._cpu_since
        self._account, self._since, self._cpu_since = account, now, cpu
        if self.meter is not None and ends and not starts:
            self.meter.stop()

    def take(self, items: Iterator[T]) -> T:
        """The next item; the wait for it, inside ``charge(TRAIN)``, is booked to ``DATA_WAIT``.

        Charged seconds include it. CPU seconds and the meter go on under ``TRAIN``.
        """
        began = self._now()
        self._booked[TRAIN] = self._booked.get(TRAIN, 0.0) + (began - self._since)
        try:
            return next(items)
        finally:
            self._since = self._now()
            self._booked[DATA_WAIT] = self._booked.get(DATA_WAIT, 0.0) + (self._since - began)

    @contextmanager
    def charge(self, account: str, after: PyTree = ()) -> Iterator[None]:
        """Charges ``account`` inside the ``with`` block, and the previous one again after it.

        Args:
            account: account to charge.
            after: arrays still being computed under the previous account, which is charged until
                they are ready. The block must end with its own arrays ready.
        """
        self._wait(after)
        previous = self._account
        self._switch(account)
        try:
            yield
        finally:
            self._switch(previous)

    def resume(
        self,
        accounts: Mapping[str, float],
        cpu_accounts: Mapping[str, float] | None = None,
        machine: Mapping[str, float] | None = None,
    ) -> None:
        """Adds an earlier part of the run: its ``accounts``, ``cpu_accounts`` and ``machine``."""
        for name, seconds in accounts.items():
            self._booked[name] = self._booked.get(name, 0.0) + seconds
        for name, seconds in (cpu_accounts or {}).items():
            self._cpu_booked[name] += seconds
        if self.meter is not None:
            self.meter.resume(machine or {})

    def wait(self, arrays: PyTree) -> float:
        """Waits until ``arrays`` are computed; returns the charged seconds at that moment."""
        self._wait(arrays)
        return self.train_seconds

    def seconds(self, account: str, now: float | None = None) -> float:
        """Seconds of ``account`` so far."""
        running = 0.0
        if account == self._account:
            running = (self._now() if now is None else now) - self._since
        return self._booked.get(account, 0.0) + running

    @property
    def train_seconds(self) -> float:
        """Charged seconds so far, waiting for data included; a time budget limits them."""
        return self.seconds(TRAIN) + self._booked.get(DATA_WAIT, 0.0)

    def accounts(self) -> Mapping[str, float]:
        """Seconds by account at one moment; they sum to the wall time since the clock was made."""
        now = self._now()
        return {name: self.seconds(name, now) for name in sorted({*self._booked, self._account})}

    def cpu_accounts(self) -> Mapping[str, float]:
        """CPU seconds of the process by account, since the clock was made."""
        running = {self._account: self._cpu() - self._cpu_since}
        names = sorted({*self._cpu_booked, self._account})
        return {name: self._cpu_booked[name] + running.get(name, 0.0) for name in names}

    def machine(self) -> Mapping[str, float]:
        """Sums of the meter, for a checkpoint; empty without one."""
        return {} if self.meter is None else self.meter.totals()
