"""VeLO weights as PyLO converted them for PyTorch: a pair of safetensors files, to named arrays.

Boundary: bytes in, arrays out; no files. Input is untrusted, as in ``container``.

PyLO (https://github.com/Belilovsky-Lab/pylo) stores matrices transposed, as [outputs, inputs], and
the first layer of the bank as one tensor.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from timetrial.optimizers.velo import layout
from timetrial.optimizers.velo.layout import Path, WeightsError
from timetrial.optimizers.velo.weights.container import Float32Arrays, validate

_MAX_HEADER_BYTES = 1 << 16
_LENGTH_BYTES = 8

_LAYERS = {
    "mix_layer1": "linear",
    "mix_layer2": "linear_1",
    "final_mix_layer": "linear_2",
    "lstm.linear": "rnn/linear",
    "rnn_to_controls": "rnn_to_controls",
    "step_size": "step_size",
}
_LSTM: dict[str, tuple[Path, bool]] = {
    "lstm_init_state.0": (("lstm_init_state", "hidden"), False),
    "lstm_init_state.1": (("lstm_init_state", "cell"), False),
    **{f"{theirs}.weight": (("rnn_params", ours, "w"), True) for theirs, ours in _LAYERS.items()},
    **{f"{theirs}.bias": (("rnn_params", ours, "b"), False) for theirs, ours in _LAYERS.items()},
}
"""Our path by PyLO's name, and whether PyLO stores the tensor transposed."""

_BANK: dict[str, tuple[str, bool]] = {
    "input_weights_": ("w0", True),
    "input_bias_": ("b0", False),
    "hidden_weights_.0": ("w1", True),
    "hidden_bias_.0": ("b1", False),
    "output_weights_": ("w2", True),
    "output_bias_": ("b2", False),
}
_SCRATCH = frozenset(name.replace("_.", ".").removesuffix("_") for name in _BANK)
"""PyLO's scratch tensors: the network last mixed from the bank, stored along and ignored here."""


def is_safetensors(data: bytes) -> bool:
    """Whether ``data`` begins like a safetensors file: a length, then a JSON object."""
    begins = data[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{"
    return begins and _header_bytes(data) <= len(data) - _LENGTH_BYTES


def _header_bytes(data: bytes) -> int:
    return int.from_bytes(data[:_LENGTH_BYTES], "little")


def decode_pair(first: bytes, second: bytes) -> tuple[bool, Float32Arrays]:
    """Reads PyLO's two files, in either order.

    Args:
        first: contents of ``VeLO_RNN``'s or of ``VeLO_MLP``'s safetensors file.
        second: contents of the other one.

    Returns:
        Whether ``first`` is VeLO_MLP's, and every tensor by path, in container order.

    Raises:
        WeightsError: a file is truncated, corrupt or foreign, or the two do not fit together.
    """
    lstm, bank = _tensors(first, "first file"), _tensors(second, "second file")
    swapped = "lstm.linear.weight" in bank
    if swapped:
        lstm, bank = bank, lstm
    _expect_names(lstm, _LSTM.keys(), frozenset(), "VeLO_RNN")
    _expect_names(bank, _BANK.keys(), _SCRATCH, "VeLO_MLP")
    arrays = {path: _turn(lstm[name], turn) for name, (path, turn) in _LSTM.items()}
    for name, (ours, turn) in _BANK.items():
        array = _turn(bank[name], turn)
        if ours == "w0":
            arrays |= _split_first_layer(array)
        else:
            arrays["ff_mod_stack", "~", ours] = array
    return swapped, validate({path: arrays[path] for path in layout.PATHS})


def _tensors(data: bytes, where: str) -> dict[str, np.ndarray[Any, Any]]:
    """Tensors of a safetensors file by name."""
    if not is_safetensors(data):
        raise WeightsError(f"{where}: expected a safetensors file, got {len(data):,} other bytes")
    if _header_bytes(data) > _MAX_HEADER_BYTES:
        raise WeightsError(
            f"{where}: expected a header of at most {_MAX_HEADER_BYTES:,} bytes, "
            f"got {_header_bytes(data):,}"
        )
    # Here, so that VeLO itself does not need the package.
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors: dict[str, np.ndarray[Any, Any]] = load(data)
    except KeyError as error:
        raise WeightsError(f"{where}: expected dtype F32, got {error.args[0]}") from None
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"{where}: corrupt or foreign: {layout.one_line(error)}") from None
    return tensors


def _turn(array: np.ndarray[Any, Any], turn: bool) -> np.ndarray[Any, Any]:
    return array.swapaxes(-1, -2) if turn and array.ndim >= 2 else array


def _split_first_layer(weights: np.ndarray[Any, Any]) -> dict[Path, np.ndarray[Any, Any]]:
    """One tensor (K, 30, 4) to the tensors (K, width, 4) of the feature groups."""
    inputs = sum(layout.FEATURE_WIDTHS)
    if weights.ndim != 3 or weights.shape[1] != inputs:
        raise WeightsError(
            f"VeLO_MLP: input_weights_: expected shape (bank size, {layout.MLP_WIDTH}, {inputs}), "
            f"got {_turn(weights, True).shape}"
        )
    parts = np.split(weights, np.cumsum(layout.FEATURE_WIDTHS)[:-1], axis=1)
    return {("ff_mod_stack", "~", f"w0__{j}"): part for j, part in enumerate(parts)}


def _expect_names(
    found: Mapping[str, Any], expected: Collection[str], ignored: frozenset[str], file: str
) -> None:
    missing = [name for name in expected if name not in found]
    unexpected = [n for n in found if n not in expected and n not in ignored]
    if missing or unexpected:
        raise WeightsError(
            f"{file}: names differ from PyLO's: missing {layout.some(missing)}, "
            f"unexpected {layout.some([layout.show([name]) for name in unexpected])}"
        )
