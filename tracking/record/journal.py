"""Journals: one append-only file of JSON lines per run, its primary record.

Boundary: local files only; no MLflow, no clock.

A journal has one ``run`` line, ``row`` lines, at most one ``end`` line, and one ``sent`` line for
each store with the complete run. A resumed run cuts its journal at the checkpoint's offset and adds
a ``resume`` line. A killed process may leave a torn last line; readers skip it. Numbers that are
not finite are the strings ``"nan"``, ``"inf"`` and ``"-inf"``, so every line is standard JSON.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from timetrial.framework.records import Row
from timetrial.framework.types import Status
from timetrial.tracking.record.errors import TrackingError

DIRECTORIES: Final = ("journals", "spool")
"""Directories of journals below a tracking root; the second one is of version 0.1."""

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

    Attributes:
        offset: size in bytes.
        last_row_offset: offset of the last row, in bytes.

    Raises:
        TrackingError: the file is not writable, or shorter than ``cut_at``.
    """

    def __init__(self, path: Path, *, cut_at: int | None = None) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            self.offset = _end_of_last_line(self._file)
            if cut_at is not None:
                self._check_cut(cut_at)
                self.offset = cut_at
            os.ftruncate(self._file, self.offset)
        except OSError as error:
            raise TrackingError(
                f"journal {path}: cannot be written ({error.strerror}); "
                "expected a directory with write permission and free space"
            ) from error
        self.last_row_offset = self.offset

    def _check_cut(self, cut_at: int) -> None:
        at_line_end = cut_at == 0 or os.pread(self._file, 1, cut_at - 1) == b"\n"
        if cut_at > self.offset or not at_line_end:
            raise TrackingError(
                f"journal {self.path}: expected at least {cut_at} bytes of whole lines, as when "
                f"the checkpoint was saved, got {self.offset}"
            )

    def start(self, journal_id: str, started_ms: int, header: RunHeader) -> None:
        """Writes the first line."""
        head = {_ID: journal_id, "started_ms": started_ms, **dataclasses.asdict(header)}
        self._append([{"kind": "run", **head}])

    def resume(self, tags: Mapping[str, str]) -> None:
        """Writes that another process resumes the run; its tags replace earlier ones."""
        self._append([{"kind": "resume", "tags": dict(tags)}])

    def rows(self, rows: Sequence[Row]) -> None:
        """Writes rows, all or none of them."""
        lines = self._append(
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
        if lines:
            self.last_row_offset = self.offset - len(lines[-1])

    def end(self, end: End) -> None:
        """Writes the end of the run."""
        summary = {key: _encode(value) for key, value in end.summary.items()}
        tree = {"status": end.status, "timestamp_ms": end.timestamp_ms, "tags": dict(end.tags)}
        files = {"files": dict(end.files)} if end.files else {}
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
        self._append([{"kind": "sent", "store": store, "run_id": run_id, **known}])

    def close(self) -> None:
        """Closes the file; nothing is buffered."""
        os.close(self._file)

    def _append(self, records: Sequence[Mapping[str, Any]]) -> list[bytes]:
        lines = [
            json.dumps(r, allow_nan=False, ensure_ascii=False).encode() + b"\n" for r in records
        ]
        data = memoryview(b"".join(lines))
        size = len(data)
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            # A partial line would corrupt the next one: truncates to the last whole line.
            os.ftruncate(self._file, self.offset)
            raise TrackingError(
                f"journal {self.path}: cannot be written ({error.strerror}); earlier "
                "lines are kept; expected free space on this file system"
            ) from error
        self.offset += size
        return lines


def read_journal(
    path: Path, *, until: int | None = None, evaluations_only: bool = False
) -> JournalContents:
    """Reads a journal; a torn last line is skipped.

    Args:
        path: the file.
        until: offset in bytes to stop at; None reads all.
        evaluations_only: read only evaluations and the last row: ten times as fast.

    Raises:
        TrackingError: the file is missing, has no ``run`` line first, or is damaged before its
            last line.
    """
    try:
        data = path.read_bytes()[:until]
    except OSError as error:
        raise TrackingError(f"journal {path}: cannot be read ({error.strerror})") from error
    lines = data.split(b"\n")[:-1]  # the text after the last newline is torn
    chosen = _without_updates(lines) if evaluations_only else enumerate(lines, start=1)
    records = [parse(path, number, line) for number, line in chosen]
    if not records or records[0]["kind"] != "run":
        raise TrackingError(f"journal {path}: expected a first line of kind 'run', found none")
    try:
        return _contents(records)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrackingError(
            f"journal {path}: expected lines in the format of Timetrial, got another one "
            f"({type(error).__name__}: {error})"
        ) from error


def rows_between(path: Path, start: int, stop: int | None = None) -> tuple[list[Row], int]:
    """The rows between two offsets of a journal, and the offset after the last whole line.

    Raises:
        TrackingError: the file is unreadable or damaged.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(-1 if stop is None else stop - start)
    except OSError as error:
        raise TrackingError(f"journal {path}: cannot be read ({error.strerror})") from error
    data = data[: data.rfind(b"\n") + 1]
    lines = [line for line in data.split(b"\n") if line.startswith(_ROW)]
    return [_row(parse(path, 0, line)) for line in lines], start + len(data)


def journals_in(root: Path) -> list[Path]:
    """All journals below a tracking root, by name."""
    return [path for name in DIRECTORIES for path in sorted((root / name).glob("*.jsonl"))]


def experiment_of(path: Path) -> str | None:
    """The experiment of a journal, from its first line; None when that is damaged."""
    try:
        with path.open("rb") as file:
            return str(json.loads(file.readline())["experiment"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def last_kind(path: Path) -> str:
    """Kind of the last whole line of a journal, "" without lines; reads the tail only.

    Raises:
        TrackingError: the last line is damaged.
    """
    with path.open("rb") as file:
        end = _end_of_last_line(file.fileno())
        start = max(0, end - 65536)
        file.seek(start)
        lines = file.read(end - start).splitlines()
    return str(parse(path, 0, lines[-1])["kind"]) if lines else ""


def parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """One line of a journal.

    Raises:
        TrackingError: the line is not a JSON object with a ``kind``.
    """
    try:
        record = json.loads(line)
        record["kind"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise TrackingError(
            f"journal {path}, line {number}: expected one JSON object with a 'kind', "
            f"got {line[:60]!r}"
        ) from error
    return dict(record)


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
    header = RunHeader(**{f.name: head[f.name] for f in dataclasses.fields(RunHeader)})
    ends = [r for r in records if r["kind"] == "end"]
    return JournalContents(
        journal_id=str(head[_ID] if _ID in head else head[_OLD_ID]),
        started_ms=int(head["started_ms"]),
        header=header,
        resumed=[dict(r["tags"]) for r in records if r["kind"] == "resume"],
        rows=[_row(r) for r in records if r["kind"] == "row"],
        end=_end(ends[0]) if ends else None,
        sent={r.get("store", r.get("uri", "")): r.get("run_id", "") for r in records
              if r["kind"] == "sent"},
    )  # fmt: skip


def _row(record: Mapping[str, Any]) -> Row:
    return Row(
        step=int(record["step"]),
        train_seconds=float(record["train_seconds"]),
        metrics={key: float(value) for key, value in record["metrics"].items()},
        timestamp_ms=int(record["timestamp_ms"]),
    )


def _end(record: Mapping[str, Any]) -> End:
    return End(
        status=Status(record["status"]),
        timestamp_ms=int(record["timestamp_ms"]),
        tags=dict(record["tags"]),
        summary={key: float(value) for key, value in record["summary"].items()},
        files={key: str(text) for key, text in record.get("files", {}).items()},
    )


def _encode(value: float) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _end_of_last_line(file: int) -> int:
    """Offset after the last newline of an open file, 0 without one."""
    size = os.fstat(file).st_size
    block = 65536
    for start in range((max(size - 1, 0) // block) * block, -1, -block):
        found = os.pread(file, block, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
    return 0
