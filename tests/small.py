"""The four models at a small size, on random batches that any number of devices to 8 divides."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.framework.types import Direction, PyTree, Split
from timetrial.framework.workload import Batch, Sums, Workload
from timetrial.workloads.data import molecules
from timetrial.workloads.models import dlrm, gnn, resnet, unet
from timetrial.workloads.tasks.click_prediction import ClickPrediction
from timetrial.workloads.tasks.graph_classification import GraphClassification
from timetrial.workloads.tasks.image_classification import ImageClassification
from timetrial.workloads.tasks.image_reconstruction import ImageReconstruction

ROWS, CLASSES, SIZE, TASKS = 16, 5, 16, 3


class _Random(Workload):
    step_hint = 20
    eval_every_steps: int | None = 5
    splits = (Split.TRAIN, Split.VALIDATION)

    def train_batch(self, seed: int, step: int) -> Batch:
        return self.random(np.random.default_rng((seed, step)))

    def eval_batches(self, split: Split) -> list[Batch]:
        rng = np.random.default_rng(len(split))
        weights = (np.ones(ROWS, np.float32), np.float32(np.arange(ROWS) < ROWS - 3))
        return [{"weight": weight, **self.random(rng)} for weight in weights]

    def random(self, rng: np.random.Generator) -> Batch:
        raise NotImplementedError


class SmallResnet(_Random, ImageClassification):
    name, image_shape, label_smoothing = "resnet", (8, 8, 3), 0.1
    model = resnet.make_model(
        stage_sizes=(1,), num_filters=4, num_classes=CLASSES, bottleneck=False, small_inputs=True
    )

    def random(self, rng: np.random.Generator) -> Batch:
        labels = rng.integers(0, CLASSES, ROWS).astype(np.int32)
        images = rng.normal(size=(ROWS, *self.image_shape)).astype(np.float32)
        return {"x": images + labels[:, None, None, None], "y": labels}


class SmallUnet(_Random, ImageReconstruction):
    name, image_size = "unet", SIZE
    model = unet.make_model(channels=4, num_pool_layers=1)

    def random(self, rng: np.random.Generator) -> Batch:
        y = rng.normal(size=(ROWS, SIZE, SIZE)).astype(np.float32)
        scale = {name: np.ones(ROWS, np.float32) for name in ("mean", "std", "volume_max")}
        noise = rng.normal(size=y.shape).astype(np.float32)
        return {"x": y + noise, "y": y, **scale}


class SmallDlrm(_Random, ClickPrediction):
    name = "dlrm"

    def __init__(self, vocab_size: int = 64) -> None:
        self.vocab_size = vocab_size
        self.model = dlrm.make_model(
            vocab_size=vocab_size, embed_dim=4, mlp_bottom_dims=(8, 4), mlp_top_dims=(8, 1)
        )

    def random(self, rng: np.random.Generator) -> Batch:
        numbers = rng.normal(size=(ROWS, 13))
        ids = rng.integers(0, self.vocab_size, (ROWS, 26))
        y = (numbers[:, 0] + ids[:, 0] / self.vocab_size > 0.5).astype(np.float32)
        return {"dense": numbers.astype(np.float32), "ids": ids.astype(np.int32), "y": y}


class OverPacks:
    """A graph network applied to each pack of a batch: arrays have a leading axis of packs."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def init(self, key: jax.Array, packs: Batch, train: bool) -> PyTree:
        return self.model.init(key, {name: x[0] for name, x in packs.items()}, train=train)

    def apply(self, variables: PyTree, packs: Batch, train: bool, rngs: Any = None) -> jax.Array:
        one = lambda pack: self.model.apply(variables, pack, train=train, rngs=rngs)  # noqa: E731
        logits: jax.Array = jax.vmap(one)(dict(packs))
        return logits


class SmallGnn(_Random, GraphClassification):
    """``ROWS`` packs of 3 graphs; a later pack knows more labels than an earlier one."""

    name, label_smoothing = "gnn", 0.0
    model = OverPacks(
        gnn.make_model(
            latent_dim=4,
            hidden_dims=(4,),
            num_message_passing_steps=1,
            num_outputs=TASKS,
            dropout_rate=0.0,
        )
    )

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        return self.model.init(key, self.train_batch(0, 0), train=False)["params"], {}

    def eval_batches(self, split: Split) -> list[Batch]:
        return [self.random(np.random.default_rng(len(split) + i)) for i in range(2)]

    def random(self, rng: np.random.Generator) -> Batch:
        packs = [_pack(rng, known=i / ROWS) for i in range(ROWS)]  # the first knows none
        return {name: np.stack([pack[name] for pack in packs]) for name in packs[0]}


class AllFour(Workload):
    """The four models side by side, so that one compilation serves all; keeps their losses."""

    name, metric, direction = "all", "loss", Direction.MINIMIZE
    step_hint, eval_every_steps, splits = 20, 5, (Split.TRAIN,)

    def __init__(self) -> None:
        self.parts = {workload.name: workload for workload in small_workloads()}

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        made = {name: part.init(key) for name, part in self.parts.items()}
        states = {name: (state, jnp.zeros(())) for name, (_, state) in made.items()}
        return {name: params for name, (params, _) in made.items()}, states

    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        found, states = [], {}
        for name, part in self.parts.items():
            rows = _of(name, batch)
            loss, state = part.loss(params[name], model_state[name][0], rows, key)
            found.append(loss)
            states[name] = (state, loss)
        return sum(found), states

    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        found = {
            name: part.eval_step(params[name], model_state[name][0], _of(name, batch))[0]["loss"]
            for name, part in self.parts.items()
        }
        return {**found, "loss": found["dlrm"]}, {}

    def train_batch(self, seed: int, step: int) -> Batch:
        return _joined({n: part.train_batch(seed, step) for n, part in self.parts.items()})

    def eval_batches(self, split: Split) -> list[Batch]:
        each = {name: part.eval_batches(split) for name, part in self.parts.items()}
        return [_joined({name: batches[i] for name, batches in each.items()}) for i in range(2)]


def _joined(batches: dict[str, Batch]) -> Batch:
    return {f"{name}/{key}": x for name, batch in batches.items() for key, x in batch.items()}


def _of(name: str, batch: Batch) -> Batch:
    return {key.split("/")[1]: x for key, x in batch.items() if key.startswith(f"{name}/")}


def _pack(rng: np.random.Generator, known: float) -> Batch:
    graphs, nodes = 3, 4
    ends = np.tile([(0, 1), (1, 0), (2, 3), (3, 2)], (graphs, 1))
    labels = rng.integers(0, 2, (graphs, TASKS))
    labels[rng.random(labels.shape) >= known] = -1
    data = molecules.Molecules(
        nodes=rng.integers(0, 5, (graphs * nodes, 9)),
        edges=rng.integers(0, 3, (len(ends), 3)),
        senders=ends[:, 0],
        receivers=ends[:, 1],
        n_node=np.full(graphs, nodes),
        n_edge=np.full(graphs, 4),
        first_node=nodes * np.arange(graphs),
        first_edge=4 * np.arange(graphs),
        labels=labels,
    )
    return molecules.pack(data, np.arange(graphs), molecules.Capacity(graphs, 16, 16))


def small_workloads() -> list[Workload]:
    return [SmallResnet(), SmallUnet(), SmallDlrm(), SmallGnn()]
