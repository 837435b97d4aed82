"""Reads the lines of journals and refuses damaged ones.

Boundary: files in, checked lines out; ``journal`` knows what the lines mean.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from timetrial.tracking.record import seals
from timetrial.tracking.record.errors import DamagedJournalError, TrackingError
from timetrial.tracking.record.line_file import end_of_last_line

FORMAT: Final = 2
"""Version of the format, in the first line since version 2."""


def read_lines(path: Path, until: int | None = None) -> list[bytes]:
    """The whole lines of a journal without newlines; a torn last line is skipped.

    Args:
        path: the file.
        until: offset in bytes to stop at; None reads all.

    Raises:
        TrackingError: the file is unreadable or of a newer format.
        DamagedJournalError: it has other bytes than those written, or no ``run`` line first.
    """
    whole, _ = _checked(path, until)
    return whole.split(b"\n")[:-1]


def read_lines_except(path: Path, prefix: bytes) -> list[bytes] | None:
    """The whole lines of a journal that do not begin with a prefix; None without checksums.

    All bytes are checked, so the other lines need not be looked at.

    Raises:
        TrackingError: as for ``read_lines``.
    """
    whole, sealed = _checked(path, None)
    if not sealed:
        return None
    other = re.compile(rb"\n(?!" + re.escape(prefix) + rb")")
    starts = [0, *(found.end() for found in other.finditer(whole, 0, len(whole) - 1))]
    return [whole[start : whole.index(b"\n", start)] for start in starts]


def _checked(path: Path, until: int | None) -> tuple[bytes, bool]:
    """The whole lines of a journal, each with its newline, and whether they have checksums."""
    try:
        with path.open("rb", buffering=0) as file:
            data = file.readall()
    except OSError as error:
        raise _unreadable(path, error) from error
    data = data[:until]
    end = data.rfind(b"\n") + 1
    whole = data[:end] if end < len(data) else data
    first = whole[: whole.find(b"\n") + 1]
    sealed = _is_sealed(path, first)
    if sealed:
        _check(path, whole, 0, 1)
        if not seals.is_torn(data[end:]):
            raise _damaged(path, whole.count(b"\n") + 1)
    elif seals.has_seals(whole):
        raise _damaged(path, 1)
    return whole, sealed


def read_lines_between(path: Path, start: int, stop: int | None) -> tuple[list[bytes], int]:
    """The whole lines between two offsets of a journal, and the offset after the last one.

    Raises:
        TrackingError: the file is unreadable or of a newer format.
        DamagedJournalError: these lines have other bytes than those written.
    """
    try:
        with path.open("rb") as file:
            sealed = _is_sealed(path, file.readline())
            before = max(0, start - seals.SIZE)
            file.seek(before)
            data = file.read(-1 if stop is None else max(0, stop - before))
    except OSError as error:
        raise _unreadable(path, error) from error
    whole = data[start - before : data.rfind(b"\n") + 1]
    state = seals.state_after(data[: start - before]) if start else 0
    if not sealed:
        if seals.has_seals(whole):
            raise _damaged(path, 1)
    elif state is None:
        raise _damaged(path, 0)
    else:
        _check(path, whole, state, 0)
    return whole.split(b"\n")[:-1], start + len(whole)


def first_line(path: Path) -> dict[str, Any] | None:
    """The first line of a journal; None when it is damaged or unreadable."""
    try:
        with path.open("rb") as file:
            line = file.readline()
        if _is_sealed(path, line):
            _check(path, line, 0, 1)
        return parse(path, 1, line)
    except (OSError, TrackingError):
        return None


def last_line(path: Path) -> bytes:
    """The last whole line of a journal, b"" without lines; reads the tail only.

    Raises:
        TrackingError: the file is unreadable.
    """
    try:
        with path.open("rb") as file:
            return _last_line(file)
    except OSError as error:
        raise _unreadable(path, error) from error


def last_lines(path: Path, kinds: Sequence[str]) -> list[bytes]:
    """The whole lines of these kinds that end a journal, in order; reads the tail only.

    Raises:
        TrackingError: the file is unreadable.
    """
    begins = tuple(f'{{"kind": "{kind}"'.encode() for kind in kinds)
    size = 65536
    try:
        with path.open("rb") as file:
            end = end_of_last_line(file.fileno())
            while True:
                start = max(0, end - size)
                file.seek(start)
                lines = file.read(end - start).split(b"\n")[:-1]
                found = list(itertools.takewhile(lambda line: line.startswith(begins), lines[::-1]))
                if len(found) < len(lines) - (start > 0) or start == 0:
                    return found[::-1]
                size *= 4  # longer lines
    except OSError as error:
        raise _unreadable(path, error) from error


def parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """One line of a journal.

    Raises:
        DamagedJournalError: the line is not a JSON object with a ``kind``.
    """
    try:
        record = json.loads(line)
        record["kind"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedJournalError(
            f"journal {path}, line {number}: expected one JSON object with a 'kind', "
            f"got {line[:60]!r}"
        ) from error
    return dict(record)


def _last_line(file: BinaryIO) -> bytes:
    end = end_of_last_line(file.fileno())
    size = 65536
    while True:
        start = max(0, end - size)
        file.seek(start)
        text = file.read(end - start)
        found = text.rfind(b"\n", 0, -1)
        if found >= 0 or start == 0:
            return text[found + 1 :]
        size *= 4  # a longer line


def _is_sealed(path: Path, first: bytes) -> bool:
    """True when a journal has checksums, from its first line."""
    head = parse(path, 1, first) if first.endswith(b"\n") else {}
    if head.get("kind") != "run":
        raise DamagedJournalError(
            f"journal {path}: expected a first line of kind 'run', got {first[:60]!r}"
        )
    version = head.get("format")
    if version in (None, FORMAT):
        return version == FORMAT or seals.KEY in head
    if isinstance(version, int) and version > FORMAT and seals.is_intact(first, 0):
        raise TrackingError(
            f"journal {path}: expected format {FORMAT} or earlier, got {version}; a newer version "
            "of timetrial reads it"
        )
    raise _damaged(path, 1)


def _check(path: Path, lines: bytes, state: int, number: int) -> None:
    """Refuses lines with other bytes than those written; ``number`` 0 is an unknown first line."""
    if not seals.is_intact(lines, state):
        damaged = seals.first_damaged(lines, state)
        raise _damaged(path, number + damaged if number else 0)


def _damaged(path: Path, number: int) -> DamagedJournalError:
    place = f", line {number}" if number else ""
    return DamagedJournalError(
        f"journal {path}{place}: it has another checksum than its bytes; expected the bytes that "
        "were written, got a line that was changed, lost, repeated or moved"
    )


def _unreadable(path: Path, error: OSError) -> TrackingError:
    return TrackingError(f"journal {path}: cannot be read ({error.strerror})")
