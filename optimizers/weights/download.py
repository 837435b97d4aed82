"""Downloads one file of limited size over HTTPS, resuming and retrying, with the standard library.

Boundary: an open file and a URL; knows neither the file's format nor its place.
"""

from __future__ import annotations

import dataclasses
import errno
import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, BinaryIO

from timetrial.framework.ranges import check

OnBytes = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all)."""

_CHUNK_BYTES = 1 << 16
_MIN_BYTES_PER_SECOND = 1000
_MAX_PAUSE_SECONDS = 30.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN})


class DownloadError(Exception):
    """The URL does not give the file; trying again at once would not help."""


class _AttemptError(Exception):
    """One attempt failed for a reason that may pass."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One file on a server, and the patience with the server.

    Attributes:
        url: HTTPS, or plain HTTP from this very machine.
        expected_bytes: exact size of the file, >= 1; ``None`` if only the server knows it.
        timeout_seconds: longest silence, and window over which 1 kB/s must be kept up, > 0.
        attempts: failures in a row without progress before giving up, >= 1.
        backoff_seconds: pause after the first failure, >= 0; doubles each time, up to 30 s.
        max_bytes: limit of a size that only the server knows, >= 1.
    """

    url: str
    expected_bytes: int | None
    timeout_seconds: float
    attempts: int
    backoff_seconds: float
    max_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        _check_url(self.url)
        check(
            self,
            expected_bytes=">= 1",
            timeout_seconds="> 0",
            attempts=">= 1",
            backoff_seconds=">= 0",
            max_bytes=">= 1",
        )


@dataclasses.dataclass
class _Size:
    """Size of the file in bytes, once it is known."""

    total: int | None
    limit: int

    def learn(self, total: int) -> None:
        """Takes the server's word where the size is unknown, within the limit."""
        if self.total is None and total > self.limit:
            raise DownloadError(
                f"expected a file of at most {self.limit:,} bytes, the server has one of {total:,}"
            )
        self.total = total if self.total is None else self.total

    def of(self, received: int) -> str:
        """``received`` of all bytes, as messages show it."""
        return (
            f"{received:,} bytes" if self.total is None else f"{received:,} of {self.total:,} bytes"
        )


def _check_url(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    safe = parts.scheme == "https" and parts.hostname
    if not safe and (parts.scheme != "http" or parts.hostname not in _LOOPBACK):
        raise ValueError(f"expected a URL that begins with https://, got {url}")


def download(
    request: Request, file: BinaryIO, is_wrong: Callable[[], str | None], on_bytes: OnBytes | None
) -> None:
    """Completes a file that may hold the first part of the download already.

    Args:
        request: what to ask for.
        file: open for reading and writing; flushed before ``is_wrong`` is called.
        is_wrong: the fault of the complete file, or ``None``.
        on_bytes: called when an attempt starts and whenever bytes have arrived.

    Raises:
        DownloadError: the server is out of reach, refuses, or has something else. The file keeps
            its bytes where they are worth resuming from.
        OSError: the file cannot be written.
    """
    while True:
        from_scratch = _complete(request, file, on_bytes)
        file.flush()
        problem = is_wrong()
        if problem is None:
            return
        _empty(file)
        if from_scratch:
            raise DownloadError(f"the server sent something else: {problem}")
        # The part left by an earlier call may be wrong: once more, from the beginning.


def _complete(request: Request, file: BinaryIO, on_bytes: OnBytes | None) -> bool:
    """Asks until all bytes are there; returns whether any attempt began with an empty file."""
    most, failures, from_scratch = _size(file), 0, False
    size = _Size(request.expected_bytes, request.max_bytes)
    while size.total is None or _size(file) < size.total:
        start = _size(file)
        from_scratch |= start == 0
        try:
            _attempt(request, file, start, size, on_bytes)
        except _AttemptError as error:
            # A gain below 1 % is no progress: this bounds the attempts for any server.
            advanced = (_size(file) - most) * 100 >= (size.total or size.limit)
            failures = 1 if advanced else failures + 1
            most = max(most, _size(file))
            if failures >= request.attempts:
                count = request.attempts
                raise DownloadError(f"{error} (gave up after {count} attempts)") from None
            pause = request.backoff_seconds * 2 ** (failures - 1)
            time.sleep(min(pause, _MAX_PAUSE_SECONDS))
    return from_scratch


def _size(file: BinaryIO) -> int:
    return file.seek(0, 2)


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _attempt(
    request: Request, file: BinaryIO, start: int, size: _Size, on_bytes: OnBytes | None
) -> None:
    """Asks once for the missing bytes and appends them to the file."""
    reply = _open(request, start)
    if reply is None:
        _empty(file)
        raise _AttemptError(f"the server does not have the bytes from {start:,} on")
    with reply:
        if not _continues(reply, start, size):
            _empty(file)
            start = 0
        if on_bytes is not None:
            on_bytes(start, size.total or start)
        _receive(request, reply, file, start, size, on_bytes)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        try:
            _check_url(newurl)
        except ValueError as error:
            fp.close()
            raise DownloadError(f"the server redirects elsewhere: {error}") from None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: Request, start: int) -> http.client.HTTPResponse | None:
    """The server's answer to a request from ``start`` on; ``None`` if that is beyond the end."""
    headers = {"User-Agent": "timetrial", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        reply: http.client.HTTPResponse = urllib.request.build_opener(_SafeRedirects).open(
            urllib.request.Request(request.url, headers=headers), timeout=request.timeout_seconds
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:
            return None
        message = f"the server answers {error.code} {error.reason}"
        raise (_AttemptError if error.code in _TRANSIENT else DownloadError)(message) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, socket.gaierror) or getattr(reason, "errno", None) in _NO_ROUTE:
            raise DownloadError(f"no network: {reason}") from None
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"the server cannot prove its identity: {reason}") from None
        raise _AttemptError(f"no answer from the server: {reason}") from None
    return reply


