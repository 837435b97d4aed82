"""Device memory that a run needs, known before its first update.

Boundary: sizes of arrays and the compiler's plan; ``framework.machine`` reads the RAM.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import jax
import numpy as np

from timetrial.framework.errors import UserError
from timetrial.framework.machine import available_bytes
from timetrial.framework.types import PyTree

NOTEWORTHY: Final = 0.05
"""Share of the memory from which the need is shown."""

REMEDY: Final = "smaller batches, train.microbatches=N, or several devices with train.shard=always"


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory of one device, in bytes.

    Attributes:
        state: parameters and all other arrays of the state.
        temporaries: the largest need of a compiled function beyond it, batches included.
        limit: memory of the device, on a CPU its share of the free RAM; None if unknown.
    """

    state: int
    temporaries: int
    limit: int | None

    @property
    def total(self) -> int:
        """Bytes needed together."""
        return self.state + self.temporaries

    @property
    def noteworthy(self) -> bool:
        """True when the need is a considerable part of the memory."""
        return self.limit is not None and self.total > NOTEWORTHY * self.limit

    def __str__(self) -> str:
        of = "" if self.limit is None else f" of {in_words(self.limit)}"
        return (
            f"memory: state {in_words(self.state)} + temporaries {in_words(self.temporaries)} "
            f"= {in_words(self.total)}{of}"
        )

    def check(self) -> None:
        """Checks that the run fits.

        Raises:
            UserError: it needs more than the device has.
        """
        if self.limit is not None and self.total > self.limit:
            raise UserError(f"{self} on a device, which is too much; remedies: {REMEDY}")

    def metrics(self) -> Mapping[str, float]:
        """The sizes by name of the metric."""
        return {
            "memory/state_bytes": float(self.state),
            "memory/temporary_bytes": float(self.temporaries),
        }


def in_words(size: int) -> str:
    """Bytes in decimal units: ``10.9 GB``, ``3.2 MB``, ``0.0 MB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def bytes_of(tree: PyTree) -> int:
    """Bytes on one device of arrays, or of what their shapes, types and shardings describe."""
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _bytes(leaf: Any) -> int:
    sharding = getattr(leaf, "sharding", None)
    shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
    return int(np.prod(shape, dtype=np.int64)) * int(leaf.dtype.itemsize)


def temporary_bytes(compiled: Any) -> int:
    """Bytes that a compiled function needs beyond its arguments: by XLA's plan, per device.

    Results that take the place of a donated argument are not counted. 0 if the plan is unknown.
    """
    plan = compiled.memory_analysis()
    if plan is None:
        return 0
    return int(plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes)


def limit_of(devices: Sequence[jax.Device]) -> int | None:
    """Bytes that JAX may use on each device; CPU devices have equal shares of the free RAM."""
    local = [device for device in devices if device.process_index == jax.process_index()]
    if not local:
        return None
    if local[0].platform == "cpu":
        free = available_bytes()
        return None if free is None else free // len(local)
    stats = local[0].memory_stats() or {}
    limit = stats.get("bytes_limit")
    return None if limit is None else int(limit)
