"""Criteo 1TB: click logs of 24 days, prepared as blocks of rows.

Boundary: raw files to records; ``criteo_rows`` makes batches of them.

Raw: ``day_0`` to ``day_23``, tab-separated, plain or gzip (Criteo, "Criteo 1TB Click Logs", 2014,
https://ailab.criteo.com/criteo-1tb-click-logs-dataset/). Days 0 to 22 are for training. As in
AlgoPerf, the first 95,000,000 lines of day 23 are for test, the rest for validation.

A record is a block of up to 16,384 consecutive rows of 40 integers.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from timetrial.framework.types import Split
from timetrial.workloads.data import criteo_text, preparing, workers
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.prepared import Manifest

NAME: Final = "criteo1tb/1.0.0"
"""Directory of the prepared data set."""

BLOCK_ROWS: Final = 16_384
"""Rows of a block."""

DAYS: Final = 24
"""Days of logs, one raw file each."""

TEST_LINES: Final = 95_000_000
"""Lines of the last day that are for test; the others are for validation."""

LAST_DAY_LINES: Final = 178_274_637
"""Lines of the last day."""

BLOCKS_PER_SHARD: Final = 1_000
"""Blocks in a file."""

COMPRESSED: Final = f"{preparing.GROUPED},zstd:3"
"""Options of ArrayRecord: less than half of the 160 bytes per row, and fast enough."""

_CHUNK: Final = 4 * 2**20
_LONGEST: Final = 16 * 2**20  # bytes of a line


def raw_files(source: Path) -> list[Path]:
    """The 24 raw files, each plain or gzip.

    Raises:
        DataError: files are missing; all of them are named.
    """
    found, missing = [], []
    for day in range(DAYS):
        paths = [source / f"day_{day}.gz", source / f"day_{day}"]
        there = [path for path in paths if path.is_file()]
        found += there[:1]
        missing += [] if there else [paths[0].name]
    if missing:
        raise DataError(f"{source}: expected day_0 to day_23, also as .gz; no {', '.join(missing)}")
    return found


def texts(path: Path) -> Iterator[bytes]:
    """The text of a raw file in pieces of whole lines.

    Raises:
        DataError: the file is unreadable, or the end of a gzip file is missing.
    """
    from isal import igzip, isal_zlib

    broken: Any = isal_zlib.error  # its stubs call the class an instance
    rest = b""
    try:
        with path.open("rb") as raw:
            zipped = path.suffix == ".gz"
            stream = igzip.IGzipFile(fileobj=raw, mode="rb") if zipped else raw
            place = 0
            while chunk := stream.read(_CHUNK):
                workers.advance(raw.tell() - place)
                place = raw.tell()
                whole, newline, tail = chunk.rpartition(b"\n")
                if newline:
                    yield rest + whole + newline
                    rest = tail
                else:
                    rest += chunk
                if len(rest) > _LONGEST:
                    raise DataError(f"{path}: expected lines of at most {_LONGEST:,} bytes")
    except (OSError, EOFError, broken) as error:
        raise DataError(f"{path}: expected a whole file, reading it failed ({error})") from error
    if rest:
        yield rest + b"\n"


def blocks(pieces: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """Arrays (n, 40) cut anew into blocks of ``rows`` rows; the last may be shorter."""
    waiting: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        while count + len(piece) >= rows:
            taken, piece = piece[: rows - count], piece[rows - count :]
            yield np.concatenate([*waiting, taken])
            waiting, count = [], 0
        if len(piece):
            waiting.append(piece)
            count += len(piece)
    if waiting:
        yield np.concatenate(waiting)


@dataclasses.dataclass(frozen=True)
class Day:
    """Writes the blocks of one raw file.

    Attributes:
        path: the raw file.
        test_lines: number of first lines for test, the others for validation; None for training.
        block_rows: rows of a block; a sample has blocks of at most a quarter of its last day.
        options: options of ArrayRecord's writer.
    """

    path: Path
    test_lines: int | None
    block_rows: int
    options: str

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(".gz")

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def fingerprint(self) -> Any:
        raw = preparing.raw_fingerprint(self.path)
        return [raw, self.test_lines, self.block_rows, self.options]

    def run(self, directory: Path, skipped: preparing.BadRecords) -> preparing.Result:
        from timetrial.workloads.data.builders import Criteo1tb

        serialised = preparing.Serialiser(Criteo1tb(data_dir=str(directory)).info.features)
        shards: dict[str, list[Any]] = {}
        rows: dict[str, int] = {}
        last: dict[str, int] = {}
        for split, pieces in itertools.groupby(self._pieces(skipped), key=lambda piece: piece[0]):
            lengths: list[int] = []

            def records(
                pieces: Iterable[tuple[str, np.ndarray]] = pieces, lengths: list[int] = lengths
            ) -> Iterator[bytes]:
                for block in blocks((rows for _, rows in pieces), self.block_rows):
                    lengths.append(len(block))
                    yield serialised({"rows": block})

            stream = records()
            written = shards.setdefault(split, [])
            for first in stream:
                path = directory / f"{self.name}-{split}-{len(written):05d}"
                some = itertools.chain([first], itertools.islice(stream, BLOCKS_PER_SHARD - 1))
                shard = preparing.write_shard(path, some, self.options)
                written.append(dataclasses.asdict(shard))
            if lengths:
                rows[split], last[split] = sum(lengths), lengths[-1]
        return {"shards": shards, "rows": rows, "last": last}

    def _pieces(self, skipped: preparing.BadRecords) -> Iterator[tuple[str, np.ndarray]]:
        """Rows of the file in order, as pairs of (split, rows)."""
        first = 1
        for text in texts(self.path):
            rows, lines = criteo_text.parse(
                text, first, lambda line, rule: skipped.add(f"{self.path}:{line}", rule)
            )
            first += text.count(b"\n")
            if self.test_lines is None:
                yield Split.TRAIN.value, rows
                continue
            test = int(np.searchsorted(lines, self.test_lines, side="right"))
            if test:
                yield Split.TEST.value, rows[:test]
            if test < len(rows):
                yield Split.VALIDATION.value, rows[test:]


def prepare(
    workshop: preparing.Workshop,
    source: Path,
    *,
    sample: bool = False,
    block_rows: int = BLOCK_ROWS,
    options: str = COMPRESSED,
) -> None:
    """Prepares the data set.

    Args:
        workshop: where and how.
        source: directory of the raw files.
        sample: the raw files are a small sample; the last day is split in the same proportion.
        block_rows: rows of a block; a sample has blocks of at most a quarter of its last day.
        options: options of ArrayRecord's writer.

    Raises:
        DataError: a raw file is missing or unreadable, or has too many bad lines.
    """
    from timetrial.workloads.data.builders import Criteo1tb

    files = raw_files(source)
    test_lines = TEST_LINES
    if sample:
        lines = sum(text.count(b"\n") for text in texts(files[-1]))
        test_lines = round(lines * TEST_LINES / LAST_DAY_LINES)
        block_rows = min(block_rows, _sample_block(lines))
    with workshop.opened() as unfinished:
        if not unfinished:
            return
        days = [Day(path, None, block_rows, options) for path in files[:-1]]
        days.append(Day(files[-1], test_lines, block_rows, options))
        results = workshop.run(days)
        splits = [split.value for split in Split]
        manifest = Manifest(
            name=NAME,
            splits={split: preparing.shards_in(results, split) for split in splits},
            settings={
                "block_rows": block_rows,
                "options": options,
                "rows": {s: sum(one["rows"].get(s, 0) for one in results) for s in splits},
                "short_blocks": {s: _short_blocks(results, s, block_rows) for s in splits},
                "rows_per_day": [sum(one["rows"].values()) for one in results],
            },
            skipped=preparing.skipped_in(results),
            sample=sample,
        )  # fmt: skip
        workshop.finish(Criteo1tb(data_dir=str(workshop.root)), manifest)


def _sample_block(lines: int) -> int:
    """The largest power of two up to a quarter of the lines, so that a day has full blocks."""
    return 1 << max(0, (lines // 4).bit_length() - 1)


def _short_blocks(
    results: Iterable[preparing.Result], split: str, block_rows: int
) -> list[list[int]]:
    """Pairs of (number of a block, its rows) of the blocks that are not full."""
    short, end = [], 0
    for result in results:
        for shard in result["shards"].get(split, []):
            end += shard["examples"]
        last = result["last"].get(split, block_rows)
        if last != block_rows:
            short.append([end - 1, last])
    return short
