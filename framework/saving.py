"""When a run is saved, and what a checkpoint must fit to continue it.

Boundary: decides; ``framework.checkpoint`` writes and reads.

Saving is outside charged time. A run is saved when it is over or interrupted, after charged
minutes, and at evaluations: at so many that saving takes at most a hundredth of its time.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import jax

from timetrial.framework.budget import StopReason
from timetrial.framework.callbacks import Callback, StepInfo
from timetrial.framework.checkpoint import STARTS_ANEW, Checkpoints, Loaded, Saved
from timetrial.framework.clock import Clock
from timetrial.framework.devices import Devices
from timetrial.framework.errors import UserError
from timetrial.framework.files import free_bytes, wait_for_room
from timetrial.framework.hosts import first_hosts
from timetrial.framework.packing import bytes_of
from timetrial.framework.records import RunResult
from timetrial.framework.state import TrainState

SHARE: Final = 0.01
"""Share of a run's time that saving at evaluations may take."""

DISK_BYTES_PER_SECOND: Final = 5e8
"""Guess of the speed of saving, before the first one."""

SAME: Final = ("devices", "platform", "precision")
"""What must be the same when a run continues; a difference changes its numbers."""

_PACKAGES: Final = ("timetrial", "jax", "jaxlib", "flax", "optax")

_log = logging.getLogger(__name__)


class JournaledTracker(Protocol):
    """Tracker of a run with a journal."""

    @property
    def path(self) -> Path:
        """Path of the journal."""

    @property
    def run_id(self) -> str:
        """Identity of the journal."""

    @property
    def offset(self) -> int:
        """Size of the journal in bytes."""

    def sync(self) -> None:
        """Waits until the journal is on the disk."""

    def saved(self, offset: int) -> None:
        """Notes that a checkpoint holds the run up to this offset; called from any thread."""


class Checkpoint(Callback):
    """Saves a run; comes after the callbacks that record rows.

    Args:
        checkpoints: place of the checkpoints.
        clock: clock of the run; a resumed run continues its accounts.
        tracker: tracker of the run.
        made_by: as of ``maker``.
        minutes: charged minutes after which a run is saved between two evaluations.
        notes: data of the caller, returned unchanged.
        callbacks: callbacks whose state is saved, too.
        share: share of the time that saving at evaluations may take.
        now: returns seconds; replaced in tests.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        clock: Clock,
        tracker: JournaledTracker,
        made_by: Mapping[str, str],
        *,
        minutes: float = 10.0,
        notes: Mapping[str, str] | None = None,
        callbacks: Sequence[Callback] = (),
        share: float = SHARE,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._checkpoints, self._clock, self._tracker = checkpoints, clock, tracker
        self._made_by, self._notes = dict(made_by), dict(notes or {})
        self._period_seconds = 60.0 * minutes
        self._callbacks = callbacks
        self._share, self._now = share, now
        self._saved_at, self._saved_train_seconds = now(), clock.train_seconds

    def on_fit_start(self, info: StepInfo) -> None:
        self._saved_at, self._saved_train_seconds = self._now(), info.train_seconds

    def pause_due(self, info: StepInfo) -> bool:
        return info.train_seconds - self._saved_train_seconds >= self._period_seconds

    def on_pause(self, info: StepInfo, state: TrainState, last: bool) -> None:
        worth = info.step > 0 or info.ending is not None  # else a new start is as good
        if worth and (last or self.pause_due(info) or self._affordable(state)):
            with self._clock.charge("checkpoint"):
                self._save(info, state, last)
            self._saved_at, self._saved_train_seconds = self._now(), info.train_seconds

    def on_fit_end(self, result: RunResult | None) -> None:
        if result is None and jax.process_count() > 1:
            return  # another host may be lost, and saving would wait for it
        with self._clock.charge("checkpoint"), _reported(self._checkpoints.directory):
            self._checkpoints.close()

    def _affordable(self, state: TrainState) -> bool:
        """True when a save now takes at most its share of the time since the last one."""
        cost = self._checkpoints.seconds
        if not cost:
            cost = (
                0.02 + sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / DISK_BYTES_PER_SECOND
            )
        return bool(first_hosts(int(cost <= self._share * (self._now() - self._saved_at))))

    def _save(self, info: StepInfo, state: TrainState, last: bool) -> None:
        self._tracker.sync()
        offset = self._tracker.offset
        saved = Saved(
            step=info.step,
            seconds=self._clock.accounts(),
            cpu_seconds=self._clock.cpu_accounts(),
            machine=self._clock.machine(),
            journal=self._tracker.path.name,
            offset=offset,
            run_id=self._tracker.run_id,
            notes=self._notes,
            ending=info.ending.name if info.ending else "",
            stalled_updates=info.stalled_updates,
            callbacks=states_of(self._callbacks),
            made_by=self._made_by,
        )
        directory, size = self._checkpoints.directory, bytes_of(state)

        def write() -> None:
            if free_bytes(directory) < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(directory))
            self._checkpoints.save(state, saved, lambda: self._tracker.saved(offset))
            if last:
                self._checkpoints.wait()

        with _reported(directory):
            self._checkpoints.wait()
        wait_for_room(write, directory, size)


@contextlib.contextmanager
def _reported(directory: Path) -> Iterator[None]:
    """Turns a failed save into a warning: the checkpoint before it stays."""
    try:
        yield
    except OSError as error:
        _log.warning(
            "checkpoint in %s cannot be written (%s); the one before it stays",
            *(directory, error.strerror or error),
        )


def states_of(callbacks: Sequence[Callback]) -> dict[str, Any]:
    """The states of callbacks that have one, by class; ``#2`` marks the second of a class."""
    return {name: state for name, callback in _named(callbacks) if (state := callback.state())}


