"""Learned weights of Celo, Celo-Adam and Celo2 drawn from a seed, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from timetrial.optimizers.weights import layouts, trees

Flat = dict[trees.Path, np.ndarray[Any, np.dtype[np.float32]]]

HIDDEN = 8
"""LSTM width of the weights in tests; 64 in the published ones."""


def shapes_of(rule: str, hidden_size: int = HIDDEN) -> layouts.Shapes:
    """Shapes of the weights of ``celo``, ``celo_adam`` or ``celo2``."""
    if rule == "celo2":
        return layouts.celo2_shapes()
    return {"celo": layouts.celo_shapes, "celo_adam": layouts.celo_adam_shapes}[rule](hidden_size)


def flat_theta(rule: str, seed: int, hidden_size: int = HIDDEN) -> Flat:
    """Weights by path; spreads keep activations of order one and steps of a useful size."""
    rng = np.random.RandomState(seed)
    theta = {}
    for path, shape in sorted(shapes_of(rule, hidden_size).items()):
        spread = 0.3 if len(shape) == 1 or path[-1].startswith("b") else 1 / np.sqrt(shape[-2])
        values = spread * rng.standard_normal(shape)
        if path[0] == "ff_mod_stack" and path[-1] in ("w2", "b2"):
            values[..., 1] *= 60.0  # so that the magnitude, times 0.001, matters
        theta[path] = values.astype(np.float32)
    return theta


def theta(rule: str, seed: int = 0, hidden_size: int = HIDDEN) -> dict[str, Any]:
    """Weights as a nested mapping, keys sorted as in the published files."""
    return trees.nest(flat_theta(rule, seed, hidden_size))


def working_theta(rule: str) -> dict[str, Any]:
    """Weights of ``celo`` or ``celo_adam`` that train a small model: noise around Adam."""
    flat = {path: 0.02 * array for path, array in flat_theta(rule, 0).items()}
    steady: dict[tuple[str, int, int], float] = {}
    if rule == "celo":  # the momentum over its root mean square, through a pair of ReLUs
        steady = {("w0__5", 0, 0): 1, ("w0__5", 0, 1): -1, ("w1", 0, 0): 1, ("w1", 1, 1): 1}
        steady |= {("w2", 0, 0): 200, ("w2", 1, 0): -200}
    for (name, row, column), value in steady.items():
        flat["ff_mod_stack", "~", name][0, row, column] += value
    flat["rnn_params", "step_size", "b"] += 4.6 if rule == "celo_adam" else 0.0
    return trees.nest(flat)
