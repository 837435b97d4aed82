"""Criteo 1TB: batches of rows from prepared blocks.

Boundary: records in, integers out; the device takes logarithms and the modulo of the table.

Training shuffles blocks, so rows of a block stay together. AlgoPerf shuffles files of 5 million
lines and keeps the order of their lines.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from timetrial.framework.types import Split
from timetrial.framework.workload import Batch
from timetrial.workloads.data import batching, criteo_text
from timetrial.workloads.data.criteo import NAME
from timetrial.workloads.data.parts import part_range
from timetrial.workloads.data.prepared import Records, load_manifest


def _batch(records: Records, pieces: Iterable[tuple[int, int, int]], size: int) -> dict[str, Any]:
    """A batch of ``size`` rows from pieces (record, first row, end row), zeros at the end."""
    batch = {
        "dense": np.zeros((size, criteo_text.INTEGERS), np.int32),
        "ids": np.zeros((size, len(criteo_text.VOCABULARIES)), np.int32),
        "y": np.zeros(size, np.float32),
    }
    start = 0
    for record, first, end in pieces:
        rows = records[record]["rows"][first:end]
        here = slice(start, start + len(rows))
        batch["y"][here] = rows[:, 0]
        batch["dense"][here] = rows[:, 1 : 1 + criteo_text.INTEGERS]
        batch["ids"][here] = rows[:, 1 + criteo_text.INTEGERS :]
        start += len(rows)
    return batch


@dataclasses.dataclass(frozen=True)
class TrainRows:
    """Training batches: blocks in random order, anew in every epoch.

    Short blocks (one per day) are left out. A batch smaller than a block takes a piece of it.

    Attributes:
        records: blocks of the training split.
        block_rows: rows of a block.
        short: numbers of the blocks that are not full.
        batch_size: rows of a batch; a multiple or a divisor of ``block_rows``.
    """

    records: Records
    block_rows: int
    short: tuple[int, ...]
    batch_size: int

    def __post_init__(self) -> None:
        if self.batch_size % self._unit or self.block_rows % self._unit:
            raise ValueError(
                f"batch_size: expected a multiple or divisor of {self.block_rows} (rows of a "
                f"block), got {self.batch_size}"
            )

    @property
    def _unit(self) -> int:
        return min(self.block_rows, self.batch_size)

    @functools.cached_property
    def _full(self) -> np.ndarray:
        full: np.ndarray = np.delete(np.arange(len(self.records), dtype=np.int32), self.short)
        batching.check_batch_size(self.batch_size, len(full) * self.block_rows)
        return full

    def part(self, seed: int, step: int, index: int, count: int) -> Batch:
        """Arrays ``dense`` (n, 13) and ``ids`` (n, 26) int32, ``y`` (n,) float32."""
        rows = part_range(self.batch_size, index, count)
        each = self.block_rows // self._unit
        units = batching.train_rows(
            len(self._full) * each, self.batch_size // self._unit, seed, step
        )
        pieces = []
        for number in range(rows.start // self._unit, -(-rows.stop // self._unit)):
            block, place = divmod(int(units[number]), each)
            first = max(rows.start - number * self._unit, 0)
            end = min(rows.stop - number * self._unit, self._unit)
            start = place * self._unit
            pieces.append((int(self._full[block]), start + first, start + end))
        return _batch(self.records, pieces, len(rows))


@dataclasses.dataclass(frozen=True)
class EvalRows:
    """Evaluation batches: given blocks in order; the last batch is padded with weight 0.

    Attributes:
        records: blocks of the split.
        chosen: numbers of the blocks.
        lengths: rows of each of them.
        batch_size: rows of a batch.
        rows: number of rows to take.
    """

    records: Records
    chosen: np.ndarray
    lengths: np.ndarray
    batch_size: int
    rows: int

    @property
    def steps(self) -> int:
        """Number of batches."""
        return -(-self.rows // self.batch_size)

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        ends: np.ndarray = np.cumsum(self.lengths)
        return ends

    def part(self, seed: int, step: int, index: int, count: int) -> Batch:
        """As in training, with ``weight`` (n,) float32; ``seed`` does not matter."""
        part = part_range(self.batch_size, index, count)
        start = min(step * self.batch_size + part.start, self.rows)
        stop = min(step * self.batch_size + part.stop, self.rows)
        pieces = []
        block = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            begin = int(self._ends[block] - self.lengths[block])
            end = min(stop, int(self._ends[block]))
            pieces.append((int(self.chosen[block]), start - begin, end - begin))
            start, block = end, block + 1
        batch = _batch(self.records, pieces, len(part))
        filled = sum(end - first for _, first, end in pieces)
        batch["weight"] = (np.arange(len(part)) < filled).astype(np.float32)
        return batch


def train_source(root: Path, batch_size: int) -> TrainRows:
    """The training batches of the prepared data set.

    Raises:
        DataError: the data set is not prepared.
        ValueError: the batch size does not fit the blocks.
    """
    manifest = load_manifest(NAME, root)
    short = manifest.settings["short_blocks"][Split.TRAIN.value]
    return TrainRows(
        Records(root / NAME, Split.TRAIN.value),
        manifest.settings["block_rows"],
        tuple(number for number, _ in short),
        batch_size,
    )


def eval_source(root: Path, split: Split, batch_size: int, rows: int | None = None) -> EvalRows:
    """The evaluation batches of a split.

    Args:
        root: root of the prepared data sets.
        split: validation and test rows come in order, training rows from a fixed random choice of
            full blocks.
        batch_size: rows of a batch.
        rows: number of rows; by default all of the split.

    Raises:
        DataError: the data set is not prepared.
        ValueError: the split has fewer rows.
    """
    manifest = load_manifest(NAME, root)
    block_rows = manifest.settings["block_rows"]
    short = dict(manifest.settings["short_blocks"][split.value])
    blocks = manifest.examples(split.value)
    lengths = np.full(blocks, block_rows)
    lengths[list(short)] = list(short.values())
    chosen = np.arange(blocks)
    if split is Split.TRAIN:
        chosen = np.random.default_rng(0).permutation(np.delete(chosen, list(short)))
        lengths = lengths[chosen]
    rows = int(lengths.sum()) if rows is None else rows
    if not 1 <= rows <= lengths.sum():
        raise ValueError(f"rows: expected 1 to {lengths.sum():,} ({split}), got {rows:,}")
    needed = int(np.searchsorted(np.cumsum(lengths), rows)) + 1
    return EvalRows(
        Records(root / NAME, split.value), chosen[:needed], lengths[:needed], batch_size, rows
    )