def restore(callbacks: Sequence[Callback], states: Mapping[str, Any]) -> None:
    """Gives callbacks their saved states back."""
    for name, callback in _named(callbacks):
        if name in states:
            callback.restore(states[name])


def _named(callbacks: Sequence[Callback]) -> Iterator[tuple[str, Callback]]:
    counts: dict[str, int] = {}
    for callback in callbacks:
        name = type(callback).__qualname__
        counts[name] = counts.get(name, 0) + 1
        yield (name if counts[name] == 1 else f"{name}#{counts[name]}"), callback


def maker(devices: Devices) -> dict[str, str]:
    """What computes a run: versions, devices, precision."""
    config: Any = jax.config
    found = list(devices.mesh.devices.flat)
    precision = config.jax_default_matmul_precision or "default"
    return {
        "devices": str(devices.count),
        "hosts": str(devices.share.count),
        "platform": str(found[0].platform),
        "precision": f"{precision}, {'float64 allowed' if config.jax_enable_x64 else 'float32'}",
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def check_maker(loaded: Loaded | None, devices: Devices) -> None:
    """Compares what saved a run with what continues it; other versions give a warning.

    Raises:
        UserError: devices, platform or precision differ.
    """
    if loaded is None:
        return
    before, now = loaded.saved.made_by, maker(devices)
    different = [name for name in now if before.get(name) != now[name]]
    listed = "; ".join(f"{name} {before.get(name)}, now {now[name]}" for name in different)
    if any(name in SAME for name in different):
        raise UserError(
            f"checkpoint {loaded.path}: expected {', '.join(SAME)} to be those it was saved with, "
            f"got {listed}. Allowed: the same again (train.devices, JAX_PLATFORMS, "
            f"JAX_ENABLE_X64, JAX_DEFAULT_MATMUL_PRECISION); {STARTS_ANEW}"
        )
    if different:
        _log.warning("the run was saved with %s: its numbers may differ in the last digits", listed)


def ending_of(saved: Saved) -> StopReason | None:
    """The reason for the end of a saved run that is over, else None."""
    return StopReason[saved.ending] if saved.ending else None
