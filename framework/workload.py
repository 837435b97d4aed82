"""The contract of a workload: model, loss, metrics and data of one training problem.

Boundary: the abstract class and its types; no loop, no I/O.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Final

import jax
import numpy as np

from timetrial.framework.roles import roles_by_name
from timetrial.framework.types import Direction, PyTree, Split

Batch = Mapping[str, np.ndarray]
"""One batch of examples on the host: named arrays whose first axis is the example."""


Sums = dict[str, tuple[jax.Array, jax.Array]]
"""Per metric: (weighted sum over the examples of a batch, sum of their weights), both scalars."""


@dataclasses.dataclass(frozen=True)
class Share:
    """The rows of every batch that one of several hosts makes: an equal, consecutive part.

    Attributes:
        index: number of the host, 0-based.
        count: number of hosts.

    Raises:
        ValueError: there is no such host.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"share: expected 0 <= index < count, got {self.index}, {self.count}")

    def of(self, size: int) -> range:
        """The share of ``size`` rows or parts.

        Raises:
            ValueError: the size is not divisible.
        """
        if size % self.count:
            raise ValueError(f"expected a multiple of {self.count} hosts, got {size}")
        each = size // self.count
        return range(self.index * each, (self.index + 1) * each)

    def rows(self, batch: Batch) -> Batch:
        """The rows of a whole batch, as views.

        Raises:
            ValueError: the batch cannot be divided among the hosts.
        """
        if self.count == 1:
            return batch
        sizes = {name: len(values) for name, values in batch.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"hosts: expected arrays of equally many rows to divide, got {sizes}")
        part = self.of(next(iter(sizes.values())))
        return {name: values[part.start : part.stop] for name, values in batch.items()}


WHOLE: Final = Share(0, 1)
"""All rows: the share of a single host."""


def spec_of(batch: Batch) -> PyTree:
    """Shapes and types of a batch as the device sees them."""
    return {
        name: jax.ShapeDtypeStruct(
            np.shape(values), jax.dtypes.canonicalize_dtype(np.asarray(values).dtype)
        )
        for name, values in batch.items()
    }


class Workload(abc.ABC):
    """One training problem: model, loss, metrics, data. Subclasses are final.

    A workload fixes everything that is equal for all optimizers: the model and its
    initialisation, the order of the batches, the cadence and the examples of evaluation.

    Attributes:
        name: key of the workload in the registry.
        metric: deciding metric (``accuracy``, ``ssim``, ...).
        direction: direction of ``metric``.
        step_hint: length of AlgoPerf-style learning-rate schedules, in updates.
        eval_every_steps: updates between two evaluations, or None.
        eval_every_seconds: charged seconds between two evaluations, or None.
        splits: splits of ``eval_batches``, in order of evaluation.
        devices: devices of each host for a run, or None for all of them.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    direction: ClassVar[Direction]
    step_hint: int
    eval_every_steps: int | None
    eval_every_seconds: float | None = None
    splits: Sequence[Split] = tuple(Split)
    devices: int | None = None

    @abc.abstractmethod
    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        """Returns freshly initialised ``(params, model_state)``. Pure, jittable."""

    @abc.abstractmethod
    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        """Returns ``(mean training loss, new model_state)`` in training mode. Pure, jittable.

        ``key`` is the source of randomness in the model (dropout).
        """

    @abc.abstractmethod
    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        """Returns ``(sums, outputs)`` of one evaluation batch in evaluation mode. Pure, jittable.

        ``sums`` holds all metrics that are weighted means over examples, always ``loss``.
        ``finish`` receives the ``outputs`` of all batches on the host; they are ``{}`` when no
        metric needs them. Padding examples have weight 0.
        """

    def roles(self, params: PyTree) -> PyTree:
        """The role of every tensor, for optimizers that treat them differently; see ``roles``.

        By default from names and ranks; a workload overrides it where these say too little, as for
        the head: ``return last_layer(super().roles(params), "Dense")``.

        Args:
            params: parameters or their shapes.
        """
        return roles_by_name(params)

    def weight(self, batch: Batch) -> jax.Array | np.float32:
        """Total weight of the examples in the loss of a batch; by default the number of rows.

        ``loss`` is a mean with these weights: microbatches are added up by them. Pure, jittable.
        """
        return np.float32(len(next(iter(batch.values()))))

    def finish(self, outputs: Sequence[PyTree]) -> dict[str, float]:
        """Metrics that are not means over examples, from the outputs of all batches of a split."""
        return {}

    @abc.abstractmethod
    def train_batch(self, seed: int, step: int) -> Batch:
        """The batch of update ``step`` (0-based): a pure function of ``(seed, step)``.

        Every pass over the data has a new order of examples. Augmentation is included.
        """

    def batches(self, seed: int, start: int, share: Share = WHOLE) -> Iterator[Batch]:
        """A share of the batches of ``train_batch`` from update ``start`` on, without end.

        A workload whose batches take time makes them ahead, in threads that start with this call.
        The iterator may have ``close()``, which ends them.
        """
        return (share.rows(self.train_batch(seed, step)) for step in itertools.count(start))

    @abc.abstractmethod
    def eval_batches(self, split: Split) -> Iterable[Batch]:
        """The batches of a split: the same examples, in the same order, at every call.

        All batches have the same shapes; padding has weight 0 in ``batch["weight"]``. They are read
        once, one after the other, so they need not fit into memory together.
        """

    def evaluation(self, split: Split, share: Share = WHOLE) -> Iterable[Batch]:
        """A share of the batches of ``eval_batches``.

        A workload whose batches take time makes no more than the share.
        """
        return (share.rows(batch) for batch in self.eval_batches(split))

    def batch_spec(self) -> PyTree:
        """Shapes and types of a training batch, for compilation; by default from the first one.

        A workload whose batches take time to make describes them instead.
        """
        return spec_of(self.train_batch(0, 0))

    def eval_batch_spec(self) -> PyTree:
        """Shapes and types of an evaluation batch, as ``batch_spec``."""
        return spec_of(next(iter(self.eval_batches(self.splits[0]))))

    def datasets(self) -> Mapping[str, str]:
        """Maps the name of each data set used to the sha256 digest of its file(s)."""
        return {}

    def notes(self) -> Mapping[str, str]:
        """Tags to record with every run, such as the number of bad records left out."""
        return {}
