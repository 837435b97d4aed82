"""Synthetic batches of the shapes of the full-size workloads.

Boundary: numpy in, numpy out; the shapes come from ``Workload.batch_spec``.
"""

from __future__ import annotations

from typing import Any, Final

import jax
import numpy as np

from timetrial.framework.types import PyTree
from timetrial.framework.workload import Batch
from timetrial.workloads.data import molecules
from timetrial.workloads.data.criteo_text import VOCABULARIES

POSITIVE_CLICKS: Final = 0.03
POSITIVE_LABELS: Final = 0.05
KNOWN_LABELS: Final = 0.6


def images(spec: PyTree, rng: np.random.Generator) -> Batch:
    """Bytes at random, labels of 1,000 classes."""
    return {
        "x": rng.integers(0, 256, spec["x"].shape, np.uint8),
        "y": rng.integers(0, 1000, spec["y"].shape, np.int32),
    }


def slices(spec: PyTree, rng: np.random.Generator) -> Batch:
    """Normal pixels; the target is the input and noise."""
    x = rng.standard_normal(spec["x"].shape, np.float32)
    y = 0.8 * x + 0.6 * rng.standard_normal(spec["y"].shape, np.float32)
    ones = np.ones(spec["mean"].shape, np.float32)
    return {"x": x, "y": y, "mean": ones, "std": ones, "volume_max": 8 * ones}


def clicks(spec: PyTree, rng: np.random.Generator) -> Batch:
    """Rows with ids as skewed as those of real logs: a few of them fill most rows.

    The logarithm of an id is uniform over the vocabulary of its column, which is Zipf's law with
    exponent 1.
    """
    rows = spec["y"].shape[0]
    logarithms = np.log(np.array(VOCABULARIES, np.float64))
    ids = np.exp(rng.random((rows, len(VOCABULARIES))) * logarithms)
    return {
        "dense": rng.geometric(0.05, spec["dense"].shape).astype(np.int32) - 1,
        "ids": np.minimum(ids, np.array(VOCABULARIES) - 1).astype(np.int32),
        "y": (rng.random(rows) < POSITIVE_CLICKS).astype(np.float32),
    }


def packs(spec: PyTree, rng: np.random.Generator) -> Batch:
    """Packs of random graphs, as full as real ones, with a leading axis of packs."""
    count, graphs, tasks = spec["y"].shape
    nodes, edges = spec["nodes"].shape[1], spec["edges"].shape[1]
    capacity = molecules.Capacity(graphs - 1, nodes, edges)
    data = _graphs(capacity, tasks, rng)
    packed = [molecules.pack(data, rng.permutation(data.count), capacity) for _ in range(count)]
    return {name: np.stack([pack[name] for pack in packed]) for name in packed[0]}


def _graphs(
    capacity: molecules.Capacity, tasks: int, rng: np.random.Generator
) -> molecules.Molecules:
    """Graphs whose nodes and edges together just fit the capacity."""
    graphs = capacity.graphs
    n_node = rng.multinomial(capacity.nodes - 1 - graphs, np.full(graphs, 1 / graphs)) + 1
    n_edge = rng.multinomial(capacity.edges, np.full(graphs, 1 / graphs))
    within = np.repeat(n_node, n_edge)
    labels = (rng.random((graphs, tasks)) < POSITIVE_LABELS).astype(np.int8)
    labels[rng.random((graphs, tasks)) >= KNOWN_LABELS] = -1
    return molecules.Molecules(
        nodes=rng.integers(0, 6, (n_node.sum(), 9), np.uint8),
        edges=rng.integers(0, 3, (n_edge.sum(), 3), np.uint8),
        senders=rng.integers(0, within),
        receivers=rng.integers(0, within),
        n_node=n_node,
        n_edge=n_edge,
        first_node=np.cumsum(n_node) - n_node,
        first_edge=np.cumsum(n_edge) - n_edge,
        labels=labels,
    )


def check(batch: Batch, spec: PyTree) -> Batch:
    """The batch, if it has the shapes and types of the workload.

    Raises:
        ValueError: it has not.
    """
    found: dict[str, Any] = {
        name: jax.ShapeDtypeStruct(values.shape, values.dtype) for name, values in batch.items()
    }
    if found != dict(spec):
        raise ValueError(f"synthetic batch: expected {dict(spec)}, got {found}")
    return batch
