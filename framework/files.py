"""Atomic file writes, and removal of the files that a failed step has made.

Boundary: paths and bytes; what they hold is for the caller.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: under another name first, renamed once it is on disk."""
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


@contextlib.contextmanager
def removed_on_error(*paths: Path) -> Iterator[None]:
    """Removes files and empty directories that a failed block has made, also when interrupted.

    Args:
        paths: files and directories that the block may make; their missing parents count as well.
            What existed before stays.
    """
    missing = {
        part for path in paths for part in (path, *path.parents) if not os.path.lexists(part)
    }
    try:
        yield
    except BaseException:
        for path in sorted(missing, key=lambda path: len(path.parts), reverse=True):
            with contextlib.suppress(OSError):
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                else:
                    path.unlink()
        raise
