"""The libraries of the extra ``[data]``, which only full-size data sets need.

Boundary: looks for installed packages; imports none of them.
"""

from __future__ import annotations

import importlib.util
from typing import Final

from timetrial.workloads.data.errors import DataError

LIBRARIES: Final = (
    "tensorflow_datasets",
    "importlib_resources",
    "array_record",
    "grain",
    "cv2",
    "simplejpeg",
    "isal",
    "h5py",
)
"""Modules of the extra ``[data]``. TensorFlow is not among them and is never needed."""


def missing_libraries() -> tuple[str, ...]:
    """Modules of ``LIBRARIES`` that are not installed."""
    return tuple(name for name in LIBRARIES if importlib.util.find_spec(name) is None)


def require_libraries(what: str) -> None:
    """Checks that the extra ``[data]`` is installed.

    Args:
        what: what needs it, the start of the message.

    Raises:
        DataError: a library is missing.
    """
    if missing := missing_libraries():
        raise DataError(
            f"{what}: expected the extra [data], found no {', '.join(missing)}; "
            "install it with: pip install 'timetrial[data]'"
        )
