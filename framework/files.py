"""Atomic file writes.

Boundary: knows nothing of what it writes.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a whole file or none: under another name first, renamed once it is on the disk."""
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def drafts_of(path: Path) -> list[Path]:
    """Half files that ``write_atomically`` has left where its process was killed."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.*.*"))
