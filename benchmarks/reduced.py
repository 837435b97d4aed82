"""The four full-size workloads at reduced size: real models and proportions, synthetic batches.

Boundary: builds workloads and one batch each; measures nothing. Speed does not depend on values, so
images, numbers and labels are random. Molecules are real, because the sizes of graphs matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, final

import jax
import numpy as np

from timetrial.framework.types import PyTree, Split
from timetrial.framework.workload import Batch, Workload
from timetrial.workloads.data import molecules
from timetrial.workloads.models import dlrm, gnn, resnet, unet
from timetrial.workloads.tasks.click_prediction import ClickPrediction
from timetrial.workloads.tasks.graph_classification import GraphClassification
from timetrial.workloads.tasks.image_classification import ImageClassification
from timetrial.workloads.tasks.image_reconstruction import ImageReconstruction

Size = Mapping[str, Any]
"""Arguments of a model, and the shape of its batch."""

SIZES: Mapping[str, Mapping[str, Size]] = {
    "imagenet_resnet": {
        "reduced": {"stages": (2, 2, 2, 2), "filters": 16, "classes": 1000, "pixels": 64, "n": 32},
        "quick": {"stages": (1, 1), "filters": 8, "classes": 10, "pixels": 32, "n": 4},
    },
    "fastmri": {
        "reduced": {"channels": 16, "pools": 4, "pixels": 160, "n": 2},
        "quick": {"channels": 4, "pools": 2, "pixels": 32, "n": 2},
    },
    "ogbg": {
        "reduced": {"latent": 128, "steps": 5, "outputs": 128, "n": 64},
        "quick": {"latent": 16, "steps": 2, "outputs": 8, "n": 8},
    },
    "criteo1tb": {
        "reduced": {
            "rows": 2**18,
            "embed": 64,
            "bottom": (256, 128, 64),
            "top": (512, 512, 256, 128, 1),
            "n": 4096,
        },
        "quick": {"rows": 512, "embed": 8, "bottom": (16, 8), "top": (16, 8, 1), "n": 64},
    },
}
"""Reduced sizes by workload. Widths shrink alike, so that the shares of the layers stay about those
of the full size; ``criteo1tb`` has 4,096 values of its table per example (2,048 at full size)."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A workload at a reduced size.

    Attributes:
        name: name of the full-size workload.
        size: its entry in ``SIZES``.
        workload: model and loss.
        batch: one training batch, on the host.
    """

    name: str
    size: Size
    workload: Workload
    batch: Batch


class _OneBatch(Workload):
    """A workload without evaluation whose updates all have the same batch."""

    step_hint: int = 1
    eval_every_steps: int | None = None
    splits: Sequence[Split] = ()
    batch: Batch

    def train_batch(self, seed: int, step: int) -> Batch:
        return self.batch

    def eval_batches(self, split: Split) -> Sequence[Batch]:
        return ()


@final
class _Images(_OneBatch, ImageClassification):
    name: ClassVar[str] = "imagenet_resnet"

    def __init__(self, size: Size, rng: np.random.Generator) -> None:
        self.label_smoothing = 0.0
        self.image_shape = (size["pixels"], size["pixels"], 3)
        self.model = resnet.make_model(
            stage_sizes=size["stages"],
            num_filters=size["filters"],
            num_classes=size["classes"],
            fast=True,
        )
        self.batch = {
            "x": _normal(rng, size["n"], *self.image_shape),
            "y": rng.integers(size["classes"], size=size["n"], dtype=np.int32),
        }


@final
class _Reconstruction(_OneBatch, ImageReconstruction):
    name: ClassVar[str] = "fastmri"

    def __init__(self, size: Size, rng: np.random.Generator) -> None:
        self.image_size = size["pixels"]
        self.model = unet.make_model(channels=size["channels"], num_pool_layers=size["pools"])
        shape = (size["n"], size["pixels"], size["pixels"])
        self.batch = {"x": _normal(rng, *shape), "y": _normal(rng, *shape)}


@final
class _Graphs(_OneBatch, GraphClassification):
    name: ClassVar[str] = "ogbg"

    def __init__(self, size: Size, rng: np.random.Generator) -> None:
        self.label_smoothing = 0.0
        self.model = gnn.make_model(
            latent_dim=size["latent"],
            hidden_dims=(size["latent"],),
            num_message_passing_steps=size["steps"],
            num_outputs=size["outputs"],
            fast=True,
        )
        data = molecules.load_molecules()[Split.TRAIN]
        capacity = molecules.usual_capacity(data, size["n"])
        batch = molecules.pack(data, rng.choice(data.count, size["n"], replace=False), capacity)
        columns = np.arange(size["outputs"]) % data.labels.shape[1]
        repeated = {name: batch[name][:, columns] for name in ("y", "weight")}
        self.batch = {**batch, **repeated}

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        return self.model.init(key, self.batch, train=False)["params"], {}


@final
class _Clicks(_OneBatch, ClickPrediction):
    name: ClassVar[str] = "criteo1tb"

    def __init__(self, size: Size, rng: np.random.Generator) -> None:
        self.model = dlrm.make_model(
            vocab_size=size["rows"],
            embed_dim=size["embed"],
            mlp_bottom_dims=size["bottom"],
            mlp_top_dims=size["top"],
            fast=True,
        )
        n = size["n"]
        # Few categories are frequent: the logarithm of an id is uniform.
        ids = size["rows"] ** rng.random((n, dlrm.NUM_IDS))
        self.batch = {
            "dense": np.abs(_normal(rng, n, dlrm.NUM_DENSE)),
            "ids": ids.astype(np.int32) - 1,
            "y": rng.integers(2, size=n).astype(np.float32),
        }


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


_MAKE: Mapping[str, Callable[[Size, np.random.Generator], _OneBatch]] = {
    "imagenet_resnet": _Images,
    "fastmri": _Reconstruction,
    "ogbg": _Graphs,
    "criteo1tb": _Clicks,
}


def make(name: str, *, quick: bool = False) -> Problem:
    """A workload of ``SIZES`` with one batch; ``quick`` compiles and runs in seconds."""
    size = SIZES[name]["quick" if quick else "reduced"]
    workload = _MAKE[name](size, np.random.default_rng(0))
    return Problem(name, size, workload, workload.batch)
