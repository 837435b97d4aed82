"""Molecules as graphs, packed into batches of a fixed number of nodes, edges and graphs.

Boundary: numpy in, numpy out; independent of models.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from timetrial.framework.types import Split
from timetrial.framework.workload import Batch
from timetrial.workloads.data import embedded_data


@dataclasses.dataclass(frozen=True)
class Molecules:
    """Many graphs in concatenated arrays: graph g has ``n_node[g]`` nodes, and so on.

    Attributes:
        nodes: features of atoms (nodes, 9), bytes.
        edges: features of bonds (edges, 3), bytes; each bond twice, once per direction.
        senders, receivers: end nodes of an edge (edges,), 0-based within its graph.
        n_node, n_edge: number of nodes and edges of each graph (graphs,).
        first_node, first_edge: index of the first node and edge of each graph (graphs,).
        labels: outcomes (graphs, tasks): 0, 1, or -1 when unknown.
    """

    nodes: np.ndarray
    edges: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    n_node: np.ndarray
    n_edge: np.ndarray
    first_node: np.ndarray
    first_edge: np.ndarray
    labels: np.ndarray

    @property
    def count(self) -> int:
        """Number of graphs."""
        return len(self.n_node)


@dataclasses.dataclass(frozen=True)
class Capacity:
    """Fixed sizes of a batch: graphs without padding; nodes and edges with padding."""

    graphs: int
    nodes: int
    edges: int


def usual_capacity(data: Molecules, graphs: int) -> Capacity:
    """Padded size that all but ~1e-4 of random batches fit."""

    def size(counts: np.ndarray) -> int:
        return _round_up(graphs * counts.mean() + 4 * np.sqrt(graphs) * counts.std() + 1)

    return Capacity(graphs, size(data.n_node), size(data.n_edge))


def needed_capacity(graphs: int, batches: Sequence[tuple[Molecules, np.ndarray]]) -> Capacity:
    """Padded size that all these batches, as (data, rows), fit."""
    return Capacity(
        graphs,
        _round_up(max(data.n_node[rows].sum(dtype=int) for data, rows in batches) + 1),
        _round_up(max(data.n_edge[rows].sum(dtype=int) for data, rows in batches)),
    )


def _round_up(size: float) -> int:
    return int(-(-size // 64)) * 64


def cut(rows: np.ndarray, size: int) -> Iterable[np.ndarray]:
    """Parts of ``rows`` of length ``size``; the last may be shorter."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def pack(data: Molecules, rows: np.ndarray, capacity: Capacity) -> Batch:
    """Packs the graphs in ``rows`` into one batch, padded to ``capacity`` by one more graph.

    Graphs that do not fit are dropped. Empty graphs of weight 0 fill the free places. (AlgoPerf's
    batches likewise hold as many graphs as fit.)

    Args:
        data: source of the graphs.
        rows: indices of graphs, at most ``capacity.graphs``.
        capacity: sizes of the result.

    Returns:
        Arrays for G = ``capacity.graphs`` + 1 graphs, N nodes and E edges: ``nodes`` (N, 9),
        ``edges`` (E, 3) float32; ``senders``, ``receivers`` (E,), ``n_node``, ``n_edge`` (G,)
        int32; labels ``y`` and ``weight`` (G, tasks) float32, both 0 without a label.
    """
    n_node, n_edge = data.n_node[rows].astype(int), data.n_edge[rows].astype(int)
    fits = (np.cumsum(n_node) < capacity.nodes) & (np.cumsum(n_edge) <= capacity.edges)
    rows, n_node, n_edge = rows[fits], n_node[fits], n_edge[fits]
    node_rows = _ranges(data.first_node[rows], n_node)
    edge_rows = _ranges(data.first_edge[rows], n_edge)
    num_nodes, num_edges = len(node_rows), len(edge_rows)
    offset = np.repeat(np.cumsum(n_node) - n_node, n_edge)
    labels = data.labels[rows]
    return {
        "nodes": _filled(data.nodes[node_rows], capacity.nodes, np.float32),
        "edges": _filled(data.edges[edge_rows], capacity.edges, np.float32),
        # Padding edges are self-loops of the first padding node.
        "senders": _filled(data.senders[edge_rows] + offset, capacity.edges, np.int32, num_nodes),
        "receivers": _filled(
            data.receivers[edge_rows] + offset, capacity.edges, np.int32, num_nodes
        ),
        "n_node": _counts(n_node, capacity.graphs, capacity.nodes - num_nodes),
        "n_edge": _counts(n_edge, capacity.graphs, capacity.edges - num_edges),
        "y": _filled(labels == 1, capacity.graphs + 1, np.float32),
        "weight": _filled(labels >= 0, capacity.graphs + 1, np.float32),
    }


def _ranges(first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Concatenated ranges: ``counts[i]`` numbers from ``first[i]``, for each i."""
    starts = np.cumsum(counts) - counts
    return np.repeat(first - starts, counts) + np.arange(counts.sum())


def _filled(values: np.ndarray, size: int, dtype: type, fill: int = 0) -> np.ndarray:
    result = np.full((size, *values.shape[1:]), fill, dtype)
    result[: len(values)] = values
    return result


def _counts(counts: np.ndarray, graphs: int, padding: int) -> np.ndarray:
    result = _filled(counts, graphs + 1, np.int32)
    result[-1] = padding
    return result


@functools.cache
def load_molecules() -> Mapping[Split, Molecules]:
    """The embedded molecules by split."""
    raw = embedded_data.load("assays")
    # Both directions of a bond are adjacent.
    edges = np.repeat(raw["edges"], 2, axis=0)
    senders = raw["ends"].reshape(-1)
    receivers = raw["ends"][:, ::-1].reshape(-1)
    n_node, n_edge = raw["n_node"].astype(int), 2 * raw["n_edge"].astype(int)
    first_node, first_edge = np.cumsum(n_node) - n_node, np.cumsum(n_edge) - n_edge
    result = {}
    for index, split in enumerate(embedded_data.SPLITS):
        rows = np.flatnonzero(raw["split"] == index)
        result[split] = Molecules(
            nodes=raw["nodes"],
            edges=edges,
            senders=senders,
            receivers=receivers,
            n_node=n_node[rows],
            n_edge=n_edge[rows],
            first_node=first_node[rows],
            first_edge=first_edge[rows],
            labels=raw["labels"][rows],
        )
    return result
