"""Agreement of the hosts of a run: one clock, one end.

Boundary: a few integers that ride through the update; ``framework.trainer`` decides with them.

The hosts' clocks differ. If each decided by its own, one would evaluate while another updates, and
their collective operations would no longer match. So the first host's charged seconds are an input
of every update, divided among the devices, and come out of it on all of them: no further message is
needed. A signal to end the run (Ctrl-C, SIGTERM) takes the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.framework.types import PyTree

SIGNAL: Final = "hosts"
"""Name of the signal among the inputs and the metrics of an update."""

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
    """The update with the signal among its inputs and, combined, among its metrics."""

    def train_step(
        state: PyTree, batch: PyTree, inputs: Mapping[str, Any]
    ) -> tuple[PyTree, dict[str, jax.Array]]:
        others = {name: value for name, value in inputs.items() if name != SIGNAL}
        state, metrics = step(state, batch, others)
        return state, {**metrics, SIGNAL: combined(inputs[SIGNAL])}

    return train_step
