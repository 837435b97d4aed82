"""VeLO's weights: file formats, the weights known by name, and the download of Google's.

Boundary: arrays and files; knows nothing of how an update is computed.
"""

from __future__ import annotations

from timetrial.optimizers.velo.layout import WeightsError
from timetrial.optimizers.velo.weights.catalogue import (
    embedded_weights,
    find_weights,
    google_weights,
    google_weights_path,
    has_google_weights,
)
from timetrial.optimizers.velo.weights.formats import Weights, load_weights, save_weights

__all__ = [
    "Weights",
    "WeightsError",
    "embedded_weights",
    "find_weights",
    "google_weights",
    "google_weights_path",
    "has_google_weights",
    "load_weights",
    "save_weights",
]
