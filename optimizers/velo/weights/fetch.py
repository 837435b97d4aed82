"""Fetches Google's released VeLO weights into the cache.

Boundary: arguments; ``optimizers.weights.place`` does the work.
"""

from __future__ import annotations

import os
import pathlib

from timetrial.optimizers.velo.weights.catalogue import RELEASED_BYTES, RELEASED_URL
from timetrial.optimizers.weights.catalogue import PUBLISHED
from timetrial.optimizers.weights.download import OnBytes
from timetrial.optimizers.weights.place import FetchError, bring, make_fetch

__all__ = ["LICENCE_NOTE", "FetchError", "fetch_velo"]

LICENCE_NOTE = PUBLISHED["velo"].licence
"""Shown before the weights are fetched."""


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
        FetchError: as for ``optimizers.weights.place.bring``.
        ValueError: an argument is out of range.
    """
    fetch = make_fetch(
        PUBLISHED["velo"],
        url=url,
        target=None if destination is None else pathlib.Path(destination),
        timeout_seconds=timeout_seconds,
        attempts=attempts,
        backoff_seconds=backoff_seconds,
        expected_bytes=expected_bytes,
    )
    bring(fetch, source_file=source_file, progress=progress)
    return fetch.target
