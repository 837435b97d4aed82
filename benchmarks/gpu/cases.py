"""The table of full-size workloads to measure: size, synthetic batch and the paper's times.

Boundary: builds workloads and optimizers; runs nothing.

To add a workload, add one entry to ``CASES``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import optax

from benchmarks.gpu import batches
from benchmarks.velo import random_weights
from timetrial.framework.entries import Horizon
from timetrial.framework.types import PyTree
from timetrial.framework.workload import Batch, Workload
from timetrial.optimizers import OPTIMIZERS
from timetrial.optimizers.velo import velo
from timetrial.workloads.criteo1tb import Criteo1tb, Criteo1tbSettings
from timetrial.workloads.fastmri import Fastmri, FastmriSettings
from timetrial.workloads.full_size import FullSizeSettings
from timetrial.workloads.imagenet_resnet import ImagenetResnet, ImagenetResnetSettings
from timetrial.workloads.ogbg import Ogbg, OgbgSettings

PRECISIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "tf32": {"compute_type": "float32", "matmul_precision": "tensorfloat32"},
    "bf16": {"compute_type": "bfloat16", "matmul_precision": "tensorfloat32"},
    "float32": {"compute_type": "float32", "matmul_precision": "float32"},
}
"""Settings of a workload by precision; the paper's A100s computed in tensorfloat32."""

OPTIMIZER_NAMES: Final = ("adam", "velo")

_NOWHERE: Final = Path("no-data-needed")


@dataclasses.dataclass(frozen=True)
class Case:
    """One full-size workload.

    Attributes:
        settings: class of its settings.
        make: builds it from settings; no data are needed.
        batch: makes a batch from ``batch_spec()`` and random numbers.
        reduced: settings that a CPU trains in a fraction of a second per update.
        a100_step_ms: milliseconds per update of the target-setting algorithm on one A100: Rezk et
            al., "Is Scaling Learned Optimizers Worth It?", 2023, table 5,
            https://arxiv.org/abs/2310.18191.
        velo_over_baseline: VeLO's time per update over that algorithm's on the same GPUs: the
            same, tables 5 and 7.
    """

    settings: type[FullSizeSettings]
    make: Callable[[Any], Workload]
    batch: Callable[[PyTree, np.random.Generator], Batch]
    reduced: Mapping[str, Any]
    a100_step_ms: float
    velo_over_baseline: float

    def workload(self, precision: str, *, reduced: bool, **more: Any) -> Workload:
        """The workload at full or reduced size, at one of ``PRECISIONS``."""
        size = dict(self.reduced) if reduced else {}
        return self.make(self.settings(**{**size, **PRECISIONS[precision], **more}))

    def synthetic(self, workload: Workload, seed: int = 0) -> Batch:
        """A training batch on the host; the same for the same seed."""
        spec = workload.batch_spec()
        return batches.check(self.batch(spec, np.random.default_rng(seed)), spec)


CASES: Final[Mapping[str, Case]] = {
    "imagenet_resnet": Case(
        ImagenetResnetSettings,
        lambda settings: ImagenetResnet(settings, _NOWHERE),
        batches.images,
        {"stage_sizes": (1,), "num_filters": 4, "batch_size": 4, "parts": 2},
        931.9,
        1.17,
    ),
    "fastmri": Case(
        FastmriSettings,
        lambda settings: Fastmri(settings, _NOWHERE),
        batches.slices,
        {"channels": 2, "num_pool_layers": 1, "batch_size": 2, "parts": 2},
        454.2,
        1.01,
    ),
    "ogbg": Case(
        OgbgSettings,
        lambda settings: Ogbg(settings, _NOWHERE),
        batches.packs,
        {
            "latent_dim": 16,
            "hidden_dims": (16,),
            "num_message_passing_steps": 2,
            "batch_size": 16,
        },
        185.7,
        1.01,
    ),
    "criteo1tb": Case(
        Criteo1tbSettings,
        lambda settings: Criteo1tb(settings, _NOWHERE),
        batches.clicks,
        {
            "vocab_size": 1000,
            "embed_dim": 8,
            "mlp_bottom_dims": (16, 8),
            "mlp_top_dims": (16, 1),
            "batch_size": 256,
            "parts": 2,
        },
        1067.5,
        1.39,
    ),
}
"""By name, in the order of the table."""


def optimizer(name: str, *, weights: str = "random") -> optax.GradientTransformation:
    """Adam with the paper's settings, or VeLO of the released sizes.

    Args:
        name: one of ``OPTIMIZER_NAMES``, or another optimizer of the registry. velo_plain: VeLO
            with random weights, without Pallas kernels.
        weights: VeLO's. random: of the released sizes; time and memory do not depend on values.
            embedded: the small ones that ship, which train.
    """
    if name == "velo_plain":
        return velo(10_000, meta_params=random_weights(), kernels="plain")
    if name == "velo" and weights == "random":
        return velo(10_000, meta_params=random_weights(), kernels="auto")
    entry = OPTIMIZERS[name]
    settings = entry.settings(**({"weights": weights} if name == "velo" else {}))
    made: optax.GradientTransformation = entry.make(settings, Horizon(200, 200))
    return made
