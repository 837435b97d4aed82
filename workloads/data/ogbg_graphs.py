"""OGBG-molpcba: batches of packed graphs from prepared ones.

Boundary: flat arrays in, packed graphs out.

A batch is made of packs, each with its own padding graph, so that no sum over a graph crosses
devices. A pack of B graphs has the size of AlgoPerf's ``ogbg``: 26 B + 1 atoms and 56 B edges (Dahl
et al., "Benchmarking Neural Network Training Algorithms", 2023, https://arxiv.org/abs/2306.07179).
Graphs that do not fit into it are left out of a training batch, never of an evaluation.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np

from timetrial.framework.types import Split
from timetrial.framework.workload import Batch
from timetrial.workloads.data import batching
from timetrial.workloads.data.molecules import Capacity, Molecules, cut, needed_capacity, pack
from timetrial.workloads.data.ogbg import NAME, TASKS, load_graphs
from timetrial.workloads.data.parts import part_range
from timetrial.workloads.data.prepared import load_manifest, manifest_digest

NODES_PER_GRAPH: Final = 26
"""Atoms per graph of a pack, without padding."""

EDGES_PER_GRAPH: Final = 56
"""Edges per graph of a pack; a bond is two edges."""


def train_capacity(graphs: int) -> Capacity:
    """Size of a training pack of up to ``graphs`` graphs."""
    return Capacity(graphs, NODES_PER_GRAPH * graphs + 1, EDGES_PER_GRAPH * graphs)


@functools.cache
def _order(size: int) -> np.ndarray:
    """The order (size,) in which the graphs of a split are evaluated: fixed and random."""
    order = np.random.default_rng(0).permutation(size)
    order.flags.writeable = False
    return order


@functools.lru_cache(maxsize=len(Split))
def _loaded(root: Path, split: Split, digest: str) -> Molecules:
    """The graphs of a split, read once per process; the digest is that of the manifest."""
    return load_graphs(root, split)


def _graphs(root: Path, split: Split) -> Molecules:
    return _loaded(root, split, manifest_digest(NAME, root))


def eval_capacity(root: Path, batch_size: int, packs: int = 1) -> Capacity:
    """Size of a pack that every pack of an evaluation fits, of all splits and any ``graphs``.

    Raises:
        DataError: the data set is not prepared.
        ValueError: the packs do not divide the batch.
    """
    each = len(part_range(batch_size, 0, packs))
    batches = []
    for split in Split:
        graphs = _graphs(root, split)
        batches += [(graphs, rows) for rows in cut(_order(graphs.count), each)]
    return needed_capacity(each, batches)


def spec(capacity: Capacity, packs: int, tasks: int = TASKS) -> Mapping[str, Any]:
    """Shapes and types of a batch, in training and in evaluation.

    Args:
        capacity: size of a pack.
        packs: packs of a batch.
        tasks: outcomes of a graph.

    Returns:
        For P packs of N nodes, E edges and G = ``capacity.graphs`` + 1 graphs: ``nodes``
        (P, N, 9), ``edges`` (P, E, 3) float32; ``senders``, ``receivers`` (P, E), ``n_node``,
        ``n_edge`` (P, G) int32; ``y``, ``weight`` (P, G, tasks) float32.
    """
    graphs = capacity.graphs + 1
    floats = {
        "nodes": (capacity.nodes, 9),
        "edges": (capacity.edges, 3),
        "y": (graphs, tasks),
        "weight": (graphs, tasks),
    }
    integers = {
        "senders": (capacity.edges,),
        "receivers": (capacity.edges,),
        "n_node": (graphs,),
        "n_edge": (graphs,),
    }
    return {
        name: jax.ShapeDtypeStruct((packs, *shape), dtype)
        for shapes, dtype in ((floats, np.float32), (integers, np.int32))
        for name, shape in shapes.items()
    }


@dataclasses.dataclass(frozen=True)
class Packs:
    """Batches of packs. Picklable; reads its files at first use.

    Attributes:
        root: root of the prepared data sets.
        split: the split.
        batch_size: graphs of a batch.
        packs: packs of a batch, each with ``batch_size / packs`` graphs. A setting of the workload:
            results depend on it, not on the number of devices.
        capacity: size of a pack.
        graphs: number of graphs to evaluate, the first of a fixed random order; None for training.

    Raises:
        ValueError: the packs do not divide the batch.
    """

    root: Path
    split: Split
    batch_size: int
    packs: int
    capacity: Capacity
    graphs: int | None = None

    def __post_init__(self) -> None:
        part_range(self.batch_size, 0, self.packs)

    @functools.cached_property
    def data(self) -> Molecules:
        """All graphs of the split."""
        return _graphs(self.root, self.split)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def steps(self) -> int:
        """Number of batches of an evaluation."""
        return 0 if self.graphs is None else -(-self.graphs // self.batch_size)

    def rows(self, seed: int, step: int, index: int) -> np.ndarray:
        """Numbers of the graphs of a pack, before those are left out that do not fit."""
        part = part_range(self.batch_size, index, self.packs)
        if self.graphs is None:
            rows = batching.train_rows(self.data.count, self.batch_size, seed, step)
            return rows[part.start : part.stop]
        start, end = (min(step * self.batch_size + n, self.graphs) for n in (part.start, part.stop))
        return _order(self.data.count)[start:end]

    def part(self, seed: int, step: int, index: int, count: int) -> Batch:
        """Pack ``index`` of the batch of ``step``: the arrays of ``spec`` for one pack.

        In evaluation, the seed does not matter.

        Raises:
            ValueError: ``count`` is not the number of packs.
        """
        if count != self.packs:
            raise ValueError(
                f"parts: expected {self.packs}, one for each pack of a batch, got {count}; "
                "packs is a setting of the workload"
            )
        packed = pack(self.data, self.rows(seed, step, index), self.capacity)
        return {name: values[None] for name, values in packed.items()}

    def dropped(self, seed: int, step: int) -> int:
        """Number of graphs that do not fit into the packs of a batch."""
        left = 0
        for index in range(self.packs):
            rows = self.rows(seed, step, index)
            nodes = np.cumsum(self.data.n_node[rows]) >= self.capacity.nodes
            edges = np.cumsum(self.data.n_edge[rows]) > self.capacity.edges
            left += int((nodes | edges).sum())
        return left


def train_source(
    root: Path, batch_size: int, packs: int = 1, capacity: Capacity | None = None
) -> Packs:
    """The training batches of the prepared data set.

    Args:
        root: root of the prepared data sets.
        batch_size: graphs of a batch.
        packs: packs of a batch.
        capacity: size of a pack; by default ``train_capacity``.

    Raises:
        DataError: the data set is not prepared.
        ValueError: it has fewer graphs than a batch, or the packs do not divide the batch.
    """
    examples = load_manifest(NAME, root).examples(Split.TRAIN.value)
    batching.check_batch_size(batch_size, examples)
    each = len(part_range(batch_size, 0, packs))
    return Packs(root, Split.TRAIN, batch_size, packs, capacity or train_capacity(each))


def eval_source(
    root: Path,
    split: Split,
    batch_size: int,
    graphs: int | None = None,
    packs: int = 1,
    capacity: Capacity | None = None,
) -> Packs:
    """The evaluation batches of a split: a fixed random choice of graphs, by default all.

    Args:
        root: root of the prepared data sets.
        split: the split.
        batch_size: graphs of a batch; the last batch has fewer.
        graphs: number of graphs to evaluate.
        packs: packs of a batch.
        capacity: size of a pack, by default ``eval_capacity``: the same for all splits.

    Raises:
        DataError: the data set is not prepared.
        ValueError: the split has fewer graphs, or the packs do not divide the batch.
    """
    size = load_manifest(NAME, root).examples(split.value)
    count = size if graphs is None else graphs
    if not 1 <= count <= size:
        raise ValueError(f"{split}_examples: expected 1 to {size} (all there are), got {count}")
    enough = capacity or eval_capacity(root, batch_size, packs)
    return Packs(root, split, batch_size, packs, enough, count)
