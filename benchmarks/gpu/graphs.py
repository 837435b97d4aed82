"""The step of the workload ogbg: AlgoPerf's graph network on packs of molecules.

Boundary: model, loss and shapes; no data.

Sizes: Dahl et al., "Benchmarking Neural Network Training Algorithms", 2023,
https://arxiv.org/abs/2306.07179, workload ``ogbg``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import ClassVar, Final, final

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.framework.types import PyTree, Split
from timetrial.framework.workload import Batch, Sums
from timetrial.workloads.full_size import FullSizeSettings, spec
from timetrial.workloads.models import gnn
from timetrial.workloads.tasks.graph_classification import GraphClassification

NODES_PER_GRAPH: Final = 26
EDGES_PER_GRAPH: Final = 56
TASKS: Final = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphsSettings(FullSizeSettings):
    """Settings of the step.

    Attributes:
        latent_dim: width of the embeddings of atoms and bonds, >= 1.
        hidden_dims: widths of the layers of every update MLP, each >= 1.
        num_message_passing_steps: number of steps, >= 1.
    """

    latent_dim: int = 256
    hidden_dims: tuple[int, ...] = (256,)
    num_message_passing_steps: int = 5
    parts: int = 1
    batch_size: int = 512
    step_hint: int = 80_000
    eval_every_steps: int | None = None
    eval_batch_size: int = 512
    train_examples: int = 43_793
    validation_examples: int = 43_793
    test_examples: int = 43_793


@final
class Graphs(GraphClassification):
    """Labels graphs; batches are as from ``data.molecules.pack``, with a leading axis of packs."""

    name: ClassVar[str] = "ogbg"

    def __init__(self, settings: GraphsSettings) -> None:
        self.settings = settings
        self.step_hint = settings.step_hint
        self.eval_every_steps = settings.eval_every_steps
        self.label_smoothing = 0.0
        self.model = gnn.make_model(
            latent_dim=settings.latent_dim,
            hidden_dims=settings.hidden_dims,
            num_message_passing_steps=settings.num_message_passing_steps,
            num_outputs=TASKS,
            dtype=settings.dtype,
        )

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        one = {name: jnp.zeros(x.shape[1:], x.dtype) for name, x in _pack_spec(1, 1).items()}
        return self.model.init(key, one, train=False)["params"], {}

    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        def of_pack(pack: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = self.model.apply({"params": params}, pack, train=True, rngs={"dropout": key})
            losses, counts = gnn.masked_binary_cross_entropy(logits, pack["y"], pack["weight"])
            return jnp.sum(losses), jnp.sum(counts)

        with jax.default_matmul_precision(self.settings.matmul_precision):
            keys = jax.random.split(key, batch["nodes"].shape[0])
            losses, counts = jax.vmap(of_pack)(batch, keys)
        return jnp.sum(losses) / jnp.sum(counts), model_state

    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        with jax.default_matmul_precision(self.settings.matmul_precision):
            return super().eval_step(params, model_state, {k: v[0] for k, v in batch.items()})

    def train_batch(self, seed: int, step: int) -> Batch:
        raise NotImplementedError("ogbg here has shapes only, no data")

    def eval_batches(self, split: Split) -> Iterable[Batch]:
        raise NotImplementedError("ogbg here has shapes only, no data")

    def batch_spec(self) -> PyTree:
        return _pack_spec(1, self.settings.batch_size)

    def eval_batch_spec(self) -> PyTree:
        return _pack_spec(1, self.settings.eval_batch_size)


def _pack_spec(packs: int, graphs: int) -> PyTree:
    nodes, edges = NODES_PER_GRAPH * graphs + 1, EDGES_PER_GRAPH * graphs
    return spec(
        nodes=((packs, nodes, 9), np.float32),
        edges=((packs, edges, 3), np.float32),
        senders=((packs, edges), np.int32),
        receivers=((packs, edges), np.int32),
        n_node=((packs, graphs + 1), np.int32),
        n_edge=((packs, graphs + 1), np.int32),
        y=((packs, graphs + 1, TASKS), np.float32),
        weight=((packs, graphs + 1, TASKS), np.float32),
    )