def _continues(reply: http.client.HTTPResponse, start: int, size: _Size) -> bool:
    """Whether the reply goes on from ``start``; otherwise it is the whole file.

    Raises:
        DownloadError: it is neither; the bytes received so far stay.
    """
    kind = reply.headers.get_content_type()
    if kind == "text/html":
        raise DownloadError("the server sends a web page instead of the file")
    if reply.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError("the server sends the file compressed, although asked not to")
    if reply.status == 206:
        _check_span(reply.headers.get("Content-Range", ""), start, size)
        return True
    if reply.status != 200:
        raise DownloadError(f"the server answers {reply.status} {reply.reason}")
    length = reply.headers.get("Content-Length", "").strip()
    if size.total is not None and length not in ("", str(size.total)):
        raise DownloadError(
            f"expected a file of {size.total:,} bytes, the server has one of {length:.20}"
        )
    if re.fullmatch(r"[0-9]{1,18}", length):
        size.learn(int(length))
    return start == 0


def _check_span(span: str, start: int, size: _Size) -> None:
    """Checks that a part begins at ``start`` and is one of the file."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d{1,18}|\*)", span.strip())
    totals = (found[2], "*") if found and size.total is None else (str(size.total), "*")
    if not found or int(found[1]) != start or found[2] not in totals:
        end = "the file" if size.total is None else f"{size.total}"
        raise DownloadError(
            f"expected bytes {start} to the end of {end}, got the range {span!r:.80}"
        )
    if found[2] != "*":
        size.learn(int(found[2]))


def _receive(
    request: Request,
    reply: http.client.HTTPResponse,
    file: BinaryIO,
    received: int,
    size: _Size,
    on_bytes: OnBytes | None,
) -> None:
    """Appends the reply's bytes to the ``received`` ones; gives up when they come too slowly."""
    file.seek(received)
    window_start, window_bytes = time.monotonic(), 0
    while chunk := _read(reply, size.of(received)):
        received += len(chunk)
        if received > (size.limit if size.total is None else size.total):
            _empty(file)
            most = f"at most {size.limit:,}" if size.total is None else f"{size.total:,}"
            raise DownloadError(f"expected a file of {most} bytes, got more")
        file.write(chunk)
        if on_bytes is not None:
            on_bytes(received, size.total or received)
        window_bytes += len(chunk)
        waited = time.monotonic() - window_start
        if waited > request.timeout_seconds:
            if window_bytes < waited * _MIN_BYTES_PER_SECOND:
                raise _AttemptError(f"the connection stalled after {size.of(received)}")
            window_start, window_bytes = time.monotonic(), 0
    size.learn(received)  # without a length, the end of the answer is the end of the file
    if size.total is not None and received < size.total:
        raise _AttemptError(f"the connection ended after {size.of(received)}")


def _read(reply: http.client.HTTPResponse, so_far: str) -> bytes:
    try:
        return reply.read1(_CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _AttemptError(f"the connection broke after {so_far}: {error}") from None
