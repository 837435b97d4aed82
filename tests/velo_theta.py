"""VeLO weights drawn from a seed by the rule that the golden vectors were computed with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from timetrial.optimizers.velo import layout

GOLDEN_NAME = {"/".join(path): path for path in layout.PATHS}


def theta_from_seed(seed: int, hidden_size: int, bank_size: int) -> dict[layout.Path, np.ndarray]:
    """Weights by path. One legacy generator, whose stream NumPy guarantees, serves all tensors in
    the order of their names as plain strings."""
    rng = np.random.RandomState(seed)
    shapes = layout.shapes(hidden_size, bank_size)
    theta = {}
    for name in sorted(GOLDEN_NAME):
        path = GOLDEN_NAME[name]
        mean, spread = _law(path, hidden_size, bank_size)
        values = mean + spread * rng.standard_normal(shapes[path])
        if path[-1] in ("w2", "b2"):
            values[..., 1] *= 60.0
        theta[path] = values.astype(np.float32)
    return theta


def _law(path: layout.Path, hidden_size: int, bank_size: int) -> tuple[float, float]:
    """Mean and standard deviation of a tensor."""
    bank = np.sqrt(bank_size) / 100.0 / 0.4
    layer, kind = path[-2], path[-1]
    if path[0] == "lstm_init_state":
        return 0.0, 0.3
    if path[0] == "ff_mod_stack":
        if kind.startswith("w0__"):
            return 0.0, bank * 1.5 / np.sqrt(30)
        return 0.0, bank * (0.7 if kind.startswith("w") else 0.3)
    if kind == "b":
        return {"step_size": (6.0, 0.5), "rnn_to_controls": (0.0, 0.3)}.get(layer, (0.0, 0.1))
    fan_in = {"rnn/linear": 2 * hidden_size, "rnn_to_controls": hidden_size}
    if layer == "step_size":
        return 0.0, 4 / np.sqrt(hidden_size)
    return 0.0, 1 / np.sqrt(fan_in.get(layer, 30))


def nested(theta: Mapping[layout.Path, np.ndarray]) -> dict[str, Any]:
    """The form in which ``velo`` takes weights."""
    return layout.nest(theta)
