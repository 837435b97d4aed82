"""The workload fastmri: a U-Net on undersampled knee MRI, as in AlgoPerf.

Boundary: combines the prepared slices and the U-Net; the task holds loss and metrics.

Sizes, splits and cadence: Dahl et al., "Benchmarking Neural Network Training Algorithms", 2023,
https://arxiv.org/abs/2306.07179, workload ``fastmri``; the cadence is that of Rezk et al., "Is
Scaling Learned Optimizers Worth It?", 2023, https://arxiv.org/abs/2310.18191.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

import jax
import numpy as np

from timetrial.framework.ranges import check
from timetrial.framework.types import Split
from timetrial.workloads.data import fastmri, fastmri_slices
from timetrial.workloads.full_size import FullSize, FullSizeSettings, entry
from timetrial.workloads.models import unet
from timetrial.workloads.tasks.image_reconstruction import ImageReconstruction


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastmriSettings(FullSizeSettings):
    """Settings of fastmri.

    Attributes:
        channels: width at full resolution, doubled at every level below, >= 1.
        num_pool_layers: number of times the resolution is halved, in [1, 8].
        dropout_rate: dropout of whole channels, in [0, 1).
    """

    channels: int = 32
    num_pool_layers: int = 4
    dropout_rate: float = 0.0
    batch_size: int = 32
    step_hint: int = 36_189
    eval_every_steps: int | None = None
    eval_every_seconds: float | None = 93.0
    eval_batch_size: int = 256
    train_examples: int = 3_584
    validation_examples: int = 3_554
    test_examples: int = 3_581

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, channels=">= 1", num_pool_layers="[1, 8]", dropout_rate="[0, 1)")


@final
class Fastmri(FullSize, ImageReconstruction):
    """Reconstructs knee slices; the deciding metric is SSIM on validation.

    Batches: ``x``, ``y`` (N, 320, 320) and ``mean``, ``std``, ``volume_max`` (N,), all float32;
    evaluation batches also have ``weight`` (N,).
    """

    name: ClassVar[str] = "fastmri"
    data_sets: ClassVar[tuple[str, ...]] = (fastmri.NAME,)
    settings: FastmriSettings

    def __init__(self, settings: FastmriSettings, root: Path | None = None) -> None:
        super().__init__(settings, root)
        self.image_size = fastmri.SIZE
        self.model = unet.make_model(
            channels=settings.channels,
            num_pool_layers=settings.num_pool_layers,
            dropout_rate=settings.dropout_rate,
            dtype=settings.dtype,
        )

    def train_source(self) -> fastmri_slices.Slices:
        return fastmri_slices.train_source(self.root, self.settings.batch_size)

    def eval_source(self, split: Split) -> fastmri_slices.Slices:
        settings = self.settings
        return fastmri_slices.eval_source(
            self.root, split, settings.eval_batch_size, settings.examples(split)
        )

    def example_spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
        image = jax.ShapeDtypeStruct((fastmri.SIZE, fastmri.SIZE), np.float32)
        number = jax.ShapeDtypeStruct((), np.float32)
        return {"x": image, "y": image, "mean": number, "std": number, "volume_max": number}


ENTRY = entry("U-Net on fastMRI knee, single coil", FastmriSettings, Fastmri)
