"""Waiting for data: the real Trainer on batches that threads make from records in memory.

Boundary: fixtures and the pipeline around the real transformations; trains, judges nothing.

The transformations are those of the workloads: inverse FFT, mask and normalisation of fastMRI's
slices, cutting blocks of Criteo's rows. Records are random and stay in memory, so reading a disk is
not part of it. Parts are made by Grain's threads where the extra ``[data]`` is installed, else by
plain threads.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import jax
import numpy as np

from benchmarks.gpu import cases
from timetrial.framework.budget import Budget
from timetrial.framework.machine import usable_cores
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.framework.types import PyTree, Split
from timetrial.framework.workload import WHOLE, Batch, Share, Sums, Workload
from timetrial.workloads.data import criteo_rows, fastmri, fastmri_slices
from timetrial.workloads.data.criteo_text import VOCABULARIES
from timetrial.workloads.data.libraries import missing_libraries
from timetrial.workloads.data.parts import Batches, Parts, Source, joined
from timetrial.workloads.full_size import MOST_THREADS

WIDTH: Final = 372
"""Columns of k-space of a slice; of fastMRI's knee images, most have 368 or 372."""

AHEAD: Final = 2
"""Batches made ahead by plain threads, as by ``Parts``."""


def slices(batch_size: int, *, reduced: bool) -> Source:
    """FastMRI's training batches from random slices in memory."""
    rng = np.random.default_rng(0)
    records = []
    for _ in range(2 if reduced else 16):
        noise = rng.standard_normal((2 * fastmri.SIZE, WIDTH, 2), np.float32)
        rows = fastmri.half_transformed(noise[..., 0] + 1j * noise[..., 1])
        records.append(
            {
                "kspace": rows.view(np.float32).reshape(*rows.shape, 2),
                "target": np.abs(rng.standard_normal((fastmri.SIZE, fastmri.SIZE), np.float32)),
                "volume_max": np.float32(4),
            }
        )
    return fastmri_slices.Slices(_times(records, batch_size), batch_size)  # type: ignore[arg-type]


def clicks(batch_size: int, *, reduced: bool) -> Source:
    """Criteo's training batches from random blocks in memory."""
    rng = np.random.default_rng(0)
    block_rows = 64 if reduced else 16_384
    blocks = []
    for _ in range(8):
        rows = np.empty((block_rows, 1 + 13 + len(VOCABULARIES)), np.int32)
        rows[:, 0] = rng.random(block_rows) < 0.03
        rows[:, 1:14] = rng.integers(0, 50, (block_rows, 13))
        rows[:, 14:] = rng.integers(0, VOCABULARIES, (block_rows, len(VOCABULARIES)))
        blocks.append({"rows": rows})
    records = _times(blocks, 2 * batch_size // block_rows)
    return criteo_rows.TrainRows(records, block_rows, (), batch_size)  # type: ignore[arg-type]


def _times(records: Sequence[Any], least: int) -> Sequence[Any]:
    """The same records again and again, at least so many."""
    return list(records) * -(-least // len(records))


SOURCES: Final[Mapping[str, Callable[..., Source]]] = {"fastmri": slices, "criteo1tb": clicks}
"""Fixtures by workload. ImageNet's need JPEG files and OpenCV, OGBG's cost next to nothing."""


class PlainThreads:
    """Batches made by a pool of threads, in order, ``AHEAD`` of them before they are asked for."""

    def __init__(self, source: Source, start: int, parts: int, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._waiting: deque[list[Future[Batch]]] = deque()
        self._source, self._parts = source, parts
        self._steps = itertools.count(start)
        for _ in range(AHEAD):
            self._submit()

    def _submit(self) -> None:
        step, make, parts = next(self._steps), self._source.part, self._parts
        self._waiting.append([self._pool.submit(make, 0, step, i, parts) for i in range(parts)])

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        made = [part.result() for part in self._waiting.popleft()]
        self._submit()
        return joined(made)

    def close(self) -> None:
        """Ends the threads once the parts under way are made."""
        self._pool.shutdown(cancel_futures=True)


class Fed(Workload):
    """A full-size workload whose training batches come from a source in memory.

    Evaluation has one batch, the first one of training.
    """

    def __init__(self, inner: Workload, source: Source, parts: int, threads: int) -> None:
        self.inner, self.source, self.parts, self.threads = inner, source, parts, threads
        self.name, self.metric = inner.name, inner.metric  # type: ignore[misc]
        self.direction = inner.direction  # type: ignore[misc]
        self.step_hint, self.eval_every_steps = inner.step_hint, None
        self.splits = (Split.VALIDATION,)
        self.pipeline = "plain threads" if missing_libraries() else "Grain threads"

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        return self.inner.init(key)

    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        return self.inner.loss(params, model_state, batch, key)

    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        return self.inner.eval_step(params, model_state, batch)

    def train_batch(self, seed: int, step: int) -> Batch:
        return joined([self.source.part(seed, step, i, self.parts) for i in range(self.parts)])

    def batches(self, seed: int, start: int, share: Share = WHOLE) -> Iterator[Batch]:
        if self.pipeline == "plain threads":
            return PlainThreads(self.source, start, self.parts, self.threads)
        return Batches(Parts(self.source, 0, start, count=self.parts, threads=self.threads))

    def eval_batches(self, split: Split) -> Iterable[Batch]:
        batch = self.train_batch(0, 0)
        rows = len(next(iter(batch.values())))
        return [{**batch, "weight": np.ones(rows, np.float32)}]

    def batch_spec(self) -> PyTree:
        return self.inner.batch_spec()

    def eval_batch_spec(self) -> PyTree:
        return self.inner.eval_batch_spec()


def wait(name: str, *, reduced: bool, updates: int) -> dict[str, Any]:
    """Trains with Adam; seconds that the loop waited for data, and updates of an idle device."""
    case = cases.CASES[name]
    parts = int(case.reduced.get("parts", 1)) if reduced else 8
    size = case.reduced["batch_size"] if reduced else case.settings().batch_size  # type: ignore[call-arg]
    inner = case.workload("tf32", reduced=reduced, parts=parts, eval_batch_size=size)
    threads = min(MOST_THREADS, len(usable_cores()))
    workload = Fed(inner, SOURCES[name](size, reduced=reduced), parts, threads)
    alone = _seconds_per_batch(workload, 4)
    program = Program(workload, cases.optimizer("adam"))
    result = Trainer(program, Budget(steps=updates), []).fit(program.init(0))
    return {
        "pipeline": workload.pipeline,
        "threads": threads,
        "updates": result.step,
        "pipeline_examples_per_second": size / alone,
        "train_seconds": result.seconds.get("train", 0.0),
        "data_wait_seconds": result.seconds.get("data_wait", 0.0),
        "stalled_updates": result.stalled_updates,
    }


def _seconds_per_batch(workload: Fed, batches: int) -> float:
    """Seconds between two batches of the pipeline when nothing else runs."""
    made = workload.batches(0, 0)
    for _ in range(AHEAD + 1):
        next(made)
    began = time.perf_counter()
    for _ in range(batches):
        next(made)
    seconds = (time.perf_counter() - began) / batches
    made.close()  # type: ignore[attr-defined]
    return seconds
