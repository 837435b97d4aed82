"""OGBG-molpcba: molecules as graphs with 128 outcomes, prepared as TFDS prepares them.

Boundary: the raw file to records and flat arrays; ``ogbg_graphs`` makes batches of them.

Raw: ``pcba.zip`` (Hu et al., "Open Graph Benchmark: Datasets for Machine Learning on Graphs", 2020,
https://arxiv.org/abs/2005.00687), tables without headers. Each bond is listed once, and a missing
outcome is an empty cell. The split is by scaffold.

Reading single records takes too long at every start. So the same graphs are also written as flat
arrays, in the order of the records.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from timetrial.framework.files import write_atomically
from timetrial.framework.types import Split
from timetrial.workloads.data import preparing, workers
from timetrial.workloads.data.arrays import read_array
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.molecules import Molecules
from timetrial.workloads.data.prepared import Manifest, load_manifest

NAME: Final = "ogbg_molpcba/0.1.3"
"""Directory of the prepared data set."""

RAW_FILE: Final = "pcba.zip"
"""The raw file."""

TASKS: Final = 128
"""Outcomes of a molecule."""

MISSING: Final = -1
"""Label of an unknown outcome in the flat arrays."""

TABLES: Final = {
    "raw/graph-label": TASKS,
    "raw/num-node-list": 1,
    "raw/num-edge-list": 1,
    "raw/node-feat": 9,
    "raw/edge-feat": 3,
    "raw/edge": 2,
    "split/scaffold/train": 1,
    "split/scaffold/valid": 1,
    "split/scaffold/test": 1,
}
"""Columns of each table ``pcba/NAME.csv.gz`` in the raw file."""

ARRAYS: Final = ("nodes", "edges", "ends", "n_node", "n_edge", "labels")
"""Flat arrays of a split, each in a file of its own."""

_NUMBER: Final = re.compile(r"-?\d+(\.\d*)?")
_SHARES: Final = {"train": 0.8, "validation": 0.1, "test": 0.1}  # of the graphs, by split
_LONGEST: Final = 1 << 16  # characters of a line
_CHUNK: Final = 1_000  # graphs between two reports of progress


def array_file(split: str, array: str) -> str:
    """File name of a flat array in the directory of the data set."""
    return f"{split}-{array}.npy"


def raw_file(source: Path) -> Path:
    """The raw file.

    Raises:
        DataError: it is missing or no archive, or tables are missing; all of them are named.
    """
    path = source / RAW_FILE
    preparing.raw_fingerprint(path)
    try:
        with zipfile.ZipFile(path) as archive:
            there = set(archive.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected a whole zip archive ({error})") from error
    needed = [_member(table) for table in TABLES]
    if missing := [name for name in needed if name not in there]:
        raise DataError(f"{path}: expected {len(needed)} tables, found no {', '.join(missing)}")
    return path


def _member(table: str) -> str:
    return f"pcba/{table}.csv.gz"


def rule_of(graph: Mapping[str, np.ndarray]) -> str | None:
    """The rule that a graph breaks, or None.

    Args:
        graph: an example as TFDS' builder yields it.
    """
    nodes, ends, labels = graph["node_feat"], graph["edge_index"], graph["labels"]
    if not len(nodes):
        return "expected at least one atom, found none"
    if ends.size and not (ends.min() >= 0 and ends.max() < len(nodes)):
        return (
            f"expected ends of bonds from 0 to {len(nodes) - 1}, found {ends.min()} to {ends.max()}"
        )
    for name in ("node_feat", "edge_feat"):
        if not np.array_equal(graph[name], graph[name].astype(np.uint8)):
            return f"expected {name} of whole numbers from 0 to 255, found others"
    known = labels[~np.isnan(labels)]
    if not np.isin(known, (0, 1)).all():
        return f"expected labels 0, 1 or none, found {known[~np.isin(known, (0, 1))][0]:g}"
    return None


def damage(path: Path) -> str:
    """Place and rule of the first line of a table that is no row of numbers; "" without one.

    Raises:
        DataError: the archive is damaged.
    """
    try:
        return _damage(path)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise DataError(f"{path}: expected a whole zip archive ({error})") from error
    except (NotImplementedError, RuntimeError) as error:  # an unknown compression, a password
        raise DataError(f"{path}: expected a plain zip archive ({error})") from error


def _damage(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        for table, columns in TABLES.items():
            with archive.open(_member(table)) as packed, gzip.open(packed, "rt") as lines:
                for number, line in enumerate(iter(lambda: lines.readline(_LONGEST), ""), 1):
                    fields = line.rstrip("\n").split(",")
                    place = f"{_member(table)}:{number}: "
                    if len(fields) != columns:
                        return f"{place}expected {columns} fields, found {len(fields)}"
                    empty = table == "raw/graph-label"
                    for field in fields:
                        if not (_NUMBER.fullmatch(field) or (empty and not field)):
                            return f"{place}expected numbers, found {field!r}"
    return ""


def check_tables(path: Path, tables: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
    """Checks that the tables fit together.

    Args:
        path: the raw file, for the error.
        tables: the tables as TFDS' builder reads them.
        rows: numbers of the graphs of a split.

    Raises:
        DataError: numbers of rows differ, or a split names a graph twice or one that is not there.
    """
    graphs = len(tables["labels"])
    for what, needed in (
        ("num_nodes", graphs),
        ("num_edges", graphs),
        ("node_feat", int(tables["num_nodes"].sum())),
        ("edge_feat", int(tables["num_edges"].sum())),
        ("edge_index", int(tables["num_edges"].sum())),
    ):
        if len(tables[what]) != needed:
            found = f"found {len(tables[what])}"
            raise DataError(f"{path}: expected {needed} rows of {what}, {found}")
    if len(np.unique(rows)) != len(rows) or not ((rows >= 0) & (rows < graphs)).all():
        raise DataError(f"{path}: expected a split of different graphs from 0 to {graphs - 1}")


@dataclasses.dataclass(frozen=True)
class GraphSplit:
    """Writes the records and the flat arrays of one split.

    Attributes:
        path: the raw file.
        split: the split.
    """

    path: Path
    split: str

    @property
    def name(self) -> str:
        return self.split

    @property
    def size(self) -> int:
        return int(_SHARES[self.split] * self.path.stat().st_size)

    def fingerprint(self) -> Any:
        return [preparing.raw_fingerprint(self.path), self.split]

    def run(self, directory: Path, skipped: preparing.BadRecords) -> preparing.Result:
        from tensorflow_datasets.core.hashing import Hasher
        from tensorflow_datasets.core.utils import shard_utils

        hasher = Hasher(self.split)
        serialised = preparing.Serialiser(self._builder(directory).info.features)
        found: list[tuple[int, bytes, dict[str, np.ndarray]]] = []
        count, graphs = self._graphs(directory)
        for place, (number, graph) in enumerate(graphs):
            if place % _CHUNK == 0:
                workers.advance(min(self.size, self.size * _CHUNK // count))
            if rule := rule_of(graph):
                skipped.add(f"{self.path}: graph {number}", rule)
                continue
            record = serialised(graph)
            found.append((hasher.hash_key(number), record, flat(graph)))
        if not found:
            raise DataError(f"{self.path}: expected graphs for {self.split}, found none")
        found.sort(key=lambda one: one[0])
        total = sum(len(record) for _, record, _ in found)
        number_of_shards = shard_utils.ShardConfig().get_number_shards(total, len(found))
        shards = []
        start = 0
        ends = shard_utils.get_shard_boundaries(len(found), number_of_shards)
        for index, end in enumerate(ends):
            records = (record for _, record, _ in found[start:end])
            path = directory / f"{self.split}-{index:05d}"
            shards.append(dataclasses.asdict(preparing.write_shard(path, records)))
            start = end
        arrays = write_arrays(directory, self.split, (graph for _, _, graph in found))
        return {"shards": {self.split: shards}, "arrays": arrays}

    def _builder(self, directory: Path) -> Any:
        from timetrial.workloads.data.builders import OgbgMolpcba

        return OgbgMolpcba(data_dir=str(directory), archive=self.path)

    def _graphs(self, directory: Path) -> tuple[int, Iterator[tuple[int, dict[str, Any]]]]:
        """Number of graphs of the split, and pairs of (number, example) as TFDS yields them."""
        builder = self._builder(directory)
        generate = builder._generate_examples

        def checked(tables: Any, rows: Any) -> tuple[int, Iterator[Any]]:
            check_tables(self.path, tables, rows)
            return len(rows), iter(generate(tables, rows))

        builder._generate_examples = checked
        try:
            with np.errstate(invalid="raise"):  # an empty cell of a whole number
                splits = builder._split_generators(None)
        except (ValueError, ArithmeticError, OSError, EOFError, IndexError) as error:
            found = damage(self.path) or str(error)
            raise DataError(f"{self.path}: {found}") from error
        graphs: tuple[int, Iterator[Any]] = splits[self.split]
        return graphs


def flat(graph: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The flat arrays of one graph, from an example."""
    labels = graph["labels"]
    return {
        "nodes": graph["node_feat"].astype(np.uint8),
        "edges": graph["edge_feat"].astype(np.uint8),
        "ends": graph["edge_index"].astype(np.int16),
        "n_node": np.array([len(graph["node_feat"])], np.int32),
        "n_edge": np.array([len(graph["edge_feat"])], np.int32),
        "labels": np.where(np.isnan(labels), MISSING, labels).astype(np.int8)[None],
    }


