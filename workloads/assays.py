"""The workload assays_gnn: activity of molecules in seven screens. A mini ogbg-molpcba.

Boundary: combines the packed molecules and the graph network; the task holds loss and metrics.

Data: 23,563 molecules with the outcomes of seven screens, 57 % of them unknown (see
``embedded/LICENSES.md``), split by scaffold. Features follow AlgoPerf's workload ``ogbg``
(Dahl et al., "Benchmarking Neural Network Training Algorithms", 2023, https://arxiv.org/abs/2306.07179).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

import jax
import numpy as np

from timetrial.framework.entries import WorkloadEntry
from timetrial.framework.ranges import check
from timetrial.framework.types import PyTree, Split
from timetrial.framework.workload import Batch
from timetrial.workloads.data import batching, embedded_data, molecules
from timetrial.workloads.mini import LoopSettings
from timetrial.workloads.models import gnn
from timetrial.workloads.tasks.graph_classification import GraphClassification


@dataclasses.dataclass(frozen=True, kw_only=True)
class AssaysGnnSettings(LoopSettings):
    """Settings of assays_gnn.

    Attributes:
        latent_dim: width of the embeddings of atoms and bonds, >= 1.
        hidden_dims: widths of the layers of every update MLP, each >= 1.
        num_message_passing_steps: number of steps, >= 1; 5 in AlgoPerf's model.
        dropout_rate: dropout after each layer of an MLP, in [0, 1); 0.1 in AlgoPerf's far wider
            model.
        label_smoothing: share of the training target moved towards 1/7, in [0, 1).
    """

    latent_dim: int = 16
    hidden_dims: tuple[int, ...] = (16,)
    num_message_passing_steps: int = 2
    dropout_rate: float = 0.0
    label_smoothing: float = 0.0
    batch_size: int = 32
    step_hint: int = 1500
    eval_every_steps: int | None = 200
    eval_batch_size: int = 256
    train_examples: int = 512
    validation_examples: int = 2048
    test_examples: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, latent_dim=">= 1", num_message_passing_steps=">= 1")
        check(self, dropout_rate="[0, 1)", label_smoothing="[0, 1)")


@final
class AssaysGnn(GraphClassification):
    """Predicts activities; the deciding metric is mean average precision on validation.

    Batches come from ``molecules.pack``: graphs of fixed total size, the last one padding, ``y``
    and ``weight`` (N, 7). All known labels have equal weight, in training and in evaluation.

    Raises:
        ValueError: a setting does not fit the data or the model.
        DataError: the embedded data are missing or corrupt.
    """

    name: ClassVar[str] = "assays_gnn"
    devices: int | None = 1

    def __init__(self, settings: AssaysGnnSettings) -> None:
        self.step_hint = settings.step_hint
        self.eval_every_steps = settings.eval_every_steps
        self.eval_every_seconds = settings.eval_every_seconds
        self.label_smoothing = settings.label_smoothing
        self._batch_size = settings.batch_size
        data = molecules.load_molecules()
        self._train = data[Split.TRAIN]
        batching.check_batch_size(settings.batch_size, self._train.count)
        self._capacity = molecules.usual_capacity(self._train, settings.batch_size)
        self.model = gnn.make_model(
            latent_dim=settings.latent_dim,
            hidden_dims=settings.hidden_dims,
            num_message_passing_steps=settings.num_message_passing_steps,
            num_outputs=self._train.labels.shape[1],
            dropout_rate=settings.dropout_rate,
        )
        rows = {
            split: batching.fixed_subset(
                data[split].count, settings.examples(split), f"{split}_examples"
            )
            for split in self.splits
        }
        batches = {
            split: list(molecules.cut(rows[split], settings.eval_batch_size))
            for split in self.splits
        }
        capacity = molecules.needed_capacity(
            settings.eval_batch_size, [(data[s], part) for s in self.splits for part in batches[s]]
        )
        self._eval_batches = {
            split: tuple(molecules.pack(data[split], part, capacity) for part in batches[split])
            for split in self.splits
        }

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        graphs = molecules.pack(self._train, np.arange(1), molecules.Capacity(1, 64, 192))
        return self.model.init(key, graphs, train=False)["params"], {}

    def train_batch(self, seed: int, step: int) -> Batch:
        rows = batching.train_rows(self._train.count, self._batch_size, seed, step)
        return molecules.pack(self._train, rows, self._capacity)

    def eval_batches(self, split: Split) -> Sequence[Batch]:
        return self._eval_batches[split]

    def datasets(self) -> Mapping[str, str]:
        return {"assays": embedded_data.sha256("assays")}


ENTRY = WorkloadEntry(
    "Graph network on 24,000 molecules in 7 screens", AssaysGnnSettings, AssaysGnn
)
