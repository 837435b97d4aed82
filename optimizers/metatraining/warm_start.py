"""Meta-parameters made by hand: an untrained optimizer that behaves like Adam.

Pure: NumPy arrays of any hidden and bank size. Meta-training from random ones takes far longer than
a CPU allows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from timetrial.optimizers.velo import layout
from timetrial.optimizers.velo.layout import Path

Array = np.ndarray[Any, np.dtype[np.float64]]

_PARAMETER, _MOMENTUM_OVER_RMS, _MOMENTUM_OVER_FACTORS = 2, 5, 13
_BANK_SCALE = 100.0
_DIVERSITY = 0.02

_TIME = slice(2, 7)
_ONE_AXIS = 20
_MOMENTUM_VARIANCE = 24
"""Features of a tensor: tanh(10 (t - tau)) of the share t of training that is over, for tau = 0.2,
0.4, 0.6, 0.8 and 0.9; whether it is a vector; half the logarithm of ten times the variance of its
momentum in units of its own root mean square, cut to [-2.5, 2.5]."""

_SHRINKAGE = 0.08
_STEP_SIZE = 10.0
_DECAY = 0.95
_BOOST, _BOOST_OF_SMALL = 10.0, 60.0
_CLOCK_STEPS, _CLOCK_DAMPING = 1_000.0, 0.3
_SHARPLY = np.tanh(1.0) * 0.9526
"""Largest hidden value of a unit of ``_detectors``: output gate sigmoid(3), cell at most 1."""


def warm_start(hidden_size: int, bank_size: int, seed: int) -> dict[str, Any]:
    """Nested meta-parameters with the released names, float32.

    Every bank entry is nearly the same MLP, whose first output is the average of two inputs:
    the fastest momentum over the root of the second moment, per element as in Adam and factored
    as in Adafactor. A small share of the parameter itself is added, which is weight decay: relative
    steps are partly noise, and without it tensors grow without bounds in long trainings. ReLUs pass
    one sign only, so one pair of hidden units carries the positive part, one the negative. Controls
    are about 1.

    Steps begin at about 2 % of the scale of a tensor and fall to nothing at the end of training.
    After a thousand updates they are also halved, because long trainings need smaller steps.
    Tensors that are small against their momentum take larger steps: relative steps alone would
    hardly move biases and norms that begin at 0, or heads and embeddings that begin small.

    Args:
        hidden_size: H, >= 4.
        bank_size: K, >= 1.
        seed: of everything that is random, >= 0.
    """
    rng = np.random.default_rng(seed)
    flat: dict[Path, Array] = {}
    for path, shape in layout.shapes(hidden_size, bank_size).items():
        if path[0] == "ff_mod_stack":
            made = np.broadcast_to(_mlp(path[-1], shape), shape) / _BANK_SCALE
            made = made + _DIVERSITY / _BANK_SCALE * rng.standard_normal(shape)
        elif path[-1] == "w":
            made = rng.standard_normal(shape) / np.sqrt(shape[0]) * _damping(path[1])
        else:
            made = np.full(shape, 1.0 if path[1] == "rnn_to_controls" else 0.0)
        flat[path] = made
    _detectors({path[1:]: made for path, made in flat.items() if path[0] == "rnn_params"})
    return layout.nest({path: np.asarray(made, np.float32) for path, made in flat.items()})


def _mlp(name: str, shape: tuple[int, ...]) -> Array:
    """One tensor of the MLP that all bank entries share, (1, ...)."""
    made = np.zeros((1, *shape[1:]))
    if name in (f"w0__{_MOMENTUM_OVER_RMS}", f"w0__{_MOMENTUM_OVER_FACTORS}"):
        made[0, 0] = (0.5, -0.5, 0.5, -0.5)
    elif name == f"w0__{_PARAMETER}":
        made[0, 0] = (_SHRINKAGE, -_SHRINKAGE, _SHRINKAGE, -_SHRINKAGE)
    elif name == "w1":
        made[0] = np.eye(shape[1])
    elif name == "w2":
        made[0, :, 0] = (0.5, -0.5, 0.5, -0.5)
    return made


def _damping(layer: str) -> float:
    """Scale of a layer's random weights; controls and step sizes begin nearly constant."""
    return {"rnn_to_controls": 0.1, "step_size": 0.1}.get(layer, 1.0)


def _detectors(layers: dict[Path, Array]) -> None:
    """Makes four hidden units by hand: time, small tensors, very small tensors, a clock.

    The first three depend on the current features, not on other tensors and hardly on the past.
    They change the step size: the first lowers it by ``_DECAY`` over the training, the others raise
    it as their tensor gets small. The clock has no input: its cell counts updates and damps all
    controls; the MLP's output is proportional to their cube.
    """
    late, small, smaller, nothing = np.zeros((4, layout.TENSOR_FEATURES))
    late[_TIME] = 0.3
    small[_MOMENTUM_VARIANCE] = 1.0
    smaller[_MOMENTUM_VARIANCE], smaller[_ONE_AXIS] = 2.0, 1.0
    own, gates = layers["linear_2", "w"], layers["rnn/linear", "w"]
    width = own.shape[1]
    # Biases of the input, candidate, forget and output gate.
    present = (3.0, 0.0, -4.0, 3.0)
    tick = 2.0 / _CLOCK_STEPS * (1.0 + np.exp(3.0))  # the cell goes to 2
    counting = (-3.0, np.arctanh(tick), np.log(_CLOCK_STEPS - 1.0) - 1.0, 3.0)
    units = [
        (late, 0.0, present),
        (small, 1.0, present),
        (smaller, -3.0, present),
        (nothing, 0.0, counting),
    ]
    for unit, (weights, bias, biases) in enumerate(units):
        own[:, unit], layers["linear_2", "b"][unit] = weights, bias
        layers["linear_1", "w"][:, unit] = 0.0
        gates[:, unit::width] = 0.0
        gates[unit, width + unit] = 1.0
        layers["rnn/linear", "b"][unit::width] = biases
    end = 0.95 * np.tanh(np.tanh(1.5))
    layers["step_size", "w"][:4, 0] = (-_STEP_SIZE * _DECAY / end, _BOOST, _BOOST_OF_SMALL, 0.0)
    layers["step_size", "b"][:] = _STEP_SIZE + (_BOOST + _BOOST_OF_SMALL) * _SHARPLY
    layers["rnn_to_controls", "w"][3] = -_CLOCK_DAMPING
