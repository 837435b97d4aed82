"""Journals: one append-only file of JSON lines per run, its primary record.

Boundary: local files only; no MLflow, no clock.

A journal has one ``run`` line, ``row`` lines, at most one ``end`` line, and one ``sent`` line for
each store with the complete run. A resumed run cuts its journal at the checkpoint's offset and adds
a ``resume`` line. A killed process may leave a torn last line; readers skip it. Numbers that are
not finite are the strings ``"nan"``, ``"inf"`` and ``"-inf"``, so every line is standard JSON.

Since format 2, which the first line names, every line has a checksum (``seals``). Journals of
earlier versions have none and are still read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from timetrial.framework.records import Row
from timetrial.framework.secrets import masked, masked_tree
from timetrial.framework.types import Status
from timetrial.tracking.record.errors import DamagedJournalError
from timetrial.tracking.record.line_file import LineFile
from timetrial.tracking.record.lines import (
    FORMAT,
    first_line,
    last_line,
    parse,
    read_lines,
    read_lines_between,
    read_lines_except,
)

DIRECTORIES: Final = ("journals", "spool")
"""Directories of journals below a tracking root; the second one is of version 0.1."""

LAST_MS: Final = 253_402_300_799_999
"""Last millisecond of the year 9999, since 1970."""

_ID: Final = "journal_id"
_OLD_ID: Final = "spool_id"  # of version 0.1
_ROW: Final = b'{"kind": "row"'


@dataclasses.dataclass(frozen=True)
class RunHeader:
    """Description of a run at its start.

    Attributes:
        experiment: name of the experiment.
        run_name: displayed name, not necessarily unique.
        tags: tags for groups and filters; ``tracking.record.schema`` lists the reserved ones.
        params: flat configuration.
        config_yaml: configuration as YAML, stored as the artifact ``config.yaml``.
        datasets: sha256 digest (hex) of each data set's file(s), by name.
    """

    experiment: str
    run_name: str
    tags: Mapping[str, str]
    params: Mapping[str, str] = dataclasses.field(default_factory=dict)
    config_yaml: str = ""
    datasets: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class End:
    """End of a run.

    Attributes:
        status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        timestamp_ms: time of the end, in ms since 1970.
        tags: tags set at the end (stop reason, diverged, ...).
        summary: metrics of the run as a whole.
        files: texts kept as artifacts, by file name, such as a traceback.
    """

    status: Status
    timestamp_ms: int
    tags: Mapping[str, str]
    summary: Mapping[str, float]
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class JournalContents:
    """Contents of a journal.

    Attributes:
        journal_id: unique identity of the journal, independent of its path.
        started_ms: start of the run, in ms since 1970.
        header: description of the run at its start.
        resumed: tags of each resumption, in order.
        rows: rows in order of logging; with ``evaluations_only``, evaluations and the last row.
        end: end of the run; None while it runs or when its process was killed.
        sent: id of the run in each store with the complete run, by ``Store.name``; "" is an
            unknown id (version 0.1).
    """

    journal_id: str
    started_ms: int
    header: RunHeader
    resumed: Sequence[Mapping[str, str]]
    rows: Sequence[Row]
    end: End | None
    sent: Mapping[str, str]

    @property
    def tags(self) -> dict[str, str]:
        """All tags of the run; later ones replace earlier ones."""
        tags = dict(self.header.tags)
        for more in self.resumed:
            tags |= more
        return tags | dict(self.end.tags if self.end else {})


class Journal:
    """Appends whole lines to one journal, unbuffered.

    Args:
        path: the file; its directory must exist. A torn last line is removed.
        cut_at: offset in bytes; everything behind it is removed first.

    Raises:
        TrackingError: the file is shorter than ``cut_at``.
        StorageError: the file is not writable.
    """

    def __init__(self, path: Path, *, cut_at: int | None = None) -> None:
        self._file = LineFile(path, cut_at)

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def offset(self) -> int:
        """Size in bytes."""
        return self._file.offset

    def start(self, journal_id: str, started_ms: int, header: RunHeader) -> None:
        """Writes the first line."""
        head = {_ID: journal_id, "started_ms": started_ms, **dataclasses.asdict(header)}
        self._append([{"kind": "run", "format": FORMAT, **masked_tree(head)}])

    def resume(self, tags: Mapping[str, str]) -> None:
        """Writes that another process resumes the run; its tags replace earlier ones."""
        self._append([{"kind": "resume", "tags": masked_tree(tags)}])

    def rows(self, rows: Sequence[Row]) -> None:
        """Writes rows, all or none of them."""
        self._append(
            [
                {
                    "kind": "row",
                    "step": row.step,
                    "train_seconds": _encode(row.train_seconds),
                    "timestamp_ms": row.timestamp_ms,
                    "metrics": {key: _encode(value) for key, value in row.metrics.items()},
                }
                for row in rows
            ]
        )

    def end(self, end: End) -> None:
        """Writes the end of the run."""
        summary = {key: _encode(value) for key, value in end.summary.items()}
        tree = {"status": end.status, "timestamp_ms": end.timestamp_ms}
        tree["tags"] = masked_tree(end.tags)
        files = {"files": masked_tree(end.files)} if end.files else {}
        self._append([{"kind": "end", **tree, "summary": summary, **files}])

    def sent(self, store: str, run_id: str, experiment: str = "") -> None:
        """Writes that a store has all lines above.

        Args:
            store: name of the store, without password.
            run_id: id of the run in that store.
            experiment: identity of the experiment there (``store.pending``); a store that was lost
                and made again has another one.
        """
        known = {"experiment": experiment} if experiment else {}
        line = {"kind": "sent", "store": masked(store), "run_id": run_id, **known}
        self._append([line])

    def sync(self) -> None:
        """Returns once the disk has all lines, so that they survive a power cut."""
        self._file.sync()

    def move(self, path: Path) -> None:
        """Renames the file."""
        self._file.move(path)

    def close(self) -> None:
        """Closes the file; nothing is buffered."""
        self._file.close()

    def _append(self, records: Sequence[Mapping[str, Any]]) -> None:
        self._file.append(
            [json.dumps(r, allow_nan=False, ensure_ascii=False).encode() for r in records]
        )


def read_journal(
    path: Path, *, until: int | None = None, evaluations_only: bool = False
) -> JournalContents:
    """Reads a journal; a torn last line is skipped.

    Args:
        path: the file.
        until: offset in bytes to stop at; None reads all.
        evaluations_only: read only evaluations and the last row: ten times as fast.

    Raises:
        TrackingError: the file is unreadable or of a newer format.
        DamagedJournalError: it has other bytes than those written, or is no journal.
    """
    lines = read_lines(path, until)
    chosen = _without_updates(lines) if evaluations_only else enumerate(lines, start=1)
    records = [parse(path, number, line) for number, line in chosen]
    with _another_format(path):
        return _contents(records)


def read_without_rows(path: Path) -> JournalContents:
    """Reads a journal without its rows; checks all bytes all the same.

    With checksums, rows are not looked at: ten times as fast as only evaluations.

    Raises:
        TrackingError: as for ``read_journal``.
    """
    lines = read_lines_except(path, _ROW)
    if lines is None:
        return dataclasses.replace(read_journal(path, evaluations_only=True), rows=())
    with _another_format(path):
        return _contents([parse(path, 0, line) for line in lines])


def rows_between(path: Path, start: int, stop: int | None = None) -> tuple[list[Row], int]:
    """The rows between two offsets of a journal, and the offset after the last whole line.

    Raises:
        TrackingError: the file is unreadable or damaged.
    """
    lines, end = read_lines_between(path, start, stop)
    with _another_format(path):
        return [_row(parse(path, 0, line)) for line in lines if line.startswith(_ROW)], end


@contextlib.contextmanager
def _another_format(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DamagedJournalError(
            f"journal {path}: expected lines in the format of Timetrial, got another one "
            f"({type(error).__name__}: {error})"
        ) from error


def journals_in(root: Path) -> list[Path]:
    """All journals below a tracking root, by name."""
    return [path for name in DIRECTORIES for path in sorted((root / name).glob("*.jsonl"))]


def experiment_of(path: Path) -> str | None:
    """The experiment of a journal, from its first line; None when that is damaged."""
    return first_facts(path)[0]


def first_facts(path: Path, tag: str = "") -> tuple[str | None, str | None]:
    """The experiment of a journal and the value of a tag, from its first line.

    Each is None when the line is damaged or lacks it.
    """
    head = first_line(path) or {}
    experiment, tags = head.get("experiment"), head.get("tags")
    value = tags.get(tag) if isinstance(tags, dict) else None
    return (
        experiment if isinstance(experiment, str) else None,
        value if isinstance(value, str) else None,
    )


def last_kind(path: Path) -> str:
    """Kind of the last whole line of a journal, "" without lines; reads the tail only.

    Raises:
        TrackingError: the file is unreadable, or its last line damaged.
    """
    line = last_line(path)
    return str(parse(path, 0, line)["kind"]) if line else ""


def _without_updates(lines: Sequence[bytes]) -> Iterable[tuple[int, bytes]]:
    """Numbered lines without the rows of single updates; keeps the last row."""
    last = next((i for i in range(len(lines) - 1, -1, -1) if lines[i].startswith(_ROW)), -1)
    for i, line in enumerate(lines):
        update = line.startswith(_ROW) and not any(
            prefix in line for prefix in (b'"train/', b'"validation/', b'"test/')
        )
        if not update or i == last:
            yield i + 1, line


def _contents(records: Sequence[Mapping[str, Any]]) -> JournalContents:
    head = records[0]
    ends = [r for r in records if r["kind"] == "end"]
    return JournalContents(
        journal_id=_text(head[_ID] if _ID in head else head[_OLD_ID]),
        started_ms=_milliseconds(head["started_ms"]),
        header=_header(head),
        resumed=[_texts(r["tags"]) for r in records if r["kind"] == "resume"],
        rows=[_row(r) for r in records if r["kind"] == "row"],
        end=_end(ends[0]) if ends else None,
        sent={_text(r.get("store", r.get("uri", ""))): _text(r.get("run_id", ""))
              for r in records if r["kind"] == "sent"},
    )  # fmt: skip


def _header(record: Mapping[str, Any]) -> RunHeader:
    return RunHeader(
        experiment=_text(record["experiment"]),
        run_name=_text(record["run_name"]),
        tags=_texts(record["tags"]),
        params=_texts(record["params"]),
        config_yaml=_text(record["config_yaml"]),
        datasets=_texts(record["datasets"]),
    )


def _row(record: Mapping[str, Any]) -> Row:
    return Row(
        step=_count(record["step"]),
        train_seconds=float(record["train_seconds"]),
        metrics={_text(key): float(value) for key, value in record["metrics"].items()},
        timestamp_ms=_milliseconds(record["timestamp_ms"]),
    )


def _end(record: Mapping[str, Any]) -> End:
    return End(
        status=Status(record["status"]),
        timestamp_ms=_milliseconds(record["timestamp_ms"]),
        tags=_texts(record["tags"]),
        summary={_text(key): float(value) for key, value in record["summary"].items()},
        files=_texts(record.get("files", {})),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {str(value)[:60]}")
    if not value.isascii():
        value.encode()  # a ValueError for half of a surrogate pair
    return value


def _texts(tree: Any) -> dict[str, str]:
    return {_text(key): _text(value) for key, value in tree.items()}


def _count(value: Any, limit: int = 2**63 - 1) -> int:
    number = int(value)
    if number != value or not 0 <= number <= limit:
        raise ValueError(f"expected a whole number from 0 to {limit}, got {str(value)[:60]}")
    return number


def _milliseconds(value: Any) -> int:
    return _count(value, LAST_MS)


def _encode(value: float) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(number)
