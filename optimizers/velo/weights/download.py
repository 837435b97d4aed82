"""Downloads one file of known size over HTTPS, resuming and retrying, with the standard library.

Boundary: an open file and a URL; knows nothing of what is in the file, nor where it goes.
"""

from __future__ import annotations

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

Progress = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all)."""

_CHUNK_BYTES = 1 << 16
_MIN_BYTES_PER_SECOND = 1000
_MAX_PAUSE_SECONDS = 30.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN})


class DownloadError(Exception):
    """The file cannot be had from this URL; trying again at once would not help."""


class _AttemptError(Exception):
    """One attempt failed in a way that another one may not."""


def check_url(url: str) -> None:
    """Raises ``ValueError`` for anything but HTTPS, or plain HTTP from this very machine."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme != "http" or parts.hostname not in _LOOPBACK:
        raise ValueError(f"expected a URL that begins with https://, got {url}")


def download(
    url: str,
    file: BinaryIO,
    expected_bytes: int,
    *,
    check: Callable[[], str | None],
    progress: Progress | None,
    timeout_seconds: float,
    attempts: int,
    backoff_seconds: float,
) -> None:
    """Completes ``file``, which may hold the first part of the download already.

    Args:
        url: see ``check_url``.
        file: open for reading and writing; flushed before ``check`` is called.
        expected_bytes: exact size of the complete file.
        check: says what is wrong with the complete file, or ``None``.
        progress: called whenever bytes have arrived, and when an attempt starts.
        timeout_seconds: longest silence, and window over which 1 kB/s must be kept up.
        attempts: failures in a row, without progress, after which to give up.
        backoff_seconds: pause after the first of them; doubles each time, up to 30 s.

    Raises:
        DownloadError: the server is out of reach, refuses, or has something else. The file keeps
            what is worth resuming from.
        OSError: the file cannot be written.
    """
    most, failures, from_scratch = _size(file), 0, False
    while True:
        start = _size(file)
        from_scratch = from_scratch or start == 0
        if start < expected_bytes:
            try:
                _attempt(url, file, start, expected_bytes, progress, timeout_seconds)
            except _AttemptError as error:
                # A gain of less than 1 % is no progress, so that the number of attempts is
                # bounded whatever the server does.
                advanced = (_size(file) - most) * 100 >= expected_bytes
                failures = 1 if advanced else failures + 1
                most = max(most, _size(file))
                if failures >= attempts:
                    raise DownloadError(f"{error} (gave up after {attempts} attempts)") from None
                time.sleep(min(backoff_seconds * 2 ** (failures - 1), _MAX_PAUSE_SECONDS))
                continue
        file.flush()
        problem = check()
        if problem is None:
            return
        _empty(file)
        if from_scratch:
            raise DownloadError(f"the server sent something else: {problem}")
        # What an earlier call had left may have been at fault: once more, from the beginning.


def _size(file: BinaryIO) -> int:
    return file.seek(0, 2)


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _attempt(
    url: str,
    file: BinaryIO,
    start: int,
    expected_bytes: int,
    progress: Progress | None,
    timeout_seconds: float,
) -> None:
    """Asks once for what is missing and appends it to the file."""
    reply = _open(url, start, timeout_seconds)
    if reply is None:
        _empty(file)
        raise _AttemptError(f"the server does not have the bytes from {start:,} on")
    with reply:
        if not _continues(reply, start, expected_bytes):
            _empty(file)
            start = 0
        if progress is not None:
            progress(start, expected_bytes)
        _receive(reply, file, start, expected_bytes, progress, timeout_seconds)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        try:
            check_url(newurl)
        except ValueError as error:
            fp.close()
            raise DownloadError(f"the server redirects elsewhere: {error}") from None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, start: int, timeout_seconds: float) -> http.client.HTTPResponse | None:
    """The server's answer to a request from ``start`` on; ``None`` if that is beyond the end."""
    headers = {"User-Agent": "timetrial", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        reply: http.client.HTTPResponse = urllib.request.build_opener(_SafeRedirects).open(
            request, timeout=timeout_seconds
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


def _continues(reply: http.client.HTTPResponse, start: int, expected_bytes: int) -> bool:
    """Whether the reply goes on from ``start``; otherwise it is the whole file.

    Raises:
        DownloadError: it is neither; whatever we have got so far stays.
    """
    length, kind = reply.headers.get("Content-Length"), reply.headers.get_content_type()
    if kind == "text/html":
        raise DownloadError("the server sends a web page instead of the file")
    if reply.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError("the server sends the file compressed, which it was asked not to do")
    if reply.status == 206:
        span = reply.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", span.strip())
        if not found or int(found[1]) != start or found[2] not in (str(expected_bytes), "*"):
            raise DownloadError(
                f"expected bytes {start} to the end of {expected_bytes}, got the range {span!r:.80}"
            )
        return True
    if reply.status != 200:
        raise DownloadError(f"the server answers {reply.status} {reply.reason}")
    if length is not None and length.strip() != str(expected_bytes):
        raise DownloadError(
            f"expected a file of {expected_bytes:,} bytes, the server has one of {length:.20}"
        )
    return start == 0


def _receive(
    reply: http.client.HTTPResponse,
    file: BinaryIO,
    received: int,
    expected_bytes: int,
    progress: Progress | None,
    timeout_seconds: float,
) -> None:
    file.seek(received)
    window_start, window_bytes = time.monotonic(), 0
    while True:
        try:
            chunk = reply.read1(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _AttemptError(
                f"the connection broke after {received:,} of {expected_bytes:,} bytes: {error}"
            ) from None
        if not chunk:
            break
        received += len(chunk)
        if received > expected_bytes:
            _empty(file)
            raise DownloadError(f"expected a file of {expected_bytes:,} bytes, got more")
        file.write(chunk)
        if progress is not None:
            progress(received, expected_bytes)
        window_bytes += len(chunk)
        waited = time.monotonic() - window_start
        if waited > timeout_seconds:
            if window_bytes < waited * _MIN_BYTES_PER_SECOND:
                raise _AttemptError(
                    f"the connection stalled after {received:,} of {expected_bytes:,} bytes"
                )
            window_start, window_bytes = time.monotonic(), 0
    if received < expected_bytes:
        raise _AttemptError(f"the connection ended after {received:,} of {expected_bytes:,} bytes")
