"""What the full-size workloads share: settings, batches made ahead, precision.

Boundary: combines prepared data with a task; the data sets are in ``data``, the models in
``models``.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from timetrial.framework.entries import WorkloadEntry
from timetrial.framework.machine import usable_cores
from timetrial.framework.ranges import check, one_of
from timetrial.framework.types import PyTree, Split
from timetrial.framework.workload import WHOLE, Batch, Share, Sums, Workload
from timetrial.workloads.data.libraries import require_libraries
from timetrial.workloads.data.missing import missing
from timetrial.workloads.data.parts import Batches, Evaluation, FiniteSource, Parts, Source, joined
from timetrial.workloads.data.prepared import (
    data_directory,
    load_manifest,
    manifest_digest,
)
from timetrial.workloads.mini import LoopSettings

MOST_THREADS: Final = 16
"""Threads that make batches, at most; no data set needs more for one GPU."""

ComputeType = Literal["float32", "bfloat16"]
MatmulPrecision = Literal["float32", "tensorfloat32", "bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullSizeSettings(LoopSettings):
    """Settings of every full-size workload.

    Attributes:
        parts: equal parts of a training batch, >= 1. One thread makes a part. The number of devices
            divides it, so that any number of devices sees the same batches.
        threads: threads that make parts, >= 1, or null for one per usable core, at most 16. Batches
            do not depend on it.
        compute_type: type of the layers' results. Parameters, statistics, losses and optimizers
            stay float32.
        matmul_precision: least precision of products inside matrix products and convolutions of
            float32 numbers. GPUs compute tensorfloat32 faster than float32; CPUs always compute
            float32.
    """

    parts: int = 8
    threads: int | None = None
    compute_type: ComputeType = "float32"
    matmul_precision: MatmulPrecision = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, parts=">= 1", threads=">= 1")
        one_of(self, compute_type=ComputeType, matmul_precision=MatmulPrecision)
        if self.batch_size % self.parts:
            raise ValueError(
                f"batch_size: expected a multiple of parts={self.parts}, got {self.batch_size}"
            )

    @property
    def eval_parts(self) -> int:
        """Parts of an evaluation batch: as ``parts`` if they divide it, else fewer."""
        return math.gcd(self.parts, self.eval_batch_size)

    @property
    def dtype(self) -> DTypeLike:
        """``compute_type`` as a type of JAX."""
        dtype: DTypeLike = jnp.bfloat16 if self.compute_type == "bfloat16" else jnp.float32
        return dtype


class FullSize(Workload):
    """Prepared data, batches made ahead and precision; a task adds loss and metrics.

    Subclasses derive from this class first, then from their task. Without data everything works but
    batches: shapes are known from the settings.

    Args:
        settings: settings of the workload.
        root: root of the prepared data sets; by default ``data_directory()``.

    Attributes:
        data_sets: directories below the root.
        settings, root: the arguments.
    """

    data_sets: ClassVar[tuple[str, ...]]

    def __init__(self, settings: FullSizeSettings, root: Path | None = None) -> None:
        self.settings = settings
        self.root = data_directory() if root is None else root
        self.step_hint = settings.step_hint
        self.eval_every_steps = settings.eval_every_steps
        self.eval_every_seconds = settings.eval_every_seconds

    @abc.abstractmethod
    def train_source(self) -> Source:
        """The training batches; raises DataError or ValueError when the data do not fit."""

    @abc.abstractmethod
    def eval_source(self, split: Split) -> FiniteSource:
        """The evaluation batches of a split, as ``train_source``."""

    def example_spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
        """Shapes and types of one training example, by name of the array."""
        raise NotImplementedError(f"{self.name}: expected example_spec or both specs of batches")

    def batch_spec(self) -> PyTree:
        return self._spec(self.example_spec(), self.settings.batch_size)

    def eval_batch_spec(self) -> PyTree:
        weight = jax.ShapeDtypeStruct((), np.float32)
        return self._spec({**self.example_spec(), "weight": weight}, self.settings.eval_batch_size)

    def _spec(self, example: Mapping[str, jax.ShapeDtypeStruct], size: int) -> PyTree:
        return {
            name: jax.ShapeDtypeStruct((size, *one.shape), one.dtype)
            for name, one in example.items()
        }

    def inputs(self, batch: Batch) -> Batch:
        """A batch as the task takes it. Pure, jittable; runs on the device."""
        return batch

    @functools.cached_property
    def _train(self) -> Source:
        return self.train_source()

    @functools.cached_property
    def _eval(self) -> Mapping[Split, FiniteSource]:
        return {split: self.eval_source(split) for split in self.splits}

    def check_data(self) -> None:
        """Checks that the data are prepared and fit the settings; reads manifests only.

        Raises:
            DataError: a library or a data set is missing.
            ValueError: a size does not fit the data.
        """
        require_libraries(f"workload {self.name}")
        _ = self._train, self._eval

    @property
    def _threads(self) -> int:
        return self.settings.threads or min(len(usable_cores()), MOST_THREADS)

    def train_batch(self, seed: int, step: int) -> Batch:
        parts = self.settings.parts
        return joined([self._train.part(seed, step, index, parts) for index in range(parts)])

    def batches(self, seed: int, start: int, share: Share = WHOLE) -> Iterator[Batch]:
        parts, threads = self.settings.parts, self._threads
        mine = share.of(parts)
        return Batches(Parts(self._train, seed, start, count=parts, mine=mine, threads=threads))

    def eval_batches(self, split: Split) -> Iterable[Batch]:
        return self.evaluation(split)

    def evaluation(self, split: Split, share: Share = WHOLE) -> Iterable[Batch]:
        parts = self.settings.eval_parts
        return Evaluation(self._eval[split], parts, tuple(share.of(parts)), self._threads)

    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        with jax.default_matmul_precision(self.settings.matmul_precision):
            return super().loss(params, model_state, self.inputs(batch), key)  # type: ignore[safe-super]

    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        with jax.default_matmul_precision(self.settings.matmul_precision):
            return super().eval_step(params, model_state, self.inputs(batch))  # type: ignore[safe-super]

    def datasets(self) -> Mapping[str, str]:
        return {name: manifest_digest(name, self.root) for name in self.data_sets}

    def notes(self) -> Mapping[str, str]:
        """Records left out as bad, and whether the data are a sample, by data set."""
        notes = {}
        for name in self.data_sets:
            manifest = load_manifest(name, self.root)
            notes[f"data.{name}.skipped"] = str(len(manifest.skipped))
            notes[f"data.{name}.sample"] = str(manifest.sample).lower()
        return notes


def entry(
    summary: str, settings: type[FullSizeSettings], workload: Callable[..., FullSize]
) -> WorkloadEntry:
    """The registry entry of a full-size workload; building it checks the data."""
    cls = typing.cast("type[FullSize]", workload)

    def make(settings: FullSizeSettings) -> FullSize:
        made = workload(settings)
        made.check_data()
        return made

    unavailable = functools.partial(missing, cls.name, cls.data_sets)
    return WorkloadEntry(summary, settings, make, unavailable=unavailable, without_data=workload)
