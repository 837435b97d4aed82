"""Atomic and private file writes, and removal of the files of a failed step.

Boundary: paths and bytes; independent of their content.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from timetrial.framework.errors import UserError

PRIVATE: Final = 0o600
"""Mode of files that may hold credentials or the results of others: its owner only."""


def owner_only(path: str | os.PathLike[str], flags: int) -> int:
    """Opener of a private file: ``open(path, "a", opener=owner_only)``; existing modes stay."""
    return os.open(path, flags, PRIVATE)


def make_private_file(path: Path) -> None:
    """Creates an empty private file, such as a database before it is opened; keeps an old one."""
    os.close(owner_only(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC))


def make_private_directory(path: Path) -> None:
    """Creates a directory for its owner only, mode 0700; keeps an old one.

    Missing parents get 0755, less the umask: others may enter, not write.
    """
    make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def make_directory(path: Path) -> None:
    """Creates a directory and its parents with mode 0755, less the umask; keeps old ones."""
    for part in reversed([path, *path.parents]):
        if not part.is_dir():
            part.mkdir(mode=0o755, exist_ok=True)


def write_atomically(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Writes a file atomically: writes to a temporary name, then renames it.

    Args:
        path: the file.
        data: its content.
        mode: of the file, less the umask; ``PRIVATE`` for its owner only.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
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
