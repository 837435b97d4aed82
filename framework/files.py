"""Atomic file writes, and removal of the files of a failed step.

Boundary: paths and bytes; independent of their content.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from timetrial.framework.errors import UserError


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file atomically: writes to a temporary name, then renames it."""
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


@contextlib.contextmanager
def write_errors(what: str) -> Iterator[None]:
    """Turns an OSError into a UserError: ``cannot write <what>: <reason>``."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {what}: {error.strerror}") from error


def drafts_of(path: Path) -> list[Path]:
    """Temporary files left by a ``write_atomically`` whose process was killed."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.*.*"))


@contextlib.contextmanager
def removed_on_error(*paths: Path) -> Iterator[None]:
    """Removes files and empty directories made by a failed or interrupted block.

    Args:
        paths: files and directories that the block may make, missing parents included. Existing
            ones are kept.
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
