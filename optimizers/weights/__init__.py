"""Learned weights of VeLO, Celo, Celo-Adam and Celo2: files, published ones, their download.

Boundary: arrays and files; knows nothing of how an update is computed. Names are loaded lazily:
lists of optimizers need ``catalogue`` alone, without NumPy and flax.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_HOMES = {
    "catalogue": ("PUBLISHED", "is_fetched", "published"),
    "files": ("LearnedWeights", "load_celo", "load_celo2", "load_celo_adam", "save"),
    "trees": ("WeightsError",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Imports a name from its module (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
