"""VeLO's container: that of ``optimizers.weights`` with VeLO's names and shapes.

Boundary: bytes in, arrays out, and the reverse; no files. Input is untrusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from timetrial.optimizers.velo import layout
from timetrial.optimizers.velo.layout import Path
from timetrial.optimizers.weights import container
from timetrial.optimizers.weights.container import Container, Float32Arrays
from timetrial.optimizers.weights.layouts import VELO

__all__ = ["Container", "Float32Arrays", "decode", "encode", "validate"]


def decode(data: bytes) -> Container:
    """Reads VeLO's container of either form.

    Raises:
        WeightsError: ``data`` is truncated, corrupt, foreign, or no valid set of VeLO weights.
    """
    return container.decode(data, VELO)


def validate(arrays: Mapping[Path, np.ndarray[Any, Any]]) -> Float32Arrays:
    """Checks dtypes, shapes and values; returns read-only native float32 copies.

    Raises:
        WeightsError: a dtype is not float32, the shapes agree on no (H, K), or a value is NaN or
            infinite.
    """
    return container.validate(arrays, VELO)


def encode(arrays: Mapping[Path, np.ndarray[Any, Any]], gen_id: str, step: int) -> bytes:
    """The container of the released form; equal content gives equal bytes.

    Args:
        arrays: one array for every path of the layout, in any order.
        gen_id: name of the meta-training run, at most 256 bytes of UTF-8.
        step: meta-training steps made, 0 to 2^31 - 1.

    Raises:
        WeightsError: ``decode`` would refuse the result.
    """
    ordered = {path: arrays[path] for path in layout.PATHS}
    return container.encode(ordered, VELO, (gen_id, step))
