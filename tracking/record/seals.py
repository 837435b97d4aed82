"""Checksums of a journal's lines.

Boundary: bytes in, bytes out; ``journal`` reads and writes the file.

The last key of each line is ``crc32``: the CRC-32 of all bytes of the journal before this key, the
lines above included. So the last line alone proves every byte above it, and a line that is changed,
lost, repeated or moved is found. A journal that is cut after a whole line stays valid.

CRC-32: W. W. Peterson and D. T. Brown, "Cyclic Codes for Error Detection", Proceedings of the IRE
49 (1961), https://doi.org/10.1109/JRPROC.1961.287814. All errors of up to 32 neighbouring bits are
found, others with a probability of 1 - 2**-32. It is no protection against forgery.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from zlib import crc32

KEY: Final = "crc32"
"""Name of the key with the checksum; lines of earlier versions have no such key."""

_SEAL: Final = re.compile(rb', "crc32": "([0-9a-f]{8})"\}\n')
_BROKEN: Final = re.compile(rb', "crc32": "[0-9a-f]{8}"\}.', re.DOTALL)
SIZE: Final = len(b', "crc32": "00000000"}\n')
"""Size of the end of a line from the key on, in bytes."""


def seal(objects: Sequence[bytes], state: int) -> tuple[list[bytes], int]:
    """Lines with checksums.

    Args:
        objects: non-empty JSON objects, each in one line without newline.
        state: CRC-32 of all bytes before these lines; 0 for an empty journal.

    Returns:
        The lines with newlines, and the CRC-32 of all bytes up to their end.
    """
    lines = []
    for text in objects:
        body = text[:-1]
        state = crc32(body, state)
        end = b', "crc32": "%08x"}\n' % state
        state = crc32(end, state)
        lines.append(body + end)
    return lines, state


def state_after(line: bytes) -> int | None:
    """CRC-32 of all bytes up to the end of a line, from the line's own checksum.

    Args:
        line: the line with its newline, or its last ``SIZE`` bytes.

    Returns:
        The checksum, in [0, 2**32); None for a line without one.
    """
    end = line[-SIZE:]
    found = _SEAL.fullmatch(end)
    return crc32(end, int(found[1], 16)) if found else None


def has_seals(data: bytes) -> bool:
    """True when a line of the text ends with a checksum."""
    return b'"crc32"' in data and _SEAL.search(data) is not None


def is_torn(rest: bytes) -> bool:
    """True for the text behind the last newline that an interrupted write can leave."""
    return _BROKEN.search(rest) is None


def is_intact(data: bytes, state: int) -> bool:
    """True when whole lines have the bytes that were written.

    Args:
        data: lines, each with its newline.
        state: CRC-32 of all bytes before them.
    """
    expected = state_after(data)
    return not data or (expected is not None and crc32(data, state) == expected)


def first_damaged(data: bytes, state: int) -> int:
    """Index of the first line with another checksum than its bytes; -1 without one.

    Args:
        data: lines, each with its newline.
        state: CRC-32 of all bytes before them.
    """
    for index, line in enumerate(data.splitlines(keepends=True)):
        state = crc32(line, state)
        if state_after(line) != state:
            return index
    return -1
