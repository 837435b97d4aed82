"""ImageNet: batches of cropped images from prepared ones.

Boundary: records in, bytes out; the device normalises.

Crops are those of AlgoPerf's ``imagenet`` (Dahl et al., "Benchmarking Neural Network Training
Algorithms", 2023, https://arxiv.org/abs/2306.07179): random-resized crop and mirroring in training,
the middle 7/8 in evaluation, both resized to 224 x 224.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

import numpy as np

from timetrial.framework.types import Split
from timetrial.framework.workload import Batch
from timetrial.workloads.data import batching, resize
from timetrial.workloads.data.imagenet import NAME, V2_NAME
from timetrial.workloads.data.jpeg import decoded
from timetrial.workloads.data.parts import part_range
from timetrial.workloads.data.prepared import Records, load_manifest

SIZE: Final = 224
"""Rows and columns of an image."""


def augmented(pixels: np.ndarray, rng: np.random.Generator, method: str) -> np.ndarray:
    """A random crop (224, 224, 3) uint8 of an image (H, W, 3), mirrored with probability 1/2."""
    height, width, _ = pixels.shape
    box = resize.random_box(height, width, rng) or resize.centre_box(height, width)
    image = cropped(pixels, box, method)
    return resize.mirrored(image) if rng.random() < 0.5 else image


def cropped(pixels: np.ndarray, box: resize.Box, method: str) -> np.ndarray:
    """A crop of an image (H, W, 3), resized to (224, 224, 3) uint8."""
    top, left, height, width = box
    return resize.METHODS[method](pixels[top : top + height, left : left + width], SIZE)


@dataclasses.dataclass(frozen=True)
class Images:
    """Batches of images.

    Attributes:
        records: images of a split.
        batch_size: images of a batch.
        method: resizing, ``cv2`` or ``exact``.
        chosen: images to evaluate, in order; None for training.
    """

    records: Records
    batch_size: int
    method: str = "cv2"
    chosen: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.method not in resize.METHODS:
            known = ", ".join(resize.METHODS)
            raise ValueError(f"resize: expected one of {known}, got {self.method}")

    @property
    def steps(self) -> int:
        """Number of batches of an evaluation."""
        return 0 if self.chosen is None else -(-len(self.chosen) // self.batch_size)

    def part(self, seed: int, step: int, index: int, count: int) -> Batch:
        """Arrays ``x`` (n, 224, 224, 3) uint8, ``y`` (n,) int32.

        Evaluation has ``weight`` (n,) float32 also, and its seed does not matter. The augmentation
        of an image depends on seed, step and place in the batch.
        """
        part = part_range(self.batch_size, index, count)
        x = np.empty((len(part), SIZE, SIZE, 3), np.uint8)
        y = np.empty(len(part), np.int32)
        if self.chosen is None:
            rows = batching.train_rows(len(self.records), self.batch_size, seed, step)
            for i, place in enumerate(part):
                record = self.records[rows[place]]
                rng = np.random.default_rng((seed, step, place))
                x[i] = augmented(decoded(record["image"]), rng, self.method)
                y[i] = record["label"]
            return {"x": x, "y": y}
        places = step * self.batch_size + np.arange(part.start, part.stop)
        for i, row in enumerate(self.chosen[np.minimum(places, len(self.chosen) - 1)]):
            record = self.records[row]
            pixels = decoded(record["image"])
            x[i] = cropped(pixels, resize.centre_box(*pixels.shape[:2]), self.method)
            y[i] = record["label"]
        return {"x": x, "y": y, "weight": (places < len(self.chosen)).astype(np.float32)}


def _records(root: Path, split: Split) -> tuple[Records, int]:
    """The records of a split and their number; the test images are ImageNet-v2."""
    name = V2_NAME if split is Split.TEST else NAME
    examples = load_manifest(name, root).examples(split.value)
    return Records(root / name, split.value, ("image",)), examples


def train_source(root: Path, batch_size: int, method: str = "cv2") -> Images:
    """The training batches of the prepared data set.

    Raises:
        DataError: the data set is not prepared.
        ValueError: it has fewer images than a batch, or there is no such method.
    """
    records, size = _records(root, Split.TRAIN)
    batching.check_batch_size(batch_size, size)
    return Images(records, batch_size, method)


def eval_source(
    root: Path, split: Split, batch_size: int, examples: int | None = None, method: str = "cv2"
) -> Images:
    """The evaluation batches of a split: a fixed random choice of images, by default all.

    Raises:
        DataError: the data set is not prepared.
        ValueError: the split has fewer examples, or there is no such method.
    """
    records, size = _records(root, split)
    count = size if examples is None else examples
    chosen = batching.fixed_subset(size, count, f"{split}_examples")
    return Images(records, batch_size, method, chosen)
