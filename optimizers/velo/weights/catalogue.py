"""The weights known by name: Google's, in the cache once fetched, and the embedded ones.

Boundary: names to files; ``formats`` reads them.
"""

from __future__ import annotations

import os
import pathlib

from timetrial.optimizers.velo.layout import WeightsError
from timetrial.optimizers.velo.weights.formats import Weights, load_weights
from timetrial.optimizers.weights.catalogue import PUBLISHED, cache_directory, is_fetched

__all__ = [
    "EMBEDDED_SHA256",
    "RELEASED_BYTES",
    "RELEASED_URL",
    "cache_directory",
    "embedded_weights",
    "find_weights",
    "google_weights",
    "google_weights_path",
    "has_google_weights",
]

RELEASED_URL = PUBLISHED["velo"].url
"""Where Google published the weights of the VeLO paper."""

RELEASED_BYTES = PUBLISHED["velo"].size_bytes
"""Size of the published file: hidden size 512, bank size 256."""

EMBEDDED_SHA256 = "29373c27740749d790c85d68bde0c9496f3f933807f7aaf714b11c006ae1ff57"
"""Digest of ``embedded/embedded.params``, which ``embedded/CARD.md`` describes."""

_EMBEDDED = pathlib.Path(__file__).parents[1] / "embedded" / "embedded.params"


def google_weights_path() -> pathlib.Path:
    """Path of Google's weights: ``velo/google/params`` in the cache directory."""
    return PUBLISHED["velo"].path


def has_google_weights() -> bool:
    """Whether Google's weights have been fetched; without a cache directory they have not."""
    return is_fetched("velo")


def google_weights() -> Weights:
    """Google's released weights.

    Raises:
        WeightsError: they have not been fetched, or the cached file is damaged; the message says
            what to do.
    """
    path = google_weights_path()
    if not os.path.exists(path):
        raise WeightsError(
            f"Google's VeLO weights are not on this machine: run `timetrial fetch velo`, or "
            f"download {RELEASED_URL} and run `timetrial fetch velo --from FILE` or put it at "
            f"{path}"
        )
    try:
        return load_weights(path, source="google")
    except WeightsError as error:
        raise WeightsError(f"{error}; run `timetrial fetch velo` to replace it") from None


def embedded_weights() -> Weights:
    """The small weights that come with the package, described in ``embedded/CARD.md``.

    Raises:
        WeightsError: the installed file is missing or damaged.
    """
    weights = load_weights(_EMBEDDED, source="embedded")
    if weights.sha256 != EMBEDDED_SHA256:
        raise WeightsError(
            f"{_EMBEDDED}: the file has changed: expected sha256 {EMBEDDED_SHA256}, got "
            f"{weights.sha256}; install timetrial again"
        )
    return weights


def find_weights() -> Weights:
    """Google's weights where they have been fetched, otherwise the embedded ones.

    Raises:
        WeightsError: the chosen file is damaged. Damaged weights of Google's are never replaced
            by the embedded ones without a word.
    """
    return google_weights() if has_google_weights() else embedded_weights()
