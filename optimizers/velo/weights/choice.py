"""Which VeLO weights a run uses: Google's when they have been fetched, otherwise the embedded ones.

Boundary: chooses and names files; ``checkpoint`` reads them, ``fetch`` downloads them.
"""

from __future__ import annotations

import os
import pathlib

from timetrial.framework.paths import PathError, user_path
from timetrial.optimizers.velo.layout import WeightsError
from timetrial.optimizers.velo.weights.checkpoint import Weights, load_weights, save_weights

__all__ = [
    "EMBEDDED_SHA256",
    "RELEASED_BYTES",
    "RELEASED_URL",
    "Weights",
    "WeightsError",
    "cache_directory",
    "embedded_weights",
    "find_weights",
    "google_weights",
    "google_weights_path",
    "has_google_weights",
    "load_weights",
    "save_weights",
]

RELEASED_URL = (
    "https://storage.googleapis.com/gresearch/learned_optimization/pretrained_lopts/"
    "aug12_continue_on_bigger_2xbs_200kstep_bigproblem_v2_5620/params"
)
"""Where Google published the weights of the VeLO paper."""

RELEASED_BYTES = 9_282_564
"""Size of the published file: hidden size 512, bank size 256."""

EMBEDDED_SHA256 = "29373c27740749d790c85d68bde0c9496f3f933807f7aaf714b11c006ae1ff57"
"""Digest of ``embedded/embedded.params``, which is described in ``embedded/CARD.md``."""

_EMBEDDED = pathlib.Path(__file__).parents[1] / "embedded" / "embedded.params"


def cache_directory() -> pathlib.Path:
    """Where fetched files go.

    ``$TIMETRIAL_CACHE``, else ``$XDG_CACHE_HOME/timetrial``, else ``~/.cache/timetrial``; empty
    variables count as unset.

    Raises:
        WeightsError: no variable says where, and this user has no home directory.
    """
    try:
        if own := os.environ.get("TIMETRIAL_CACHE"):
            return user_path(own)
        if shared := os.environ.get("XDG_CACHE_HOME"):
            return user_path(shared) / "timetrial"
        return user_path("~/.cache/timetrial")
    except PathError as error:
        raise WeightsError(
            "no cache directory: this user has no home directory; expected TIMETRIAL_CACHE=DIR"
        ) from error


def google_weights_path() -> pathlib.Path:
    """Where Google's weights are expected: ``velo/google/params`` in the cache directory."""
    return cache_directory() / "velo" / "google" / "params"


def has_google_weights() -> bool:
    """Whether Google's weights have been fetched; without a cache directory they have not."""
    try:
        return google_weights_path().exists()
    except WeightsError:
        return False


def google_weights() -> Weights:
    """Google's released weights.

    Raises:
        WeightsError: they have not been fetched, and what to do; or the cached file is damaged.
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
    """The small weights that come with the package; ``embedded/CARD.md`` says what they can do.

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
    """Google's weights if they have been fetched, otherwise the embedded ones.

    Raises:
        WeightsError: the weights that are to be used are damaged. Damaged weights of Google's
            are never quietly replaced by the embedded ones.
    """
    return google_weights() if has_google_weights() else embedded_weights()
