"""Agreement of the hosts of a run: one clock, one end.

Boundary: a few integers that ride through the update; ``framework.trainer`` decides with them.

The hosts' clocks differ. If each decided by its own, one would evaluate while another updates, and
their collective operations would no longer match. So the first host's charged seconds are an input
of every update, divided among the devices, and come out of it on all of them: no further message is
needed. A signal to end the run (Ctrl-C, SIGTERM) takes the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.framework.devices import Devices
from timetrial.framework.state import StepMetrics
from timetrial.framework.types import PyTree


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The processes that make one run together; each is started with the same command.

    Attributes:
        coordinator: HOST:PORT of the first one, or ``auto``: address, count and index are those of
            Slurm, Open MPI, Kubernetes or Cloud TPU; null is a run by itself.
        count: number of processes, >= 1.
        index: number of this one, 0-based.
    """

    coordinator: str | None = None
    count: int = 1
    index: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"index: expected 0 <= index < count, got index {self.index}, count {self.count}"
            )
        address = self.coordinator or ""
        if self.coordinator not in (None, "auto") and not address.rpartition(":")[2].isdecimal():
            raise ValueError(f"coordinator: expected HOST:PORT or auto, got {self.coordinator!r}")
        if self.count > 1 and self.coordinator in (None, "auto"):
            raise ValueError(
                f"count: expected coordinator=HOST:PORT with count={self.count}, "
                f"got {self.coordinator}"
            )


SIGNAL: Final = "hosts"
"""Name of the signal among the inputs of an update."""

_MICRO: Final = 1_000_000


@dataclasses.dataclass(frozen=True)
class Agreed:
    """Numbers that are equal on all hosts.

    Attributes:
        seconds: charged seconds of the first host.
        ending: number of a signal (SIGTERM, ...) that some host received, 0 without.
    """

    seconds: float
    ending: int


def signal_rows(seconds: float, ending: int, devices: int) -> np.ndarray:
    """One host's part of the signal, (devices, 3) int32: seconds, microseconds, ``ending``.

    Float32 seconds would be 8 ms apart after a day.
    """
    whole, rest = divmod(round(seconds * _MICRO), _MICRO)
    return np.tile(np.array([whole, rest, ending], np.int32), (devices, 1))


def combined(signal: jax.Array) -> jax.Array:
    """The first host's seconds and the highest ``ending``, (3,) int32, from all rows."""
    return jnp.concatenate([signal[0, :2], jnp.max(signal[:, 2:], axis=0)])


def read(signal: Any) -> Agreed:
    """The numbers in a combined signal."""
    seconds, micro, ending = (int(value) for value in np.asarray(signal))
    return Agreed(seconds + micro / _MICRO, ending)


def with_signal(step: Any) -> Any:
    """The update with the signal among its inputs and, combined, beside its metrics."""

    def train_step(
        state: PyTree, batch: PyTree, inputs: Mapping[str, Any]
    ) -> tuple[PyTree, StepMetrics]:
        others = {name: value for name, value in inputs.items() if name != SIGNAL}
        state, metrics = step(state, batch, others)
        return state, dataclasses.replace(metrics, signal=combined(inputs[SIGNAL]))

    return train_step


class Team:
    """The hosts of a run, as its trainer sees them.

    Args:
        devices: devices of the run.
        ending: returns the number of the signal that this process received, 0 without.

    Attributes:
        alone: True when the run has one host.
    """

    def __init__(self, devices: Devices, ending: Callable[[], int] = lambda: 0) -> None:
        self.alone = devices.share.count == 1
        self._devices = devices
        self._local = devices.count // devices.share.count
        self._ending = ending
        self._combined = jax.jit(combined, out_shardings=devices.whole)

    def inputs(self, seconds: float) -> dict[str, Any]:
        """The signal as an input of the next update; nothing for a host alone.

        Args:
            seconds: charged seconds by this host's own clock.
        """
        if self.alone:
            return {}
        rows = signal_rows(seconds, self._ending(), self._local)
        return dict(self._devices.place({SIGNAL: rows}))

    def agree(self, seconds: float) -> Agreed:
        """The agreed numbers, at once; every host calls it at the same place and waits."""
        return read(self._combined(self.inputs(seconds)[SIGNAL]))


def first_hosts(value: int) -> int:
    """The first host's number on every host."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
