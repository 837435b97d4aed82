"""A lock on a journal, across processes, for the one that sends it.

Boundary: locks the file; reads and writes nothing.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

from timetrial.tracking.record.errors import TrackingError


class Claim:
    """Claims a journal until ``release``, or until the process ends.

    Args:
        path: the journal.

    Attributes:
        held: False when another process sends the journal. File systems without locks claim
            nothing; then it is True.

    Raises:
        TrackingError: the journal is unreadable.
    """

    def __init__(self, path: Path) -> None:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise TrackingError(f"journal {path}: cannot be read ({error.strerror})") from error
        self._close = weakref.finalize(self, os.close, file)
        self.held = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.held = False
        except OSError:
            pass

    def release(self) -> None:
        """Gives the claim back; may be repeated."""
        self._close()
        self.held = False
