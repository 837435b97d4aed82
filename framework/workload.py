"""The contract of a workload: model, loss, metrics and data of one training problem.

Boundary: the abstract class and the types in its signatures; no loop, no I/O.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import numpy as np

from timetrial.framework.types import Direction, PyTree, Split

Batch = Mapping[str, np.ndarray]
"""One batch of examples on the host: named arrays whose first axis is the example."""


Sums = dict[str, tuple[jax.Array, jax.Array]]
"""Per metric: (weighted sum over the examples of a batch, sum of their weights), both scalars."""


class Workload(abc.ABC):
    """One training problem: model, loss, metrics, data. Subclasses are final.

    A workload fixes all that must be equal for every optimizer: the model and its
    initialisation, the order of the batches, how often and on what is evaluated.

    Attributes:
        name: key of the workload in the registry.
        metric: the metric whose value decides the race (``accuracy``, ``ssim``, ...).
        direction: whether ``metric`` is minimised or maximised.
        step_hint: updates that AlgoPerf-style learning-rate schedules are laid out for.
        eval_every_steps: updates between two evaluations, or None.
        eval_every_seconds: charged seconds between two evaluations, or None.
        splits: the splits that ``eval_batches`` knows, in order of evaluation.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    direction: ClassVar[Direction]
    step_hint: int
    eval_every_steps: int | None
    eval_every_seconds: float | None = None
    splits: Sequence[Split] = tuple(Split)

    @abc.abstractmethod
    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        """Returns freshly initialised ``(params, model_state)``. Pure, jittable."""

    @abc.abstractmethod
    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        """Returns ``(mean training loss, new model_state)`` in training mode. Pure, jittable.

        ``key`` drives whatever is random inside the model (dropout).
        """

    @abc.abstractmethod
    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        """Returns ``(sums, outputs)`` of one evaluation batch in evaluation mode. Pure, jittable.

        ``sums`` holds every metric that is a weighted mean over examples, always with ``loss``.
        ``outputs`` goes, batch by batch and on the host, to ``finish``; it is ``{}`` where no
        metric needs it. Padding examples have weight 0.
        """

    def finish(self, outputs: Sequence[PyTree]) -> dict[str, float]:
        """Metrics that are no means over examples, from the outputs of all batches of a split."""
        return {}

    @abc.abstractmethod
    def train_batch(self, seed: int, step: int) -> Batch:
        """The batch of update ``step`` (0-based): a pure function of ``(seed, step)``, any order.

        Examples are reshuffled for every pass over the data; augmentation is included.
        """

    @abc.abstractmethod
    def eval_batches(self, split: Split) -> Sequence[Batch]:
        """The batches of a split: the same examples, in the same order, at every call.

        All batches have the same shapes; padding has weight 0 in ``batch["weight"]``.
        """

    def datasets(self) -> Mapping[str, str]:
        """Maps the name of each data set used to the sha256 digest of its file(s)."""
        return {}
