"""The workload ogbg: a graph network on OGBG-molpcba, as in AlgoPerf.

Boundary: combines the prepared graphs and the graph network; the task holds loss and metrics.

Sizes, splits and cadence: Dahl et al., "Benchmarking Neural Network Training Algorithms", 2023,
https://arxiv.org/abs/2306.07179, workload ``ogbg``; the cadence is that of Rezk et al., "Is Scaling
Learned Optimizers Worth It?", 2023, https://arxiv.org/abs/2310.18191. AlgoPerf evaluates other
training graphs each time; here they are fixed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, final

import jax
import jax.numpy as jnp

from timetrial.framework.ranges import check
from timetrial.framework.types import PyTree, Split
from timetrial.framework.workload import Batch
from timetrial.workloads.data import molecules, ogbg, ogbg_graphs
from timetrial.workloads.full_size import FullSize, FullSizeSettings, entry
from timetrial.workloads.models import gnn
from timetrial.workloads.tasks.graph_classification import GraphClassification


@dataclasses.dataclass(frozen=True, kw_only=True)
class OgbgSettings(FullSizeSettings):
    """Settings of ogbg.

    Attributes:
        parts: packs of every batch, >= 1, each with its own padding. A pack never crosses devices,
            so their number divides ``parts``. Training graphs that do not fit into a pack are left
            out, so results depend on it slightly.
        latent_dim: width of the embeddings of atoms and bonds, >= 1.
        hidden_dims: widths of the layers of every update MLP, each >= 1.
        num_message_passing_steps: number of steps, >= 1.
        dropout_rate: dropout after each layer of an MLP, in [0, 1).
        label_smoothing: share of the training target moved towards 1/128, in [0, 1).
    """

    parts: int = 1
    latent_dim: int = 256
    hidden_dims: tuple[int, ...] = (256,)
    num_message_passing_steps: int = 5
    dropout_rate: float = 0.1
    label_smoothing: float = 0.0
    batch_size: int = 512
    step_hint: int = 80_000
    eval_every_steps: int | None = None
    eval_every_seconds: float | None = 193.0
    eval_batch_size: int = 32_768
    train_examples: int = 43_793
    validation_examples: int = 43_793
    test_examples: int = 43_793

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, latent_dim=">= 1", num_message_passing_steps=">= 1")
        check(self, dropout_rate="[0, 1)", label_smoothing="[0, 1)")


@final
class Ogbg(FullSize, GraphClassification):
    """Predicts outcomes of assays; the deciding metric is mean average precision on validation.

    Batches have a first axis of packs; see ``ogbg_graphs.spec``. All known labels have equal
    weight, in training and in evaluation.
    """

    name: ClassVar[str] = "ogbg"
    data_sets: ClassVar[tuple[str, ...]] = (ogbg.NAME,)
    settings: OgbgSettings

    def __init__(self, settings: OgbgSettings, root: Path | None = None) -> None:
        super().__init__(settings, root)
        self.label_smoothing = settings.label_smoothing
        self.model = gnn.make_model(
            latent_dim=settings.latent_dim,
            hidden_dims=settings.hidden_dims,
            num_message_passing_steps=settings.num_message_passing_steps,
            num_outputs=ogbg.TASKS,
            dropout_rate=settings.dropout_rate,
            dtype=settings.dtype,
            fast=True,
        )

    def train_source(self) -> ogbg_graphs.Packs:
        settings = self.settings
        return ogbg_graphs.train_source(self.root, settings.batch_size, settings.parts)

    def eval_source(self, split: Split) -> ogbg_graphs.Packs:
        settings = self.settings
        return ogbg_graphs.eval_source(
            self.root,
            split,
            settings.eval_batch_size,
            settings.examples(split),
            settings.eval_parts,
        )

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        shapes = ogbg_graphs.spec(molecules.Capacity(1, 64, 192), packs=1)
        graphs = {name: jnp.zeros(one.shape[1:], one.dtype) for name, one in shapes.items()}
        return self.model.init(key, graphs, train=False)["params"], {}

    def logits(self, params: PyTree, graphs: Batch, key: jax.Array | None = None) -> jax.Array:
        """Logits of every graph of every pack, (packs, graphs, 128)."""
        packs = len(graphs["n_node"])
        keys = None if key is None else jax.random.split(key, packs)
        if packs == 1:
            graph, only = jax.tree.map(lambda values: jnp.asarray(values)[0], (graphs, keys))
            return super().logits(params, graph, only)[None]
        one_pack = super().logits
        over_packs = jax.vmap(one_pack, in_axes=(None, 0, None if keys is None else 0))
        return over_packs(params, dict(graphs), keys)

    def batch_spec(self) -> PyTree:
        settings = self.settings
        capacity = ogbg_graphs.train_capacity(settings.batch_size // settings.parts)
        return ogbg_graphs.spec(capacity, settings.parts)

    def eval_batch_spec(self) -> PyTree:
        source = self.eval_source(Split.VALIDATION)
        return ogbg_graphs.spec(source.capacity, source.packs)


ENTRY = entry("Graph network on OGBG-molpcba, molecules in 128 assays", OgbgSettings, Ogbg)
