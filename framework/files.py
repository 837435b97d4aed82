"""Atomic and private file writes, waiting for room on a full disk, clean-up of failed steps.

Boundary: paths and bytes; independent of their content.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from timetrial.framework.errors import StorageError, UserError
from timetrial.framework.machine import HOST_NAMESPACE, pid_namespace
from timetrial.framework.signals import raise_noted

T = TypeVar("T")
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a file system without room, or of a used-up quota."""

WAIT_SECONDS: Final = 600.0
"""How long a process waits for room on a full disk."""

POLL_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


def wait_for_room(
    write: Callable[[], T],
    path: Path,
    size: int,
    *,
    wait_seconds: float = WAIT_SECONDS,
    poll_seconds: float = POLL_SECONDS,
) -> T:
    """Writes; on a full disk, says so in one line, waits for room and writes again.

    Args:
        write: the operation. After an OSError it must leave nothing half done.
        path: the file or directory that it writes, for messages.
        size: bytes that it needs.
        wait_seconds: longest wait, at least one attempt.
        poll_seconds: pause between two attempts.

    Returns:
        The result of ``write``.

    Raises:
        StorageError: no room after ``wait_seconds``, or the disk refuses for another reason.
        Interrupted: a signal came meanwhile.
    """
    waited = 0.0
    while True:
        try:
            return write()
        except OSError as error:
            if error.errno not in FULL:
                reason = error.strerror or str(error)
                raise StorageError(
                    f"{path}: cannot be written ({reason}); expected a file system with write "
                    "permission; the same command continues"
                ) from error
            if waited >= wait_seconds:
                raise StorageError(
                    f"{path}: no space left for {size:,} bytes after {waited:.0f} s of waiting; "
                    "make room, the same command continues"
                ) from error
        if not waited:
            _log.warning(
                "no space left for %s bytes in %s; waiting for room; Ctrl-C ends the run, "
                "the same command continues",
                f"{size:,}",
                path,
            )
        waited += _sleep_until_room(path, size, wait_seconds - waited, poll_seconds)


def _sleep_until_room(path: Path, size: int, seconds: float, poll_seconds: float) -> float:
    """Sleeps at least one poll, at most ``seconds``, until the disk reports enough free bytes.

    A quota or used-up inodes do not show there: ten polls are the longest pause.
    """
    start = time.monotonic()
    longest = min(seconds, 10 * poll_seconds)
    while True:
        time.sleep(poll_seconds)
        raise_noted()
        slept = time.monotonic() - start
        if slept >= longest or free_bytes(path) >= size:
            return slept


def free_bytes(path: Path) -> int:
    """Free bytes where a file lies or will lie; 0 if unknown."""
    for place in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free
    return 0


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
    part = draft_of(path)
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


def draft_of(path: Path) -> Path:
    """A temporary name beside a file, with this host and process."""
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}")


def remove_drafts(directory: Path) -> None:
    """Removes temporary files (``draft_of``) at any depth whose process on this host is dead."""
    name = re.compile(rf"\..+\.{re.escape(_host())}\.(\d{{1,10}})\.[0-9a-f]{{8}}")
    for path in directory.rglob(".*"):
        found = name.fullmatch(path.name)
        if found is not None and not _is_alive(int(found[1])):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _host() -> str:
    """Name of this host, and of its container: processes have numbers of their own there."""
    namespace = pid_namespace()
    inside = "" if namespace in ("", HOST_NAMESPACE) else f"-{namespace}"
    return re.sub(r"[^\w\-]+", "_", socket.gethostname()) + inside


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


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
