"""Batches of examples: shuffled for training, fixed and padded for evaluation.

Boundary: pure functions of any data set; batches do not depend on the order of calls.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

import numpy as np

from timetrial.framework.types import Split
from timetrial.framework.workload import Batch
from timetrial.workloads.mini import LoopSettings


@functools.lru_cache(maxsize=8)
def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """Order of ``size`` examples in one epoch: a permutation (size,), read-only."""
    order = np.random.default_rng((seed, epoch)).permutation(size)
    order.flags.writeable = False
    return order


def train_rows(size: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Rows (batch_size,) of the training batch of update ``step``, 0-based.

    Every epoch has each example at most once. An incomplete last batch is dropped; each epoch has
    a new order, so the dropped examples vary.
    """
    epoch, batch = divmod(step, size // batch_size)
    return epoch_order(size, seed, epoch)[batch * batch_size : (batch + 1) * batch_size]


def augmentation_rng(seed: int, step: int) -> np.random.Generator:
    """Random generator for the augmentation of one batch; independent of ``epoch_order``."""
    return np.random.default_rng((seed, step, 1))


def fixed_subset(size: int, count: int, what: str) -> np.ndarray:
    """A fixed random subset: ``count`` of ``size`` examples, in ascending order.

    Raises:
        ValueError: ``count`` exceeds ``size``; ``what`` is the name of the setting.
    """
    if count > size:
        raise ValueError(f"{what}: expected at most {size} (all there are), got {count}")
    return np.sort(np.random.default_rng(0).permutation(size)[:count])


def eval_rows(rows: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of equal size: pairs of (rows, weights), both (batch_size,).

    Padding of the last batch repeats its first row with weight 0 (float32); other weights are 1.
    """
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        weight = np.zeros(batch_size, np.float32)
        weight[: len(part)] = 1
        yield np.concatenate([part, np.full(batch_size - len(part), part[0])]), weight


def eval_batches(
    data: Mapping[str, np.ndarray], count: int, batch_size: int, *, what: str
) -> tuple[Batch, ...]:
    """Evaluation batches of a fixed subset of ``data``, each with its ``weight``.

    Args:
        data: arrays whose first axis is the example.
        count: number of examples to take.
        batch_size: examples per batch, padding included.
        what: name of the setting of ``count``, for the error.

    Raises:
        ValueError: ``count`` exceeds the number of examples.
    """
    size = len(next(iter(data.values())))
    rows = fixed_subset(size, count, what)
    return tuple(
        {**{name: values[part] for name, values in data.items()}, "weight": weight}
        for part, weight in eval_rows(rows, batch_size)
    )


def eval_batches_by_split(
    data: Mapping[Split, Mapping[str, np.ndarray]], settings: LoopSettings
) -> dict[Split, tuple[Batch, ...]]:
    """Evaluation batches of every split; ``settings.examples`` gives the number of examples.

    Raises:
        ValueError: a split has fewer examples.
    """
    return {
        split: eval_batches(
            arrays,
            settings.examples(split),
            settings.eval_batch_size,
            what=f"{split}_examples",
        )
        for split, arrays in data.items()
    }


def check_batch_size(batch_size: int, size: int) -> None:
    """Raises ValueError when a training batch exceeds ``size`` examples."""
    if batch_size > size:
        raise ValueError(f"batch_size: expected at most {size} (all there are), got {batch_size}")
