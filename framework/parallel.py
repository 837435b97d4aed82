"""How the updates of a run are divided: among microbatches and devices.

Boundary: settings only; ``devices`` applies them. Imports neither JAX nor YAML.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from timetrial.framework.ranges import one_of

Shard = Literal["auto", "always", "never"]
"""Allowed values of ``train.shard``."""


@dataclasses.dataclass(frozen=True)
class Train:
    """How updates are computed; affects results by float error only.

    Attributes:
        microbatches: equal parts of each batch, computed one after the other to save memory, >= 1.
            Batch norm and dropout then see the parts: their results differ.
        devices: devices of each host, >= 1; null takes what the workload asks for (all devices,
            one for mini workloads).
        shard: large parameters and their state on several devices: ``always`` divided, ``never``,
            or ``auto``: where they do not fit otherwise.
    """

    microbatches: int = 1
    devices: int | None = None
    shard: Shard = "auto"

    def __post_init__(self) -> None:
        for name, value in (("microbatches", self.microbatches), ("devices", self.devices)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected a whole number >= 1, got {value}")
        one_of(self, shard=Shard)
