"""An append-only file of whole lines with checksums.

Boundary: one file descriptor; ``journal`` knows what the lines mean.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from timetrial.framework.files import PRIVATE, wait_for_room
from timetrial.tracking.record import seals
from timetrial.tracking.record.errors import TrackingError


class LineFile:
    """Appends lines, all or none at a time, unbuffered.

    An exception at any moment, also one raised by a signal handler, leaves whole lines: either
    the file is cut to its earlier end, or the lines count as written.

    Args:
        path: the file; its directory must exist. A torn last line is removed.
        cut_at: offset in bytes; everything behind it is removed first.

    Attributes:
        path: the file.

    Raises:
        TrackingError: the file is shorter than ``cut_at``.
        StorageError: the file is not writable.
    """

    def __init__(self, path: Path, cut_at: int | None = None) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = wait_for_room(lambda: os.open(path, flags, PRIVATE), path, 1)
        try:
            size = end_of_last_line(self._file)
            if cut_at is not None:
                self._check_cut(cut_at, size)
                size = cut_at
            os.ftruncate(self._file, size)
            self._end = _End(size, self._state_at(size))
        except BaseException:
            os.close(self._file)
            raise
        self._pending = self._end
        self._is_known_to_directory = False

    @property
    def offset(self) -> int:
        """Size in bytes."""
        return self._end.offset

    def append(self, objects: Sequence[bytes]) -> None:
        """Appends JSON objects, one line each; on a full disk, waits for room.

        Raises:
            StorageError: the file is not writable; earlier lines are kept.
        """
        if not objects:
            return
        self._settle()
        before = self._end
        if before.state is None:  # a journal of an earlier version stays one
            lines, state = [text + b"\n" for text in objects], None
        else:
            lines, state = seals.seal(objects, before.state)
        data = b"".join(lines)
        offset = before.offset + len(data)
        self._pending = _End(offset, state)
        try:
            wait_for_room(lambda: self._write(data), self.path, len(data))
        finally:
            self._settle()

    def sync(self) -> None:
        """Returns once the disk has all lines, so that they survive a power cut.

        Raises:
            StorageError: the disk fails.
        """
        wait_for_room(self._sync, self.path, 1)

    def move(self, path: Path) -> None:
        """Renames the file."""
        wait_for_room(lambda: os.rename(self.path, path), path, 1)
        self.path = path

    def close(self) -> None:
        """Closes the file; nothing is buffered."""
        os.close(self._file)

    def _check_cut(self, cut_at: int, size: int) -> None:
        at_line_end = cut_at == 0 or (
            0 < cut_at <= size and os.pread(self._file, 1, cut_at - 1) == b"\n"
        )
        if not at_line_end:
            raise TrackingError(
                f"journal {self.path}: expected at least {cut_at} bytes of whole lines, as when "
                f"the checkpoint was saved, got {size}"
            )

    def _state_at(self, size: int) -> int | None:
        start = max(0, size - seals.SIZE)
        return seals.state_after(os.pread(self._file, size - start, start)) if size else 0

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            self._settle()
            raise

    def _settle(self) -> None:
        """Counts pending lines as written if they are whole, else cuts them off."""
        size = os.fstat(self._file).st_size
        if size == self._pending.offset:
            self._end = self._pending
        elif size > self._end.offset:
            os.ftruncate(self._file, self._end.offset)

    def _sync(self) -> None:
        getattr(os, "fdatasync", os.fsync)(self._file)  # macOS has fsync only
        if not self._is_known_to_directory:
            sync_directory(self.path.parent)
            self._is_known_to_directory = True


class _End:
    """End of a file.

    Attributes:
        offset: size, in bytes.
        state: CRC-32 of all bytes; None without checksums.
    """

    __slots__ = ("offset", "state")

    def __init__(self, offset: int, state: int | None) -> None:
        self.offset = offset
        self.state = state


def end_of_last_line(file: int) -> int:
    """Offset after the last newline of an open file, 0 without one."""
    size = os.fstat(file).st_size
    block = 65536
    for start in range((max(size - 1, 0) // block) * block, -1, -block):
        found = os.pread(file, block, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
    return 0


def sync_directory(directory: Path) -> None:
    """Makes names of new files survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        file = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
