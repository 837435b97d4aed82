"""The spool: one append-only JSON-lines file per run that holds all that was recorded about it.

Boundary: local files only; it knows neither MLflow nor a clock. It is the truth that MLflow shows.

A file is one ``run`` line, any number of ``row`` lines, one ``end`` line and, once a tracking
store has everything, one ``sent`` line. A process that is killed leaves at most its last line torn;
readers pass over it. Numbers that are not finite are written as the strings ``"nan"``, ``"inf"``
and ``"-inf"``, so that every line is standard JSON.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timetrial.framework.records import Row
from timetrial.tracking.record.errors import TrackingError


@dataclasses.dataclass(frozen=True)
class RunHeader:
    """Who a run is: all that is known when it starts.

    Attributes:
        experiment: name of the experiment that the run belongs to.
        run_name: name to show; it need not be unique.
        tags: tags to group and filter by; ``tracking.record.schema`` lists the reserved ones.
        params: the flat configuration.
        config_yaml: the configuration as a file, kept as the artifact ``config.yaml``.
        datasets: name of each data set to the sha256 digest of its file(s), in hex.
    """

    experiment: str
    run_name: str
    tags: Mapping[str, str]
    params: Mapping[str, str] = dataclasses.field(default_factory=dict)
    config_yaml: str = ""
    datasets: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class End:
    """How a run ended.

    Attributes:
        status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        timestamp_ms: when, in ms since 1970.
        tags: tags known only now (stop reason, diverged, ...).
        summary: metrics of the run as a whole.
    """

    status: str
    timestamp_ms: int
    tags: Mapping[str, str]
    summary: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class SpoolContents:
    """What a spool file holds.

    Attributes:
        spool_id: unique identity of the file, whatever its path.
        started_ms: start of the run, in ms since 1970.
        identity: who the run is.
        rows: in the order in which they were logged.
        end: how it ended, ``None`` while it runs or when its process was killed.
        sent: whether a tracking store has all of it.
    """

    spool_id: str
    started_ms: int
    identity: RunHeader
    rows: Sequence[Row]
    end: End | None
    sent: bool


class Spool:
    """Appends whole lines to one spool file; each is with the operating system before it returns.

    Args:
        path: the file; its directory must exist. A torn last line is cut off.

    Raises:
        TrackingError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            self._size = _end_of_last_line(self._file)
            os.ftruncate(self._file, self._size)
        except OSError as error:
            raise TrackingError(
                f"spool file {path}: cannot be written ({error.strerror}); "
                "expected a directory with write permission and free space"
            ) from error

    def start(self, spool_id: str, started_ms: int, identity: RunHeader) -> None:
        """Writes the first line: who the run is."""
        self._append(
            [
                {
                    "kind": "run",
                    "spool_id": spool_id,
                    "started_ms": started_ms,
                    **dataclasses.asdict(identity),
                }
            ]
        )

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
        """Writes how the run ended."""
        self._append(
            [
                {
                    "kind": "end",
                    "status": end.status,
                    "timestamp_ms": end.timestamp_ms,
                    "tags": dict(end.tags),
                    "summary": {key: _encode(value) for key, value in end.summary.items()},
                }
            ]
        )

    def sent(self, uri: str) -> None:
        """Notes that the store at ``uri`` has all lines above."""
        self._append([{"kind": "sent", "uri": uri}])

    def close(self) -> None:
        """Closes the file; nothing is buffered."""
        os.close(self._file)

    def _append(self, records: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(r, allow_nan=False, ensure_ascii=False) + "\n" for r in records)
        data = memoryview(text.encode())
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            # Half a line would swallow the next one: back to the last whole line.
            os.ftruncate(self._file, self._size)
            raise TrackingError(
                f"spool file {self.path}: cannot be written ({error.strerror}); what was logged "
                "before is kept; expected free space on this file system"
            ) from error
        self._size += len(text.encode())


def read_spool(path: Path) -> SpoolContents:
    """Reads a spool file back; a torn last line is passed over.

    Raises:
        TrackingError: the file is missing, does not start with a run, or is damaged elsewhere
            than at its end.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn
    except OSError as error:
        raise TrackingError(f"spool file {path}: cannot be read ({error.strerror})") from error
    records = [_parse(path, number, line) for number, line in enumerate(lines, start=1)]
    if not records or records[0]["kind"] != "run":
        raise TrackingError(f"spool file {path}: expected a first line of kind 'run', found none")
    head = records[0]
    identity = RunHeader(**{f.name: head[f.name] for f in dataclasses.fields(RunHeader)})
    ends = [r for r in records if r["kind"] == "end"]
    return SpoolContents(
        spool_id=head["spool_id"],
        started_ms=head["started_ms"],
        identity=identity,
        rows=[_row(r) for r in records if r["kind"] == "row"],
        end=_end(ends[0]) if ends else None,
        sent=any(r["kind"] == "sent" for r in records),
    )


def unsent_spools(directory: Path) -> list[Path]:
    """Spool files in ``directory`` of ended runs that no tracking store has in full, by name."""
    return [path for path in sorted(directory.glob("*.jsonl")) if _last_kind(path) == "end"]


def _last_kind(path: Path) -> str:
    """Kind of the last whole line of a file, ``""`` where there is none; reads the tail only."""
    with path.open("rb") as file:
        end = _end_of_last_line(file.fileno())
        start = max(0, end - 65536)
        file.seek(start)
        lines = file.read(end - start).splitlines()
    return str(_parse(path, 0, lines[-1])["kind"]) if lines else ""


def _row(record: Mapping[str, Any]) -> Row:
    return Row(
        step=record["step"],
        train_seconds=float(record["train_seconds"]),
        timestamp_ms=record["timestamp_ms"],
        metrics={key: float(value) for key, value in record["metrics"].items()},
    )


def _end(record: Mapping[str, Any]) -> End:
    return End(
        status=record["status"],
        timestamp_ms=record["timestamp_ms"],
        tags=record["tags"],
        summary={key: float(value) for key, value in record["summary"].items()},
    )


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
        record["kind"]
    except (ValueError, TypeError, KeyError) as error:
        raise TrackingError(
            f"spool file {path}, line {number}: expected one JSON object with a 'kind', "
            f"got {line[:60]!r}"
        ) from error
    return dict(record)


def _encode(value: float) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _end_of_last_line(file: int) -> int:
    """Offset just behind the last newline of an open file, 0 where there is none."""
    size = os.fstat(file).st_size
    block = 65536
    for start in range((max(size - 1, 0) // block) * block, -1, -block):
        found = os.pread(file, block, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
    return 0
