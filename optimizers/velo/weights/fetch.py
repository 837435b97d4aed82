"""Fetches Google's released VeLO weights into the cache: what ``timetrial fetch velo`` does.

Boundary: the only module of the optimizer that talks to the network. POSIX only (file locks).

A download goes to ``<destination>.part``, which a later call resumes, is checked for its exact size
and by loading it, and is renamed into place with its sha256 recorded beside it. What is in place is
therefore always whole. Processes that fetch at the same time do not share a part: the second one
downloads into a part of its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import BinaryIO

from timetrial.framework.errors import UserError
from timetrial.framework.files import write_atomically
from timetrial.optimizers.velo.layout import WeightsError
from timetrial.optimizers.velo.weights.checkpoint import MAX_FILE_BYTES, digest_path, load_weights
from timetrial.optimizers.velo.weights.choice import (
    RELEASED_BYTES,
    RELEASED_URL,
    google_weights_path,
)
from timetrial.optimizers.velo.weights.download import DownloadError, Progress, check_url, download

__all__ = ["LICENCE_NOTE", "FetchError", "fetch_velo"]

LICENCE_NOTE = (
    "Google has not stated a licence for these weights (an open question upstream: "
    "https://github.com/google/learned_optimization/issues/272). They are fetched from Google's "
    "public bucket for your own use; timetrial neither contains nor redistributes them."
)
"""To be shown to whoever fetches the weights."""


class FetchError(UserError, RuntimeError):
    """The weights could not be fetched; the one-line message says why and what to do instead."""


def fetch_velo(
    *,
    url: str = RELEASED_URL,
    destination: str | os.PathLike[str] | None = None,
    source_file: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    timeout_seconds: float = 30.0,
    attempts: int = 5,
    backoff_seconds: float = 1.0,
    expected_bytes: int = RELEASED_BYTES,
) -> pathlib.Path:
    """Downloads the weights, or takes them from a file, unless they are in place already.

    Args:
        url: where to download from; HTTPS, or plain HTTP from this very machine.
        destination: file to make; ``google_weights_path()`` by default. Directories are made.
        source_file: a copy of the released file, for a machine without network; always copied.
        progress: called with (bytes so far, bytes in all) while bytes arrive.
        timeout_seconds: how long a connection may be silent, or slower than 1 kB/s, > 0.
        attempts: how often in a row a download may fail without getting on, >= 1.
        backoff_seconds: pause after the first failure, >= 0; doubles with every further one, up
            to 30 s.
        expected_bytes: exact size of the file.

    Returns:
        The destination, which holds valid weights.

    Raises:
        FetchError: no network, a server that refuses or serves something else, a full disk or an
            unwritable directory, or a ``source_file`` that is not the released file. Whatever was
            at the destination is still there; of an interrupted download only the part is left.
    """
    target = pathlib.Path(destination) if destination is not None else google_weights_path()
    _check_settings(url, timeout_seconds, attempts, backoff_seconds, expected_bytes)
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a directory, expected a file", str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        if source_file is not None:
            _take(pathlib.Path(source_file), target, expected_bytes)
            return target
        if _problem(target, expected_bytes) is None:
            return target
        with _part(target) as (part, file):
            if _problem(target, expected_bytes) is None:  # made by another while we waited
                return target
            download(
                url,
                file,
                expected_bytes,
                check=lambda: _problem(part, expected_bytes),
                progress=progress,
                timeout_seconds=timeout_seconds,
                attempts=attempts,
                backoff_seconds=backoff_seconds,
            )
            os.fsync(file.fileno())
            _put_in_place(part, target)
    except DownloadError as error:
        # Part of it may be the server's words: one printable line of them.
        reason = "".join(c if c.isprintable() else " " for c in str(error))[:500]
        raise FetchError(
            f"cannot fetch VeLO's weights: {reason}; by other means: download {url} and run "
            f"`timetrial fetch velo --from FILE`, or put it at {target}"
        ) from error
    except OSError as error:
        where = error.filename or target
        raise FetchError(
            f"cannot write VeLO's weights: {where}: {error.strerror or error}; choose another "
            f"cache directory with TIMETRIAL_CACHE, or put {url} at {target} yourself"
        ) from error
    return target


def _check_settings(
    url: str, timeout_seconds: float, attempts: int, backoff_seconds: float, expected_bytes: int
) -> None:
    check_url(url)
    if not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds: expected seconds > 0, got {timeout_seconds}")
    if attempts < 1:
        raise ValueError(f"attempts: expected a whole number >= 1, got {attempts}")
    if not backoff_seconds >= 0:
        raise ValueError(f"backoff_seconds: expected seconds >= 0, got {backoff_seconds}")
    if not 0 < expected_bytes <= MAX_FILE_BYTES:
        raise ValueError(f"expected_bytes: expected 1 to {MAX_FILE_BYTES}, got {expected_bytes}")


def _problem(path: pathlib.Path, expected_bytes: int) -> str | None:
    """Why a file is not the weights, or ``None`` when it is."""
    try:
        size = path.stat().st_size
        if size != expected_bytes:
            return f"{path}: expected {expected_bytes:,} bytes, got {size:,}"
        load_weights(path)
    except FileNotFoundError:
        return f"{path}: no such file"
    except WeightsError as error:
        return str(error)
    return None


def _take(source: pathlib.Path, target: pathlib.Path, expected_bytes: int) -> None:
    """Copies a file that somebody brought along, once it has proved to be the weights."""
    try:
        problem = _problem(source, expected_bytes)
    except OSError as error:
        problem = f"{source}: cannot be read: {error.strerror}"
    if problem is not None:
        raise FetchError(f"not taken, this is not the file of {RELEASED_URL}: {problem}")
    copy = target.with_name(f"{target.name}.part.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        write_atomically(copy, source.read_bytes())
        problem = _problem(copy, expected_bytes)
        if problem is not None:  # the source changed while it was read
            raise FetchError(f"not taken: {problem}")
        _put_in_place(copy, target)
    finally:
        copy.unlink(missing_ok=True)


@contextlib.contextmanager
def _part(target: pathlib.Path) -> Iterator[tuple[pathlib.Path, BinaryIO]]:
    """The unfinished download, opened for this process alone.

    It is the resumable part of the target, or, while another process is at work on that one, a
    part of our own that is thrown away if it does not become the target.
    """
    shared = target.with_name(f"{target.name}.part")
    file = _open_locked(shared)
    if file is not None:
        with file:
            try:
                yield shared, file
            finally:
                if os.fstat(file.fileno()).st_size == 0:
                    shared.unlink(missing_ok=True)
        return
    own = target.with_name(f"{target.name}.part.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with own.open("x+b") as file:
            yield own, file
    finally:
        own.unlink(missing_ok=True)


def _open_locked(path: pathlib.Path) -> BinaryIO | None:
    """Opens a file under an exclusive lock; ``None`` while another holds it."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its former owner may have renamed it into place before we got the lock.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            file.close()
        except OSError as error:
            file.close()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.ENOLCK, errno.EOPNOTSUPP):
                return None
            raise
        except BaseException:
            file.close()
            raise


def _put_in_place(part: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a checked file to its final name and records its sha256 beside it."""
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    with _directory_lock(target.parent):
        # In this order: a file without a recorded digest is merely unchecked, a file with that
        # of its predecessor would be refused.
        digest_path(target).unlink(missing_ok=True)
        part.replace(target)
        write_atomically(digest_path(target), f"{digest}  {target.name}\n".encode())


@contextlib.contextmanager
def _directory_lock(directory: pathlib.Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
