"""The workload fashion_mnist_resnet: images of ten kinds of garments. A mini ImageNet.

Boundary: combines the embedded data and the ResNet; the task holds loss and metrics.

Data: 14,000 images of Fashion-MNIST (Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset
for Benchmarking Machine Learning Algorithms", 2017, https://arxiv.org/abs/1708.07747). Small images
are cropped as for CIFAR (He et al., https://arxiv.org/abs/1512.03385, section 4.2), not resized.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

import numpy as np

from timetrial.framework.entries import WorkloadEntry
from timetrial.framework.ranges import check
from timetrial.framework.types import Split
from timetrial.framework.workload import Batch
from timetrial.workloads.data import batching, embedded_data
from timetrial.workloads.mini import LoopSettings
from timetrial.workloads.models import resnet
from timetrial.workloads.tasks.image_classification import ImageClassification

SIZE = 28
PADDING = 2
"""Zeros around a training image; a random window of the original size is cropped."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FashionMnistResnetSettings(LoopSettings):
    """Settings of fashion_mnist_resnet.

    Attributes:
        stage_sizes: number of blocks per stage, each >= 1.
        num_filters: width of the first stage, doubled from stage to stage, >= 1.
        bottleneck: bottleneck blocks, as in ResNet-50, instead of basic blocks.
        small_inputs: stem at full resolution, instead of quarter resolution.
        label_smoothing: share of the training target spread evenly over all classes, in [0, 1).
    """

    stage_sizes: tuple[int, ...] = (1, 1, 1)
    num_filters: int = 8
    bottleneck: bool = False
    small_inputs: bool = False
    label_smoothing: float = 0.0
    batch_size: int = 64
    step_hint: int = 200
    eval_every_steps: int | None = 25
    eval_batch_size: int = 500
    train_examples: int = 500
    validation_examples: int = 1000
    test_examples: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, num_filters=">= 1", label_smoothing="[0, 1)")


@final
class FashionMnistResnet(ImageClassification):
    """Classifies garments; the deciding metric is top-1 accuracy on validation.

    Batches: ``x`` (N, 28, 28, 1) float32, normalised; ``y`` (N,) int32 in [0, 10); evaluation
    batches also have ``weight`` (N,). Training images are shifted by up to 2 pixels and mirrored
    with probability 1/2.

    Raises:
        ValueError: a setting does not fit the data or the model.
        DataError: the embedded data are missing or corrupt.
    """

    name: ClassVar[str] = "fashion_mnist_resnet"
    devices: int | None = 1

    def __init__(self, settings: FashionMnistResnetSettings) -> None:
        self.step_hint = settings.step_hint
        self.eval_every_steps = settings.eval_every_steps
        self.eval_every_seconds = settings.eval_every_seconds
        self.label_smoothing = settings.label_smoothing
        self._batch_size = settings.batch_size
        self.image_shape = (SIZE, SIZE, 1)
        self.model = resnet.make_model(
            stage_sizes=settings.stage_sizes,
            num_filters=settings.num_filters,
            num_classes=10,
            bottleneck=settings.bottleneck,
            small_inputs=settings.small_inputs,
        )
        data = load_fashion_mnist()
        self._images = padded_train_images()
        self._labels = data[Split.TRAIN]["y"]
        batching.check_batch_size(settings.batch_size, len(self._labels))
        self._eval_batches = batching.eval_batches_by_split(data, settings)

    def train_batch(self, seed: int, step: int) -> Batch:
        rows = batching.train_rows(len(self._labels), self._batch_size, seed, step)
        rng = batching.augmentation_rng(seed, step)
        images = crop_and_flip(self._images[rows], rng)
        return {"x": normalise(images), "y": self._labels[rows]}

    def eval_batches(self, split: Split) -> Sequence[Batch]:
        return self._eval_batches[split]

    def datasets(self) -> Mapping[str, str]:
        return {"fashion_mnist": embedded_data.sha256("fashion_mnist")}


ENTRY = WorkloadEntry(
    "ResNet on 14,000 images of garments", FashionMnistResnetSettings, FashionMnistResnet
)


def crop_and_flip(padded: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Crops a random window of each image and mirrors it with probability 1/2.

    Args:
        padded: images (N, 32, 32).
        rng: source of the windows and the flips.

    Returns:
        Images (N, 28, 28).
    """
    n = len(padded)
    top, left = rng.integers(0, 2 * PADDING + 1, (2, n))
    flip = rng.random(n) < 0.5
    across = left[:, None] + np.where(flip[:, None], np.arange(SIZE)[::-1], np.arange(SIZE))
    down = top[:, None] + np.arange(SIZE)
    windows: np.ndarray = padded[np.arange(n)[:, None, None], down[:, :, None], across[:, None, :]]
    return windows


def normalise(images: np.ndarray) -> np.ndarray:
    """Bytes (N, 28, 28) as float32 (N, 28, 28, 1), about zero mean and unit variance.

    Mean and standard deviation are over all pixels of the 10,000 training images, as for
    ImageNet.
    """
    mean, std = np.float32(73.0), np.float32(90.1)
    return ((images.astype(np.float32) - mean) / std)[..., None]


@functools.cache
def load_fashion_mnist() -> Mapping[Split, Mapping[str, np.ndarray]]:
    """The data set by split, as ``x`` (N, 28, 28, 1) float32, normalised, and ``y`` (N,) int32."""
    raw = embedded_data.load("fashion_mnist")
    return {
        split: {
            "x": normalise(raw[f"{split}_images"]),
            "y": raw[f"{split}_labels"].astype(np.int32),
        }
        for split in embedded_data.SPLITS
    }


@functools.cache
def padded_train_images() -> np.ndarray:
    """Training images (N, 32, 32) as bytes, with a border of zeros."""
    images = embedded_data.load("fashion_mnist")["train_images"]
    return np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING)))
