"""Learned weights of VeLO, Celo, Celo-Adam and Celo2: files, published ones, their download.

Boundary: arrays and files; knows nothing of how an update is computed.
"""

from __future__ import annotations

from timetrial.optimizers.weights.catalogue import PUBLISHED, is_fetched, published
from timetrial.optimizers.weights.files import (
    LearnedWeights,
    load_celo,
    load_celo2,
    load_celo_adam,
    save,
)
from timetrial.optimizers.weights.trees import WeightsError

__all__ = [
    "PUBLISHED",
    "LearnedWeights",
    "WeightsError",
    "is_fetched",
    "load_celo",
    "load_celo2",
    "load_celo_adam",
    "published",
    "save",
]