def write_arrays(
    directory: Path, split: str, graphs: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, str]:
    """Writes the flat arrays of a split; returns the sha256 of each file."""
    digests = {}
    every = list(graphs)
    for array in ARRAYS:
        file = io.BytesIO()
        np.save(file, np.concatenate([graph[array] for graph in every]))
        name = array_file(split, array)
        write_atomically(directory / name, file.getvalue())
        digests[name] = hashlib.sha256(file.getbuffer()).hexdigest()
    return digests


def prepare(workshop: preparing.Workshop, source: Path, *, sample: bool = False) -> None:
    """Prepares the data set. Each process needs about 3 GB of memory.

    Args:
        workshop: where and how.
        source: directory of the raw file.
        sample: the raw file is a small sample.

    Raises:
        DataError: the raw file is missing or damaged, or has too many bad graphs.
    """
    from timetrial.workloads.data.builders import OgbgMolpcba

    path = raw_file(source)
    with workshop.opened() as unfinished:
        if not unfinished:
            return
        results = workshop.run([GraphSplit(path, split.value) for split in Split])
        manifest = Manifest(
            name=NAME,
            splits={split.value: preparing.shards_in(results, split.value) for split in Split},
            settings={"arrays": {k: v for one in results for k, v in one["arrays"].items()}},
            skipped=preparing.skipped_in(results),
            sample=sample,
        )
        workshop.finish(OgbgMolpcba(data_dir=str(workshop.root)), manifest)


