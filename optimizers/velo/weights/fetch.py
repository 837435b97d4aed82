"""Fetches Google's released VeLO weights into the cache: the command ``timetrial fetch velo``.

Boundary: the only module of the optimizer that talks to the network. POSIX only (file locks).

A download goes to ``<destination>.part``, which a later call resumes. The complete part is checked
for its exact size, loaded, and renamed into place with its sha256 recorded beside it: the file in
place is always whole. Processes that fetch at the same time do not share a part; the second one
downloads into its own.

Pooch would not do: it neither resumes nor limits sizes or stalls, tries a 404 again, follows a
redirect to plain HTTP, and its check needs a published hash, which these weights lack.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import BinaryIO

from timetrial.framework.checksums import digest_path
from timetrial.framework.errors import UserError
from timetrial.framework.files import write_atomically
from timetrial.optimizers.velo.layout import WeightsError, one_line
from timetrial.optimizers.velo.weights.catalogue import (
    RELEASED_BYTES,
    RELEASED_URL,
    google_weights_path,
)
from timetrial.optimizers.velo.weights.formats import (
    MAX_FILE_BYTES,
    load_weights,
    record_digest,
)
from timetrial.optimizers.weights.download import DownloadError, OnBytes, Request, download

__all__ = ["LICENCE_NOTE", "FetchError", "fetch_velo"]

LICENCE_NOTE = (
    "Google has not stated a licence for these weights (an open question upstream: "
    "https://github.com/google/learned_optimization/issues/272). They are fetched from Google's "
    "public bucket for your own use; timetrial neither contains nor redistributes them."
)
"""Shown before the weights are fetched."""


class FetchError(UserError, RuntimeError):
    """The weights could not be fetched; the one-line message says why and what to do instead."""


def fetch_velo(
    *,
    url: str = RELEASED_URL,
    destination: str | os.PathLike[str] | None = None,
    source_file: str | os.PathLike[str] | None = None,
    progress: OnBytes | None = None,
    timeout_seconds: float = 30.0,
    attempts: int = 5,
    backoff_seconds: float = 1.0,
    expected_bytes: int = RELEASED_BYTES,
) -> pathlib.Path:
    """Downloads the weights, or copies them from a file, unless they are in place already.

    Args:
        url: as in ``download.Request``.
        destination: file to make; ``google_weights_path()`` by default. Directories are made.
        source_file: a copy of the released file, for a machine without network; always copied.
        progress: called with (bytes so far, bytes in all) while bytes arrive.
        timeout_seconds: as in ``download.Request``.
        attempts: as in ``download.Request``.
        backoff_seconds: as in ``download.Request``.
        expected_bytes: exact size of the file.

    Returns:
        The destination, which holds valid weights.

    Raises:
        FetchError: no network, a server that refuses or has another file, a full disk, an
            unwritable directory, or a ``source_file`` that is not the released file. The file at
            the destination stays; an interrupted download leaves only its part.
    """
    target = pathlib.Path(destination) if destination is not None else google_weights_path()
    request = Request(url, expected_bytes, timeout_seconds, attempts, backoff_seconds)
    if expected_bytes > MAX_FILE_BYTES:
        raise ValueError(f"expected_bytes: expected at most {MAX_FILE_BYTES}, got {expected_bytes}")
    with _fetch_errors(url, target):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a directory, expected a file", str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        if source_file is not None:
            _copy(pathlib.Path(source_file), target, expected_bytes)
        elif _problem(target, expected_bytes) is not None:
            _download(request, target, progress)
    return target


@contextlib.contextmanager
def _fetch_errors(url: str, target: pathlib.Path) -> Iterator[None]:
    """Turns errors of the network and of the disk into a FetchError."""
    try:
        yield
    except DownloadError as error:
        raise FetchError(
            f"cannot fetch VeLO's weights: {one_line(error, 500)}; by other means: download {url} "
            f"and run `timetrial fetch velo --from FILE`, or put it at {target}"
        ) from error
    except OSError as error:
        where = error.filename or target
        raise FetchError(
            f"cannot write VeLO's weights: {where}: {error.strerror or error}; choose another "
            f"cache directory with TIMETRIAL_CACHE, or put {url} at {target} yourself"
        ) from error


def _problem(path: pathlib.Path, expected_bytes: int) -> str | None:
    """Why a file cannot be the weights; ``None`` if it can."""
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


def _download(request: Request, target: pathlib.Path, progress: OnBytes | None) -> None:
    with _part(target) as (part, file):
        if _problem(target, request.expected_bytes) is None:
            return  # another process made it while this one waited
        download(request, file, lambda: _problem(part, request.expected_bytes), progress)
        os.fsync(file.fileno())
        _put_in_place(part, target)


def _copy(source: pathlib.Path, target: pathlib.Path, expected_bytes: int) -> None:
    """Copies a file that the user brought, once it is known to be the weights."""
    try:
        problem = _problem(source, expected_bytes)
    except OSError as error:
        problem = f"{source}: cannot be read: {error.strerror}"
    if problem is not None:
        raise FetchError(f"not taken, this is not the file of {RELEASED_URL}: {problem}")
    copy = _own_part(target)
    try:
        write_atomically(copy, source.read_bytes())
        problem = _problem(copy, expected_bytes)
        if problem is not None:  # the source changed while it was read
            raise FetchError(f"not taken: {problem}")
        _put_in_place(copy, target)
    finally:
        copy.unlink(missing_ok=True)


def _own_part(target: pathlib.Path) -> pathlib.Path:
    """A name beside the target that no other process uses."""
    return target.with_name(f"{target.name}.part.{os.getpid()}.{secrets.token_hex(4)}")


@contextlib.contextmanager
def _part(target: pathlib.Path) -> Iterator[tuple[pathlib.Path, BinaryIO]]:
    """The unfinished download, opened for this process alone.

    It is the resumable part of the target. While another process holds that one, it is a part of
    this process, deleted unless it becomes the target.
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
    own = _own_part(target)
    try:
        with own.open("x+b") as file:
            yield own, file
    finally:
        own.unlink(missing_ok=True)


def _open_locked(path: pathlib.Path) -> BinaryIO | None:
    """Opens a file under an exclusive lock; ``None`` while another process holds it."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its former owner may have renamed it into place before this lock was granted.
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
    with _directory_lock(target.parent):
        # In this order: a file without a recorded digest is merely unchecked, a file with that
        # of its predecessor would be refused.
        digest_path(target).unlink(missing_ok=True)
        part.replace(target)
        record_digest(target)


@contextlib.contextmanager
def _directory_lock(directory: pathlib.Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
