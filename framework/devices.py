"""The devices of a run: one mesh axis over them, and the place of every array.

Boundary: placement only; the compiled functions are those of ``framework.step``.

Batches are divided by rows among the devices. Parameters and state are on every device. Where that
is asked for, or where they do not fit otherwise, large arrays are divided by their first axis.
Losses and gradients are those of one device to float error, because each is one function of the
whole batch. One device takes the same path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from timetrial.framework import memory
from timetrial.framework.errors import ConfigError
from timetrial.framework.feed import AHEAD
from timetrial.framework.parallel import Train
from timetrial.framework.types import PyTree
from timetrial.framework.workload import WHOLE, Batch, Share

AXIS: Final = "data"
"""Name of the mesh axis."""

LARGE: Final = 2**20
"""Elements from which an array may be divided among devices."""


class Devices:
    """A mesh with the axis ``data`` over all devices of a run.

    Args:
        devices: the devices, host by host, equally many of each; by default the first one.
        shard: as ``Train.shard``.

    Attributes:
        mesh: the mesh.
        count: number of devices.
        share: the rows of every batch that this host makes.
        whole: sharding of arrays that every device has.
        rows: sharding of arrays divided by their first axis.
    """

    def __init__(self, devices: Sequence[jax.Device] | None = None, shard: str = "auto") -> None:
        found = list(devices or jax.local_devices()[:1])
        self.mesh = Mesh(np.array(found), (AXIS,))
        self.count = len(found)
        self.whole = NamedSharding(self.mesh, PartitionSpec())
        self.rows = NamedSharding(self.mesh, PartitionSpec(AXIS))
        hosts = sorted({device.process_index for device in found})
        self.share = Share(hosts.index(jax.process_index()), len(hosts)) if hosts[1:] else WHOLE
        self.limit = memory.limit_of(found)
        self._shard = shard
        self._as_they_are = self.count == 1 and found[0].platform == "cpu"

    @property
    def ahead(self) -> int:
        """Batches to place ahead of the update that takes them: none on a single CPU device."""
        return 0 if self._as_they_are else AHEAD

    def place(self, batch: Batch) -> Batch:
        """Puts a host's share of a batch on its devices; returns before the copy is done.

        On a single CPU device the arrays are there already and are returned unchanged.
        """
        if self._as_they_are:
            return batch
        if self.share.count == 1:
            placed: Batch = jax.device_put(batch, self.rows)
            return placed
        local: Any = jax.make_array_from_process_local_data
        return {name: local(self.rows, values) for name, values in batch.items()}

    def check(self, spec: PyTree, what: str, parts: int = 1) -> None:
        """Checks that batches of these shapes can be divided.

        Args:
            spec: shapes and types of a whole batch.
            what: name of the batch in the message.
            parts: microbatches.

        Raises:
            ConfigError: a first axis is no multiple of devices times microbatches.
        """
        if self.count * parts == 1:
            return
        sizes = {name: leaf.shape[0] if leaf.shape else 0 for name, leaf in spec.items()}
        wrong = [size for size in sizes.values() if size < 1 or size % (self.count * parts)]
        if wrong or len(set(sizes.values())) > 1:
            each = f" x {parts} microbatches" if parts > 1 else ""
            raise ConfigError(
                f"{what}: expected arrays of equally many rows, divisible by {self.count} "
                f"device(s){each}, got {_listed(sizes)}; rules: the rows are a multiple of devices "
                "x train.microbatches, in an evaluation batch of devices. Change the size of the "
                "batch, train.devices or train.microbatches"
            )

    def shardings(self, state: PyTree, gradients: PyTree) -> PyTree:
        """The sharding of every array of a state.

        Args:
            state: shapes of the state.
            gradients: shapes of arrays like the parameters, which an update holds as well.
        """
        divided = self._shard == "always" and self.count > 1
        if self._shard == "auto" and self.count > 1 and self.limit is not None:
            divided = memory.bytes_of(state) + memory.bytes_of(gradients) > self.limit
        return jax.tree.map(
            lambda leaf: self.rows if divided and self.divides(leaf) else self.whole, state
        )

    def divides(self, leaf: Any) -> bool:
        """True when an array may be divided: large, by a first axis that the devices divide."""
        return bool(leaf.size >= LARGE and leaf.ndim > 0 and leaf.shape[0] % self.count == 0)


def of_run(train: Train, asked: int | None) -> Devices:
    """The devices of a run: of every host the first ones.

    Args:
        train: settings.
        asked: devices of each host that the workload asks for; None takes all.

    Raises:
        ConfigError: a host has fewer devices.
    """
    by_host: dict[int, list[jax.Device]] = {}
    for device in sorted(jax.devices(), key=lambda device: (device.process_index, device.id)):
        by_host.setdefault(device.process_index, []).append(device)
    fewest = min(len(found) for found in by_host.values())
    count = train.devices or asked or fewest
    if count > fewest:
        raise ConfigError(f"train.devices: expected at most {fewest} on each host, got {count}")
    return Devices([device for found in by_host.values() for device in found[:count]], train.shard)


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {size}" for name, size in sizes.items())
