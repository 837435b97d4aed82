"""PyLO's conversion of VeLO weights: equal when read; damaged files raise errors."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from velo_files import FAST, SMALL, arrays_of

from timetrial.optimizers.velo import layout
from timetrial.optimizers.velo.weights import WeightsError, load_weights, pylo


def equal(a: Any, b: Any) -> bool:
    return all(
        np.array_equal(x, y)
        for x, y in zip(layout.flatten(a).values(), layout.flatten(b).values(), strict=True)
    )


PYLO_LAYERS = {
    "mix_layer1": "linear",
    "mix_layer2": "linear_1",
    "final_mix_layer": "linear_2",
    "lstm.linear": "rnn/linear",
    "rnn_to_controls": "rnn_to_controls",
    "step_size": "step_size",
}


def safetensors(tensors: dict[str, Any], metadata: Any = None) -> bytes:
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    body = b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array, "<f4").tobytes()
        span = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": span}
        body += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def pylo_pair(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A tree converted to PyLO's names and orientation."""
    rnn = {
        "lstm_init_state.0": params["lstm_init_state"]["hidden"],
        "lstm_init_state.1": params["lstm_init_state"]["cell"],
    }
    for theirs, ours in PYLO_LAYERS.items():
        rnn[f"{theirs}.weight"] = params["rnn_params"][ours]["w"].T
        rnn[f"{theirs}.bias"] = params["rnn_params"][ours]["b"]
    bank = params["ff_mod_stack"]["~"]
    first = np.concatenate([bank[f"w0__{j}"] for j in range(14)], axis=1)
    mlp = {
        "input_weights_": first.transpose(0, 2, 1),
        "input_bias_": bank["b0"],
        "hidden_weights_.0": bank["w1"].transpose(0, 2, 1),
        "hidden_bias_.0": bank["b1"],
        "output_weights_": bank["w2"].transpose(0, 2, 1),
        "output_bias_": bank["b2"],
    }
    scratch = {
        "input_weights": (4, 30), "input_bias": (4,), "hidden_weights.0": (4, 4),
        "hidden_bias.0": (4,), "output_weights": (3, 4), "output_bias": (3,),
    }  # fmt: skip
    mlp |= {name: np.full(shape, 9.0) for name, shape in scratch.items()}
    return rnn, mlp


def write_pair(directory: pathlib.Path, rnn: bytes, mlp: bytes) -> list[pathlib.Path]:
    paths = [directory / "VeLO_RNN.safetensors", directory / "VeLO_MLP.safetensors"]
    for path, data in zip(paths, (rnn, mlp), strict=True):
        path.write_bytes(data)
    return paths


def test_pylo_pair_gives_the_same_weights(tmp_path: pathlib.Path) -> None:
    reference = load_weights(SMALL)
    rnn, mlp = (safetensors(part) for part in pylo_pair(reference.meta_params))
    paths = write_pair(tmp_path, rnn, mlp)
    for given_as in (tmp_path, paths, paths[::-1], [str(path) for path in paths]):
        weights = load_weights(given_as)
        assert equal(weights.meta_params, reference.meta_params)
        assert (weights.hidden_size, weights.bank_size, weights.source) == (32, 16, "file")
        assert (weights.gen_id, weights.step) == (None, None)
        assert weights.sha256 == hashlib.sha256(rnn + mlp).hexdigest()


def test_pylo_pair_as_two_checked_out_repositories(tmp_path: pathlib.Path) -> None:
    reference = load_weights(SMALL)
    for name, part in zip(("VeLO_RNN", "VeLO_MLP"), pylo_pair(reference.meta_params), strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(safetensors(part, {"format": "pt"}))
    assert equal(load_weights(tmp_path).meta_params, reference.meta_params)


def test_pylo_pair_has_the_published_number_of_bytes_of_tensors() -> None:
    rnn, mlp = pylo_pair(layout.nest(arrays_of(512, 256)))
    assert 4 * sum(np.size(a) for a in rnn.values()) == 9_119_908 - 1_184
    assert 4 * sum(np.size(a) for a in mlp.values()) == 164_296 - 844


def edit_header(data: bytes, edit: Callable[[dict[str, Any]], Any]) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def set_field(name: str, field: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header[name].__setitem__(field, value)


BIAS = "step_size.bias"


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda h: h.pop(BIAS), "file not fully covered|invalid offset"),
        (lambda h: h.__setitem__("extra", h.pop(BIAS)), "missing step_size.bias, unexpected extra"),
        (lambda h: h.__setitem__(BIAS, 3), "expected struct TensorInfo"),
        (set_field(BIAS, "dtype", "F64"), "invalid shape, data type, or offset"),
        (set_field(BIAS, "dtype", ["F32"]), "invalid JSON in header"),
        (set_field(BIAS, "dtype", "I32"), "expected dtype float32, got int32"),
        (lambda h: h[BIAS].update(dtype="BF16", shape=[2]), "expected dtype F32, got BF16"),
        (set_field(BIAS, "shape", [-1]), "expected usize"),
        (set_field(BIAS, "shape", [True]), "expected usize"),
        (set_field(BIAS, "shape", [0, 2**62]), "invalid shape"),
        (set_field(BIAS, "shape", [2**62, 2**62]), "overflow computing buffer size"),
        (set_field(BIAS, "shape", [10**4000]), "number out of range"),
        (set_field(BIAS, "shape", [1] * 9), r"expected shape \(1,\)"),
        (set_field(BIAS, "shape", [1] * 90), "corrupt or foreign: maximum supported dimension"),
        (set_field(BIAS, "data_offsets", [0, 4]), "invalid offset for tensor"),
        (set_field(BIAS, "data_offsets", [4, 0]), "invalid offset for tensor"),
        (set_field(BIAS, "data_offsets", [0, 2**40]), "invalid offset for tensor"),
        (set_field(BIAS, "data_offsets", [0.0, 4.0]), "expected usize"),
    ],
)
def test_bad_safetensors_headers_are_refused(
    tmp_path: pathlib.Path, edit: Callable[[dict[str, Any]], Any], match: str
) -> None:
    rnn, mlp = (safetensors(part) for part in pylo_pair(layout.nest(arrays_of(2, 3))))
    write_pair(tmp_path, edit_header(rnn, edit), mlp)
    with pytest.raises(WeightsError, match=match):
        load_weights(tmp_path)


