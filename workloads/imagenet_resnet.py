"""The workload imagenet_resnet: ResNet-50 on ImageNet, as in AlgoPerf.

Boundary: combines the prepared images and the ResNet; the task holds loss and metrics.

Sizes, splits and cadence: Dahl et al., "Benchmarking Neural Network Training Algorithms", 2023,
https://arxiv.org/abs/2306.07179, workload ``imagenet_resnet``; the cadence is that of Rezk et al.,
"Is Scaling Learned Optimizers Worth It?", 2023, https://arxiv.org/abs/2310.18191.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final, Literal, final

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.framework.ranges import check, one_of
from timetrial.framework.types import Split
from timetrial.framework.workload import Batch
from timetrial.workloads.data import imagenet, imagenet_images
from timetrial.workloads.full_size import FullSize, FullSizeSettings, entry
from timetrial.workloads.models import resnet
from timetrial.workloads.tasks.image_classification import ImageClassification

SIZE: Final = imagenet_images.SIZE

MEAN: Final = (0.485 * 255, 0.456 * 255, 0.406 * 255)
"""Mean of red, green and blue over ImageNet, in grey levels; AlgoPerf's constants."""

STD: Final = (0.229 * 255, 0.224 * 255, 0.225 * 255)
"""Standard deviation of red, green and blue over ImageNet, in grey levels."""

Resize = Literal["cv2", "exact"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagenetResnetSettings(FullSizeSettings):
    """Settings of imagenet_resnet.

    Attributes:
        stage_sizes: number of blocks per stage, each >= 1.
        num_filters: width of the first stage, doubled from stage to stage, >= 1.
        bn_groups: groups of consecutive images that share batch statistics in training, >= 1. The
            paper's two GPUs make 2 of 512 images each.
        label_smoothing: share of the training target spread evenly over all classes, in [0, 1).
        resize: bicubic resizing on the host. cv2: OpenCV's, a = -0.75, fast. exact: TensorFlow's,
            a = -0.5, as in AlgoPerf, a third as fast. Neither smooths before it shrinks.
    """

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    num_filters: int = 64
    bn_groups: int = 1
    label_smoothing: float = 0.0
    resize: Resize = "cv2"
    batch_size: int = 1024
    step_hint: int = 186_666
    eval_every_steps: int | None = None
    eval_every_seconds: float | None = 661.0
    eval_batch_size: int = 1024
    train_examples: int = 50_176
    validation_examples: int = 50_000
    test_examples: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, num_filters=">= 1", bn_groups=">= 1", label_smoothing="[0, 1)")
        one_of(self, resize=Resize)
        if self.batch_size % self.bn_groups:
            raise ValueError(
                f"bn_groups: expected a divisor of batch_size={self.batch_size}, "
                f"got {self.bn_groups}"
            )


@final
class ImagenetResnet(FullSize, ImageClassification):
    """Classifies photographs; the deciding metric is top-1 accuracy on validation.

    Batches: ``x`` (N, 224, 224, 3) uint8, ``y`` (N,) int32 in [0, 1000); evaluation batches also
    have ``weight`` (N,). The device normalises. Test images are those of ImageNet-v2.
    """

    name: ClassVar[str] = "imagenet_resnet"
    data_sets: ClassVar[tuple[str, ...]] = (imagenet.NAME, imagenet.V2_NAME)
    settings: ImagenetResnetSettings

    def __init__(self, settings: ImagenetResnetSettings, root: Path | None = None) -> None:
        super().__init__(settings, root)
        self.label_smoothing = settings.label_smoothing
        self.image_shape = (SIZE, SIZE, 3)
        self.model = resnet.make_model(
            stage_sizes=settings.stage_sizes,
            num_filters=settings.num_filters,
            bn_groups=settings.bn_groups,
            dtype=settings.dtype,
            fast=True,
        )

    def train_source(self) -> imagenet_images.Images:
        settings = self.settings
        return imagenet_images.train_source(self.root, settings.batch_size, settings.resize)

    def eval_source(self, split: Split) -> imagenet_images.Images:
        settings = self.settings
        return imagenet_images.eval_source(
            self.root, split, settings.eval_batch_size, settings.examples(split), settings.resize
        )

    def inputs(self, batch: Batch) -> Batch:
        """Normalises the images by ``MEAN`` and ``STD``."""
        pixels = jnp.asarray(batch["x"]).astype(jnp.float32)
        x = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        return {**batch, "x": x}  # type: ignore[dict-item]

    def example_spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
        image = jax.ShapeDtypeStruct((SIZE, SIZE, 3), np.uint8)
        return {"x": image, "y": jax.ShapeDtypeStruct((), np.int32)}


ENTRY = entry("ResNet-50 on ImageNet", ImagenetResnetSettings, ImagenetResnet)
