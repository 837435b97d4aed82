"""Batches in parts, made ahead in threads and delivered in order.

Boundary: order and threads; a source makes the parts. Independent of devices.

A part is the unit of worker, device and host. A source computes it from
``(seed, step, index, count)`` alone. So the batch of a step does not depend on the number of
devices, hosts or threads, and a run resumes at any step at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np

from timetrial.framework.workload import Batch
from timetrial.workloads.data.libraries import require_libraries

FOREVER: Final = 2**40
"""Number of steps of an endless stream; Grain needs a finite one."""


class Source(Protocol):
    """Makes batches in parts. Picklable; opens its files at first use."""

    def part(self, seed: int, step: int, index: int, count: int) -> Batch:
        """Part ``index`` of ``count`` equal parts of the batch of ``step``: a pure function."""


def part_range(batch_size: int, index: int, count: int) -> range:
    """Rows of part ``index`` of ``count`` equal parts of a batch.

    Raises:
        ValueError: the parts do not divide the batch, or there is no such part.
    """
    if count < 1 or batch_size % count:
        raise ValueError(f"parts: expected a divisor of the batch size {batch_size}, got {count}")
    if not 0 <= index < count:
        raise ValueError(f"part: expected 0 to {count - 1}, got {index}")
    size = batch_size // count
    return range(index * size, (index + 1) * size)


def joined(parts: Sequence[Batch]) -> Batch:
    """One batch from its parts, along the first axis."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclasses.dataclass(frozen=True)
class _Numbered:
    """The k-th part that this host makes, counted over all steps."""

    source: Source
    seed: int
    count: int
    mine: tuple[int, ...]

    def __call__(self, k: int) -> Mapping[str, Any]:
        step, place = divmod(int(k), len(self.mine))
        return self.source.part(self.seed, step, self.mine[place], self.count)


class Parts:
    """An iterator over steps: each item lists the parts of one batch that this host makes.

    Making starts at construction, in threads. At most ``buffer`` batches wait. An exception of
    the source is raised by ``next``.

    Args:
        source: makes the parts.
        seed: seed of the order and the augmentation.
        start: first step, >= 0.
        stop: step after the last one; by default there is no end.
        count: parts per batch; a setting of the run, not the number of devices.
        mine: indices of the parts that this host makes; by default all.
        threads: threads that make parts; 0 makes each part when it is asked for.
        buffer: batches made ahead, >= 1.

    Raises:
        ValueError: an argument is out of range.
        DataError: the extra ``[data]`` is not installed.
    """

    def __init__(
        self,
        source: Source,
        seed: int,
        start: int = 0,
        *,
        stop: int = FOREVER,
        count: int = 1,
        mine: Sequence[int] | None = None,
        threads: int = 2,
        buffer: int = 2,
    ) -> None:
        require_libraries("batches made ahead")
        import grain

        indices = tuple(range(count)) if mine is None else tuple(mine)
        if not indices or not set(indices) <= set(range(count)):
            raise ValueError(f"mine: expected parts from 0 to {count - 1}, got {list(indices)}")
        if threads < 0 or buffer < 1 or not 0 <= start <= stop:
            raise ValueError(
                "expected threads >= 0, buffer >= 1 and 0 <= start <= stop, got "
                f"threads={threads}, buffer={buffer}, start={start}, stop={stop}"
            )
        self._per_step = len(indices)
        numbers = grain.MapDataset.range(start * len(indices), stop * len(indices))
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer * len(indices))
        made = numbers.map(_Numbered(source, seed, count, indices)).to_iter_dataset(options)
        self._made = iter(made)
        self._made.start_prefetch()  # fills the buffer now, not at the first next

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        return [next(self._made) for _ in range(self._per_step)]

    def close(self) -> None:
        """Ends the threads once the parts being made are done; may be called twice."""
        self._made.close()


class Batches:
    """The batches of ``Parts``, each joined; ``close`` ends the making."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return joined(next(self._parts))

    def close(self) -> None:
        """Ends the threads, as ``Parts.close``."""
        self._parts.close()


class FiniteSource(Source, Protocol):
    """A source of the batches of an evaluation; ignores the seed."""

    @property
    def steps(self) -> int:
        """Number of batches."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """All batches of a finite source, made ahead; every iteration gives the same batches.

    Attributes:
        source: makes the parts.
        count: parts per batch.
        mine: indices of the parts that this host makes; None for all.
        threads: threads that make parts.
    """

    source: FiniteSource
    count: int = 1
    mine: tuple[int, ...] | None = None
    threads: int = 2

    def __len__(self) -> int:
        return self.source.steps

    def __iter__(self) -> Iterator[Batch]:
        steps, threads = self.source.steps, self.threads
        parts = Parts(self.source, 0, stop=steps, count=self.count, mine=self.mine, threads=threads)
        made = Batches(parts)
        try:
            yield from made
        finally:
            made.close()
