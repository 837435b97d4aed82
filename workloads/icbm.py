"""The workload icbm_unet: brain images from a quarter of their k-space. A mini fastMRI.

Boundary: combines the embedded data and the U-Net; the task holds loss and metrics.

Data: 300 slices of the ICBM152 2009a template (Fonov et al., "Unbiased average age-appropriate
atlases for pediatric studies", NeuroImage 54, 2011, https://doi.org/10.1016/j.neuroimage.2010.07.033),
with any number of measurements simulated by ``kspace``.
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
from timetrial.workloads.data import batching, embedded_data, kspace
from timetrial.workloads.mini import LoopSettings
from timetrial.workloads.models import unet
from timetrial.workloads.tasks.image_reconstruction import ImageReconstruction

IMAGE_SIZES = (96, 48, 32, 24)
"""Size of the slices, and smaller sizes by averaging."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class IcbmUnetSettings(LoopSettings):
    """Settings of icbm_unet.

    Attributes:
        channels: width at full resolution, doubled at every level below, >= 1.
        num_pool_layers: number of times the resolution is halved, >= 1.
        dropout_rate: dropout of whole channels, in [0, 1).
        image_size: pixels along each side, over 192 mm: 96, 48, 32 or 24, at least
            ``2**num_pool_layers``.
        train_images: number of simulated training measurements, >= 1.
    """

    channels: int = 8
    num_pool_layers: int = 2
    dropout_rate: float = 0.0
    image_size: int = 24
    train_images: int = 1024
    batch_size: int = 4
    step_hint: int = 600
    eval_every_steps: int | None = 50
    eval_batch_size: int = 64
    train_examples: int = 64
    validation_examples: int = 64
    test_examples: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, channels=">= 1", num_pool_layers=">= 1", dropout_rate="[0, 1)")
        check(self, train_images=">= 1")
        if self.image_size not in IMAGE_SIZES:
            raise ValueError(
                f"image_size: expected one of {', '.join(map(str, IMAGE_SIZES))}, "
                f"got {self.image_size}"
            )
        if self.image_size < 2**self.num_pool_layers:
            raise ValueError(
                f"num_pool_layers: expected at most {self.image_size.bit_length() - 1} for "
                f"image_size={self.image_size}, got {self.num_pool_layers}"
            )


@final
class IcbmUnet(ImageReconstruction):
    """Reconstructs undersampled images; the deciding metric is SSIM on validation.

    Batches: ``x``, ``y`` (N, S, S) and ``mean``, ``std``, ``volume_max`` (N,), all float32, from
    ``kspace.simulate``; evaluation batches also have ``weight`` (N,). Every image keeps its mask in
    all passes, as in AlgoPerf. AlgoPerf evaluates all images with one mask of 320 columns; here
    evaluation masks differ, because one mask of 24 columns is less typical.

    Raises:
        ValueError: a setting does not fit the data or the model.
        DataError: the embedded data are missing or corrupt.
    """

    name: ClassVar[str] = "icbm_unet"
    devices: int | None = 1

    def __init__(self, settings: IcbmUnetSettings) -> None:
        self.step_hint = settings.step_hint
        self.eval_every_steps = settings.eval_every_steps
        self.eval_every_seconds = settings.eval_every_seconds
        self._batch_size = settings.batch_size
        self.image_size = settings.image_size
        self.model = unet.make_model(
            channels=settings.channels,
            num_pool_layers=settings.num_pool_layers,
            dropout_rate=settings.dropout_rate,
        )
        batching.check_batch_size(settings.batch_size, settings.train_images)
        counts = {
            Split.TRAIN: settings.train_images,
            Split.VALIDATION: settings.validation_examples,
            Split.TEST: settings.test_examples,
        }
        data = {split: load_icbm(split, n, self.image_size) for split, n in counts.items()}
        self._train = data[Split.TRAIN]
        self._eval_batches = batching.eval_batches_by_split(data, settings)

    def train_batch(self, seed: int, step: int) -> Batch:
        rows = batching.train_rows(len(self._train["x"]), self._batch_size, seed, step)
        return {name: values[rows] for name, values in self._train.items()}

    def eval_batches(self, split: Split) -> Sequence[Batch]:
        return self._eval_batches[split]

    def datasets(self) -> Mapping[str, str]:
        return {"icbm152": embedded_data.sha256("icbm152")}


ENTRY = WorkloadEntry(
    "U-Net on simulated 4x undersampled MRI of brain slices", IcbmUnetSettings, IcbmUnet
)


@functools.cache
def load_icbm(split: Split, count: int, size: int) -> Mapping[str, np.ndarray]:
    """``count`` measurements simulated from the slices of a split; deterministic."""
    raw = embedded_data.load("icbm152")
    index = embedded_data.SPLITS.index(split)
    maps = raw["maps"][raw["split"] == index]
    return kspace.simulate(maps, count, size, np.random.default_rng(index))
