"""VeLO weights as PyLO converted them for PyTorch: a pair of safetensors files, to named arrays.

Boundary: bytes in, arrays out; no files. Input is untrusted, as in ``container``.

A safetensors file is a 64-bit little-endian length, a JSON header of that length with dtype, shape
and byte range of every tensor, and the bytes; see
https://github.com/huggingface/safetensors#format. PyLO (https://github.com/Belilovsky-Lab/pylo)
stores matrices transposed, as [outputs, inputs], and the first layer of the bank as one tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from timetrial.optimizers.velo import layout
from timetrial.optimizers.velo.layout import Path, WeightsError
from timetrial.optimizers.velo.weights.container import Float32Arrays, validate

_MAX_HEADER_BYTES = 1 << 16
_LENGTH_BYTES = 8
_DTYPES = {"F32": "<f4"}

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
"""PyLO's work space, stored along: the network last mixed from the bank. Of no meaning to us."""


def is_safetensors(data: bytes) -> bool:
    """Whether ``data`` begins like a safetensors file, whose header is a JSON object."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    return data[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and length <= len(data) - _LENGTH_BYTES


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
    lstm, bank = _parse(first, "first file"), _parse(second, "second file")
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


def _parse(data: bytes, where: str) -> dict[str, np.ndarray[Any, Any]]:
    """Tensors of a safetensors file by name, as views of ``data``."""
    header, body = _split(data, where)
    header.pop("__metadata__", None)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    ranges: list[tuple[int, int]] = []
    for name, entry in header.items():
        tensors[name], span = _tensor(entry, body, f"{where}: {layout.show([name])}")
        ranges.append(span)
    end = 0
    for begin, stop in sorted(ranges):
        if begin != end:
            raise WeightsError(f"{where}: byte ranges overlap or leave a gap at byte {end:,}")
        end = stop
    if end != len(body):
        raise WeightsError(f"{where}: expected {end:,} bytes of tensors, got {len(body):,}")
    return tensors


def _split(data: bytes, where: str) -> tuple[dict[str, Any], memoryview]:
    if not is_safetensors(data):
        raise WeightsError(f"{where}: expected a safetensors file, got {len(data):,} other bytes")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > _MAX_HEADER_BYTES:
        raise WeightsError(
            f"{where}: expected a header of at most {_MAX_HEADER_BYTES:,} bytes, got {length:,}"
        )
    try:
        header = json.loads(
            data[_LENGTH_BYTES : _LENGTH_BYTES + length].decode("utf-8"),
            object_pairs_hook=_unique,
        )
    except WeightsError as error:
        raise WeightsError(f"{where}: {error}") from None
    except RecursionError:
        raise WeightsError(f"{where}: header nested too deeply") from None
    except ValueError as error:
        raise WeightsError(f"{where}: the header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{where}: expected a JSON object, got {type(header).__name__}")
    return header, memoryview(data)[_LENGTH_BYTES + length :]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise WeightsError("a name occurs twice in the header")
    return made


def _tensor(
    entry: Any, body: memoryview, where: str
) -> tuple[np.ndarray[Any, Any], tuple[int, int]]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"{where}: expected dtype, shape and data_offsets")
    name, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(name, str) or name not in _DTYPES:
        got = layout.show([name]) if isinstance(name, str) else type(name).__name__
        raise WeightsError(f"{where}: expected dtype F32, got {got}")
    if not _whole(shape, 8) or 0 in shape:
        raise WeightsError(f"{where}: expected a shape of at most 8 whole numbers from 1 to 2^63")
    if not _whole(span, 2) or len(span) != 2 or not span[0] <= span[1] <= len(body):
        raise WeightsError(f"{where}: expected data_offsets [begin, end] within {len(body)} bytes")
    dtype = np.dtype(_DTYPES[name])
    begin, end = span
    needed = math.prod(shape) * dtype.itemsize
    if needed != end - begin:
        raise WeightsError(
            f"{where}: shape {tuple(shape)} of F32 needs {needed} bytes, got {end - begin}"
        )
    return np.frombuffer(body[begin:end], dtype).reshape(shape), (begin, end)


def _whole(values: Any, at_most: int) -> bool:
    """Whether ``values`` is a list of sizes or offsets that arithmetic can be trusted with."""
    return (
        isinstance(values, list)
        and len(values) <= at_most
        and all(type(v) is int and 0 <= v < 2**63 for v in values)
    )
