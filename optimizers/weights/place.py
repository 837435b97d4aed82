"""Fetches one file of weights into its place, from the network or from a copy.

Boundary: one file; ``fetch`` adds what belongs beside it. POSIX only (file locks).

A download goes to ``<destination>.part``, which a later call resumes. The complete part is checked
for its size and digest where they are known, loaded, and renamed into place with its sha256
recorded beside it: the file in place is always whole. Processes that fetch at the same time do not
share a part; the second one downloads into its own.

Pooch would not do: it neither resumes nor limits sizes or stalls, tries a 404 again, follows a
redirect to plain HTTP, and its check needs a published hash, which these weights lack.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from timetrial.optimizers.weights.catalogue import Published
from timetrial.optimizers.weights.download import DownloadError, OnBytes, Request, download
from timetrial.optimizers.weights.files import MAX_FILE_BYTES, load, record_digest
from timetrial.optimizers.weights.trees import WeightsError, one_line


class FetchError(UserError, RuntimeError):
    """The weights could not be fetched; the one-line message says why and what to do instead."""


@dataclasses.dataclass(frozen=True)
class Fetch:
    """What to fetch, and where to.

    Attributes:
        entry: the published weights.
        request: as for ``download``.
        target: file to make.
        sha256: expected hex digest; "" if any valid file will do.
    """

    entry: Published
    request: Request
    target: pathlib.Path
    sha256: str = ""

    def problem(self, path: pathlib.Path) -> str | None:
        """Why a file cannot be the weights; ``None`` if it can."""
        expected = self.request.expected_bytes
        try:
            size = path.stat().st_size
            if expected is not None and size != expected:
                return f"{path}: expected {expected:,} bytes, got {size:,}"
            found = load(path, self.entry.layout).sha256
        except FileNotFoundError:
            return f"{path}: no such file"
        except WeightsError as error:
            return str(error)
        if self.sha256 not in ("", found):
            return f"{path}: expected sha256 {self.sha256}, got {found}"
        return None


def make_fetch(
    entry: Published,
    *,
    url: str | None = None,
    target: pathlib.Path | None = None,
    sha256: str = "",
    timeout_seconds: float = 30.0,
    attempts: int = 5,
    backoff_seconds: float = 1.0,
    expected_bytes: int | None = None,
) -> Fetch:
    """A fetch of published weights.

    Args:
        entry: the published weights.
        url: as in ``download.Request``; the entry's by default.
        target: file to make; the entry's place in the cache by default.
        sha256: as in ``Fetch``.
        timeout_seconds: as in ``download.Request``.
        attempts: as in ``download.Request``.
        backoff_seconds: as in ``download.Request``.
        expected_bytes: exact size of the file; by default the entry's where that is exact.

    Raises:
        ValueError: an argument is out of range, or the URL is not safe.
    """
    if expected_bytes is None and entry.exact:
        expected_bytes = entry.size_bytes
    if expected_bytes is not None and expected_bytes > MAX_FILE_BYTES:
        raise ValueError(f"expected_bytes: expected at most {MAX_FILE_BYTES}, got {expected_bytes}")
    request = Request(
        url if url is not None else entry.url,
        expected_bytes,
        timeout_seconds,
        attempts,
        backoff_seconds,
        MAX_FILE_BYTES,
    )
    return Fetch(entry, request, target or entry.path, sha256)


def bring(
    fetch: Fetch,
    *,
    source_file: str | os.PathLike[str] | None = None,
    progress: OnBytes | None = None,
    again: bool = False,
) -> bool:
    """Downloads weights, or copies them from a file, unless they are in place already.

    Args:
        fetch: what and where to; directories are made.
        source_file: a copy of the published file, for a machine without network; always copied.
        progress: called with (bytes so far, bytes in all) while bytes arrive.
        again: download even if valid weights are in place.

    Returns:
        Whether anything was downloaded.

    Raises:
        FetchError: no network, a server that refuses or has another file, a full disk, an
            unwritable directory, or a ``source_file`` that is not the published file. The file at
            the target stays; an interrupted download leaves only its part.
    """
    target = fetch.target
    with _fetch_errors(fetch):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a directory, expected a file", str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        if source_file is not None:
            _copy(fetch, pathlib.Path(source_file))
        elif again or fetch.problem(target) is not None:
            return _download(fetch, progress, again)
    return False


@contextlib.contextmanager
def _fetch_errors(fetch: Fetch) -> Iterator[None]:
    """Turns errors of the network and of the disk into a FetchError."""
    title, url, target = fetch.entry.title, fetch.request.url, fetch.target
    try:
        yield
    except DownloadError as error:
        raise FetchError(
            f"cannot fetch {title}'s weights: {one_line(error, 500)}; by other means: download "
            f"{url} and run `timetrial fetch {fetch.entry.name} --from FILE`, or put it at {target}"
        ) from error
    except OSError as error:
        where = error.filename or target
        raise FetchError(
            f"cannot write {title}'s weights: {where}: {error.strerror or error}; choose another "
            f"cache directory with TIMETRIAL_CACHE, or put {url} at {target} yourself"
        ) from error


def _download(fetch: Fetch, progress: OnBytes | None, again: bool) -> bool:
    with _part(fetch.target) as (part, file):
        if not again and fetch.problem(fetch.target) is None:
            return False  # another process made it while this one waited
        download(fetch.request, file, lambda: fetch.problem(part), progress)
        os.fsync(file.fileno())
        _put_in_place(part, fetch.target)
    return True


def _copy(fetch: Fetch, source: pathlib.Path) -> None:
    """Copies a file that the user brought, once it is known to be the weights."""
    try:
        problem = fetch.problem(source)
    except OSError as error:
        problem = f"{source}: cannot be read: {error.strerror}"
    if problem is not None:
        raise FetchError(f"not taken, this is not the file of {fetch.request.url}: {problem}")
    copy = _own_part(fetch.target)
    try:
        write_atomically(copy, source.read_bytes())
        problem = fetch.problem(copy)
        if problem is not None:  # the source changed while it was read
            raise FetchError(f"not taken: {problem}")
        _put_in_place(copy, fetch.target)
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
