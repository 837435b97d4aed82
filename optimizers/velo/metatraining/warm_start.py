"""Meta-parameters made by hand, with which the untrained optimizer already behaves like Adam.

Boundary: NumPy arrays of any hidden and bank size; from random ones meta-training takes far
longer than a CPU has time for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from optimizers.velo import layout
from optimizers.velo.layout import Path

_MOMENTUM_OVER_RMS, _MOMENTUM_OVER_FACTORS = 5, 13
_STEP_SIZE = 5.0
_BANK_SCALE = 100.0
_DIVERSITY = 0.02


def warm_start(hidden_size: int, bank_size: int, seed: int) -> dict[str, Any]:
    """Nested meta-parameters with the released names, float32.

    Every bank entry is nearly the same MLP, whose first output is the average of two inputs:
    the fastest momentum over the root of the second moment, per element as in Adam and factored
    as in Adafactor. One pair of hidden units carries the positive part, one the negative, for
    ReLUs pass only one sign. Controls are about 1, step sizes about 5: steps of about 0.5 % of
    the scale of a tensor.

    Args:
        hidden_size: H, >= 1.
        bank_size: K, >= 1.
        seed: of everything that is random, >= 0.
    """
    rng = np.random.default_rng(seed)
    flat: dict[Path, np.ndarray[Any, Any]] = {}
    for path, shape in layout.shapes(hidden_size, bank_size).items():
        if path[0] == "ff_mod_stack":
            made = np.broadcast_to(_mlp(path[-1], shape), shape) / _BANK_SCALE
            made = made + _DIVERSITY / _BANK_SCALE * rng.standard_normal(shape)
        elif path[-1] == "w":
            made = rng.standard_normal(shape) / np.sqrt(shape[0]) * _damping(path[1])
        else:
            made = np.full(shape, _bias(path))
        flat[path] = np.asarray(made, np.float32)
    return layout.nest(flat)


def _mlp(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """One tensor of the MLP that all bank entries share, (1, ...)."""
    made = np.zeros((1, *shape[1:]))
    if name in (f"w0__{_MOMENTUM_OVER_RMS}", f"w0__{_MOMENTUM_OVER_FACTORS}"):
        made[0, 0] = (0.5, -0.5, 0.5, -0.5)
    elif name == "w1":
        made[0] = np.eye(shape[1])
    elif name == "w2":
        made[0, :, 0] = (0.5, -0.5, 0.5, -0.5)
    return made


def _damping(layer: str) -> float:
    """Controls and step sizes begin nearly constant."""
    return {"rnn_to_controls": 0.1, "step_size": 0.3}.get(layer, 1.0)


def _bias(path: Path) -> float:
    return {"rnn_to_controls": 1.0, "step_size": _STEP_SIZE}.get(path[1], 0.0)