def _misfit(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The rule that flat arrays break that are not of one set of graphs, or None."""
    shapes = {"nodes": 2, "edges": 2, "ends": 2, "n_node": 1, "n_edge": 1, "labels": 2}
    for name, rank in shapes.items():
        array = arrays[name]
        if array.ndim != rank or array.dtype.kind not in "iu":
            return f"expected whole numbers in {rank} dimensions as {name}, found others"
    if arrays["ends"].shape[1] != 2:
        return f"expected two ends per bond, found {arrays['ends'].shape[1]}"
    graphs = len(arrays["n_node"])
    for name in ("n_edge", "labels"):
        if len(arrays[name]) != graphs:
            return f"expected {name} of {graphs} graphs, found {len(arrays[name])}"
    for count, parts, what in (
        ("n_node", "nodes", "atoms"),
        ("n_edge", "edges", "bonds"),
        ("n_edge", "ends", "ends of bonds"),
    ):
        numbers = arrays[count].astype(int)
        if numbers.min(initial=0) < 0 or numbers.sum() != len(arrays[parts]):
            return f"expected {numbers.sum()} {what}, found {len(arrays[parts])}"
    return None


def load_graphs(root: Path, split: Split) -> Molecules:
    """The graphs of a split, in the order of the records; each bond twice, once per direction.

    Raises:
        DataError: the data set is not prepared, or a file is missing or damaged.
    """
    load_manifest(NAME, root)
    arrays = {}
    for array in ARRAYS:
        path = root / NAME / array_file(split.value, array)
        try:
            arrays[array] = read_array(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not readable ({error}); prepare again") from error
    if rule := _misfit(arrays):
        raise DataError(f"{root / NAME}, {split}: {rule}; prepare again")
    n_node, n_edge = arrays["n_node"].astype(int), 2 * arrays["n_edge"].astype(int)
    return Molecules(
        nodes=arrays["nodes"],
        edges=np.repeat(arrays["edges"], 2, axis=0),
        senders=arrays["ends"].reshape(-1),
        receivers=arrays["ends"][:, ::-1].reshape(-1),
        n_node=n_node,
        n_edge=n_edge,
        first_node=np.cumsum(n_node) - n_node,
        first_edge=np.cumsum(n_edge) - n_edge,
        labels=arrays["labels"],
    )
