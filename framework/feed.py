"""Batches on their way to the device: placed ahead of the update that takes them.

Boundary: order and placement; ``Workload.batches`` makes the batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import jax

from timetrial.framework.types import PyTree
from timetrial.framework.workload import Batch

AHEAD: Final = 2
"""Batches placed on the device before they are asked for."""


class Feed:
    """Batches in order, on the device before the loop asks for them.

    Args:
        batches: from ``Workload.batches``.
        ahead: batches to place before they are asked for, >= 0; 0 places none.
        place: puts a batch on the device, without waiting for it.
    """

    def __init__(
        self,
        batches: Iterator[Batch],
        ahead: int = AHEAD,
        place: Callable[[Batch], Batch] = jax.device_put,
    ) -> None:
        self._batches = batches
        self._place = place
        self._ahead = ahead
        self._placed: deque[Batch] = deque()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if not self._ahead:
            return next(self._batches)
        while len(self._placed) <= self._ahead:
            self._placed.append(self._place(next(self._batches)))
        return self._placed.popleft()

    def close(self) -> None:
        """Ends the making of batches; closes what ``Workload.batches`` returned."""
        self._placed.clear()
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()


def is_ready(metrics: PyTree) -> bool:
    """True when the device has computed all arrays."""
    return all(leaf.is_ready() for leaf in jax.tree.leaves(metrics) if hasattr(leaf, "is_ready"))