@pytest.mark.parametrize(
    ("rnn", "match"),
    [
        (b"", "expected a safetensors file"),
        ((2**63).to_bytes(8, "little") + b"{}", "expected a safetensors file"),
        ((3).to_bytes(8, "little") + b"{x}", "invalid JSON in header"),
        ((3).to_bytes(8, "little") + b"{\xff}", "invalid UTF-8 in header"),
        ((60_005).to_bytes(8, "little") + b'{"a":' + b"[" * 60_000, "recursion limit exceeded"),
        ((70_000).to_bytes(8, "little") + b"{" + b" " * 69_999, "header of at most"),
        ((17).to_bytes(8, "little") + b'{"a": {},"a": {}}', "missing field `dtype`"),
        ((2).to_bytes(8, "little") + b"{}", "names differ from PyLO's"),
        ((2).to_bytes(8, "little") + b"{}rest", "file not fully covered"),
    ],
)
def test_bad_safetensors_files_are_refused(tmp_path: pathlib.Path, rnn: bytes, match: str) -> None:
    write_pair(tmp_path, rnn, safetensors(pylo_pair(layout.nest(arrays_of(2, 3)))[1]))
    with pytest.raises(WeightsError, match=match):
        load_weights(tmp_path)


def test_a_name_that_occurs_twice_is_refused(tmp_path: pathlib.Path) -> None:
    rnn, mlp = (safetensors(part) for part in pylo_pair(layout.nest(arrays_of(2, 3))))
    length = int.from_bytes(rnn[:8], "little")
    header = rnn[8 : 8 + length].replace(b"lstm_init_state.1", b"lstm_init_state.0")
    write_pair(tmp_path, rnn[:8] + header + rnn[8 + length :], mlp)
    with pytest.raises(WeightsError, match=r"invalid offset for tensor|missing lstm_init_state\.1"):
        load_weights(tmp_path)


def test_pairs_that_do_not_fit_are_refused(tmp_path: pathlib.Path) -> None:
    rnn, mlp = pylo_pair(layout.nest(arrays_of(2, 3)))
    paths = write_pair(tmp_path, safetensors(rnn), safetensors(mlp))
    with pytest.raises(WeightsError, match="one safetensors file: give the directory"):
        load_weights(paths[0])
    with pytest.raises(WeightsError, match="names differ"):
        load_weights([paths[0], paths[0]])
    with pytest.raises(WeightsError, match="two files"):
        load_weights(paths[:1])
    write_pair(tmp_path, safetensors(rnn), safetensors(pylo_pair(layout.nest(arrays_of(2, 4)))[1]))
    with pytest.raises(WeightsError, match="expected shape"):
        load_weights(tmp_path)
    paths[1].unlink()
    with pytest.raises(WeightsError, match="expected a file, or a directory with PyLO's pair"):
        load_weights(tmp_path)


@given(st.data())
@FAST
def test_flipped_bytes_of_a_pair_fail_or_change_one_number(data: st.DataObject) -> None:
    reference = arrays_of(1, 2)
    rnn, mlp = (bytearray(safetensors(part)) for part in pylo_pair(layout.nest(reference)))
    part = data.draw(st.sampled_from([rnn, mlp]))
    part[data.draw(st.integers(0, len(part) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        _, arrays = pylo.decode_pair(bytes(rnn), bytes(mlp))
    except WeightsError:
        return
    assert [a.shape for a in arrays.values()] == [a.shape for a in reference.values()]
    assert sum(np.sum(arrays[p] != reference[p]) for p in reference) <= 1
