"""The workload criteo1tb: a DLRM on the Criteo 1TB click logs, as in AlgoPerf.

Boundary: combines the prepared rows and the DLRM; the task holds loss and metric.

Sizes, splits and cadence: Dahl et al., "Benchmarking Neural Network Training Algorithms", 2023,
https://arxiv.org/abs/2306.07179, workload ``criteo1tb``; the training rows to evaluate and the
cadence are those of Rezk et al., "Is Scaling Learned Optimizers Worth It?", 2023,
https://arxiv.org/abs/2310.18191. Validation and test rows are those of AlgoPerf since 2024; before,
its files left some out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.framework.types import Split
from timetrial.framework.workload import Batch
from timetrial.workloads.data import criteo, criteo_rows
from timetrial.workloads.full_size import FullSize, FullSizeSettings, entry
from timetrial.workloads.models import dlrm
from timetrial.workloads.tasks.click_prediction import ClickPrediction, check_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Criteo1tbSettings(FullSizeSettings):
    """Settings of criteo1tb.

    Attributes:
        vocab_size: rows of the embedding table, shared by the 26 columns, >= 1. The row is the id
            modulo ``vocab_size``.
        embed_dim: width of an embedding, >= 1.
        mlp_bottom_dims: widths of the layers over the numbers; the last is a multiple of
            ``embed_dim``.
        mlp_top_dims: widths of the layers over the dot products; the last is 1, the logit.
        dropout_rate: dropout before the last layer, in [0, 1).
    """

    vocab_size: int = 4_194_304
    embed_dim: int = 128
    mlp_bottom_dims: tuple[int, ...] = (512, 256, 128)
    mlp_top_dims: tuple[int, ...] = (1024, 1024, 512, 256, 1)
    dropout_rate: float = 0.0
    batch_size: int = 262_144
    step_hint: int = 10_666
    eval_every_steps: int | None = None
    eval_every_seconds: float | None = 177.0
    eval_batch_size: int = 131_072
    train_examples: int = 89_128_960
    validation_examples: int = 83_274_637
    test_examples: int = 95_000_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_model(self)


@final
class Criteo1tb(FullSize, ClickPrediction):
    """Predicts clicks; the deciding metric is the cross-entropy on validation.

    Batches: raw numbers ``dense`` (N, 13) int32; ``ids`` (N, 26) int32; ``y`` (N,) float32, 1 is a
    click; evaluation batches also have ``weight`` (N,). The device takes logarithms.
    """

    name: ClassVar[str] = "criteo1tb"
    data_sets: ClassVar[tuple[str, ...]] = (criteo.NAME,)
    settings: Criteo1tbSettings

    def __init__(self, settings: Criteo1tbSettings, root: Path | None = None) -> None:
        super().__init__(settings, root)
        self.model = dlrm.make_model(
            vocab_size=settings.vocab_size,
            embed_dim=settings.embed_dim,
            mlp_bottom_dims=settings.mlp_bottom_dims,
            mlp_top_dims=settings.mlp_top_dims,
            dropout_rate=settings.dropout_rate,
            dtype=settings.dtype,
            fast=True,
        )

    def train_source(self) -> criteo_rows.TrainRows:
        return criteo_rows.train_source(self.root, self.settings.batch_size)

    def eval_source(self, split: Split) -> criteo_rows.EvalRows:
        settings = self.settings
        return criteo_rows.eval_source(
            self.root, split, settings.eval_batch_size, settings.examples(split)
        )

    def inputs(self, batch: Batch) -> Batch:
        """Replaces numbers by ``log(max(number, 0) + 1)``, as AlgoPerf does."""
        numbers = jnp.maximum(jnp.asarray(batch["dense"]), 0).astype(jnp.float32)
        return {**batch, "dense": jnp.log1p(numbers)}  # type: ignore[dict-item]

    def example_spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
        return {
            "dense": jax.ShapeDtypeStruct((dlrm.NUM_DENSE,), np.int32),
            "ids": jax.ShapeDtypeStruct((dlrm.NUM_IDS,), np.int32),
            "y": jax.ShapeDtypeStruct((), np.float32),
        }


ENTRY = entry("DLRM on the Criteo 1TB click logs", Criteo1tbSettings, Criteo1tb)
