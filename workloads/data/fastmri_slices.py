"""FastMRI knee: batches of undersampled slices from prepared ones.

Boundary: records in, images out.

Masks and normalisation are those of AlgoPerf's ``fastmri`` (Dahl et al., "Benchmarking Neural
Network Training Algorithms", 2023, https://arxiv.org/abs/2306.07179).
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from timetrial.framework.types import Split
from timetrial.framework.workload import Batch
from timetrial.workloads.data import batching, kspace
from timetrial.workloads.data.fastmri import NAME, SIZE
from timetrial.workloads.data.parts import part_range
from timetrial.workloads.data.prepared import Records, load_manifest


def magnitude(rows: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The image (320, 320) float32 of the kept columns.

    Args:
        rows: complex64 (320, W) from ``fastmri.half_transformed``, W >= 320.
        keep: kept columns (W,), lowest frequency in the middle.
    """
    import scipy.fft  # takes 0.1 s, and every command imports this module

    width = rows.shape[1]
    masked = rows * np.fft.ifftshift(keep)
    image = scipy.fft.ifft(masked, axis=1, norm="ortho", overwrite_x=True)
    left = (width - SIZE) // 2
    columns = (np.arange(left, left + SIZE) - width // 2) % width
    shown: np.ndarray = np.abs(image[:, columns])
    return shown


@functools.lru_cache(maxsize=64)
def fixed_mask(width: int) -> np.ndarray:
    """The mask (width,) of all evaluated slices of a width."""
    (mask,) = kspace.column_mask(width, 1, np.random.default_rng((0, width)))
    return np.asarray(mask)


def train_mask(width: int, seed: int, row: int) -> np.ndarray:
    """The mask (width,) of a training slice: the same in every pass, another with another seed."""
    (mask,) = kspace.column_mask(width, 1, np.random.default_rng((seed, row)))
    return np.asarray(mask)


@dataclasses.dataclass(frozen=True)
class Slices:
    """Batches of slices.

    Attributes:
        records: slices of a split.
        batch_size: slices of a batch.
        chosen: slices to evaluate, in order; None for training.
    """

    records: Records
    batch_size: int
    chosen: np.ndarray | None = None

    @property
    def steps(self) -> int:
        """Number of batches of an evaluation."""
        return 0 if self.chosen is None else -(-len(self.chosen) // self.batch_size)

    def part(self, seed: int, step: int, index: int, count: int) -> Batch:
        """Float32 arrays ``x``, ``y`` (n, 320, 320), ``mean``, ``std``, ``volume_max`` (n,).

        Evaluation has ``weight`` (n,) also, and its seed does not matter.
        """
        part = part_range(self.batch_size, index, count)
        if self.chosen is None:
            rows = batching.train_rows(len(self.records), self.batch_size, seed, step)
            return self._batch(rows[part.start : part.stop], seed)
        places = step * self.batch_size + np.arange(part.start, part.stop)
        rows = self.chosen[np.minimum(places, len(self.chosen) - 1)]
        weight = (places < len(self.chosen)).astype(np.float32)
        return {**self._batch(rows, None), "weight": weight}

    def _batch(self, rows: np.ndarray, seed: int | None) -> dict[str, np.ndarray]:
        """The slices of some rows; without a seed, with the masks of evaluation."""
        n = len(rows)
        images = {name: np.empty((n, SIZE, SIZE), np.float32) for name in ("x", "y")}
        numbers = {name: np.empty(n, np.float32) for name in ("mean", "std", "volume_max")}
        for i, row in enumerate(rows):
            record = self.records[row]
            half = np.ascontiguousarray(record["kspace"]).view(np.complex64)[..., 0]
            width = half.shape[1]
            keep = fixed_mask(width) if seed is None else train_mask(width, seed, int(row))
            image = magnitude(half, keep)
            mean, std = image.mean(), image.std()
            limits = (-kspace.CLIP, kspace.CLIP)
            np.clip((image - mean) / std, *limits, out=images["x"][i])
            np.clip((record["target"] - mean) / std, *limits, out=images["y"][i])
            numbers["mean"][i], numbers["std"][i] = mean, std
            numbers["volume_max"][i] = record["volume_max"]
        return {**images, **numbers}


def train_source(root: Path, batch_size: int) -> Slices:
    """The training batches of the prepared data set.

    Raises:
        DataError: the data set is not prepared.
        ValueError: it has fewer slices than a batch.
    """
    examples = load_manifest(NAME, root).examples(Split.TRAIN.value)
    batching.check_batch_size(batch_size, examples)
    return Slices(Records(root / NAME, Split.TRAIN.value), batch_size)


def eval_source(root: Path, split: Split, batch_size: int, examples: int | None = None) -> Slices:
    """The evaluation batches of a split: a fixed random choice of slices, by default all.

    Raises:
        DataError: the data set is not prepared.
        ValueError: the split has fewer examples.
    """
    size = load_manifest(NAME, root).examples(split.value)
    count = size if examples is None else examples
    chosen = batching.fixed_subset(size, count, f"{split}_examples")
    return Slices(Records(root / NAME, split.value), batch_size, chosen)
