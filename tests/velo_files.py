"""VeLO weights as files for tests: a small real one, random arrays, hand-made containers."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import msgpack
import numpy as np
from hypothesis import HealthCheck, settings

from timetrial.optimizers.velo import layout

FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "velo"
SMALL = FIXTURES / "ckpt_small.params"
FAST = settings(max_examples=200, suppress_health_check=list(HealthCheck))

Arrays = dict[layout.Path, np.ndarray[Any, Any]]


def arrays_of(hidden_size: int, bank_size: int, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        path: rng.standard_normal(shape).astype(np.float32)
        for path, shape in layout.shapes(hidden_size, bank_size).items()
    }


def tensor(
    shape: Any, dtype: Any = "float32", raw: Any = None, code: int = 1, tail: bytes = b""
) -> msgpack.ExtType:
    raw = b"\0" * (4 * math.prod(shape)) if raw is None else raw
    return msgpack.ExtType(code, msgpack.packb([shape, dtype, raw]) + tail)


def tree_of(hidden_size: int = 1, bank_size: int = 2) -> dict[str, Any]:
    """The wrapper map of a valid container, with packed tensors as leaves."""
    leaves = {p: tensor(list(s)) for p, s in layout.shapes(hidden_size, bank_size).items()}
    return {"params": layout.nest(leaves), "gen_id": "id", "step": 3}
