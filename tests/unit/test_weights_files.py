"""Files of the weights of Celo, Celo-Adam and Celo2: read, told apart, refused, written."""

from __future__ import annotations

import hashlib
import pathlib
import tracemalloc
from typing import Any

import flax.serialization
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
from celo_theta import flat_theta, shapes_of, theta
from hypothesis import given
from hypothesis import strategies as st
from velo_files import FAST, SMALL, tensor

from timetrial.framework.errors import UserError
from timetrial.optimizers.velo.weights import load_weights
from timetrial.optimizers.weights import container, layouts, trees
from timetrial.optimizers.weights.catalogue import PUBLISHED, published
from timetrial.optimizers.weights.files import (
    LearnedWeights,
    load_celo,
    load_celo2,
    load_celo_adam,
    save,
)
from timetrial.optimizers.weights.trees import WeightsError

SEED21 = pathlib.Path(__file__).parents[1] / "fixtures" / "celo2" / "container_seed21.theta_state"
"""Random weights of ours, written by flax from the reference's own structure."""

LOADERS = {"celo": load_celo, "celo_adam": load_celo_adam, "celo2": load_celo2}
TITLES = {"celo": "Celo", "celo_adam": "Celo-Adam", "celo2": "Celo2", "velo": "VeLO"}
LAYOUTS = {"celo": layouts.CELO, "celo_adam": layouts.CELO_ADAM, "celo2": layouts.CELO2}
RULES = tuple(LOADERS)


def leaves(weights: LearnedWeights, rule: str) -> dict[trees.Path, np.ndarray[Any, Any]]:
    return LAYOUTS[rule].flatten(weights.meta_params)


def written(path: pathlib.Path, rule: str, seed: int = 0) -> pathlib.Path:
    path.write_bytes(flax.serialization.to_bytes(theta(rule, seed)))
    return path


def test_a_container_of_the_reference() -> None:
    """The numbers follow the documented seed rule, restated here for two arrays."""
    weights = load_celo2(SEED21)
    assert weights.sha256 == hashlib.sha256(SEED21.read_bytes()).hexdigest()
    assert weights.source == "file"
    rng = np.random.RandomState(21)
    expected: dict[str, Any] = {}
    for name, shape in sorted((p[-1], s) for p, s in shapes_of("celo2").items()):
        expected[name] = rng.standard_normal(shape)
    found = weights.meta_params["ff_mod_stack"]["~"]
    np.testing.assert_array_equal(found["b0"], (0.3 * expected["b0"]).astype(np.float32))
    np.testing.assert_array_equal(found["w0__9"], (0.35 * expected["w0__9"]).astype(np.float32))
    for array in found.values():
        assert array.dtype == np.float32
        assert not array.flags.writeable


def test_saving_reproduces_the_reference_byte_for_byte(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "copy", load_celo2(SEED21).meta_params)
    assert (tmp_path / "copy").read_bytes() == SEED21.read_bytes()
    assert SEED21.stat().st_size == 1833


@pytest.mark.parametrize("rule", RULES)
def test_saving_gives_the_bytes_of_flax_in_any_order_of_keys(
    tmp_path: pathlib.Path, rule: str
) -> None:
    flat = flat_theta(rule, 3)
    for tree in (trees.nest(flat), trees.nest({p: jnp.asarray(flat[p]) for p in reversed(flat)})):
        save(tmp_path / "new", tree)
        assert (tmp_path / "new").read_bytes() == flax.serialization.to_bytes(tree)
        for path, array in leaves(LOADERS[rule](tmp_path / "new"), rule).items():
            np.testing.assert_array_equal(array, flat[path])


@pytest.mark.parametrize(
    ("rule", "name", "numbers"),
    [("celo", "celo", 37_089), ("celo_adam", "celo-adam", 36_865), ("celo2", "celo2", 347)],
)
def test_published_sizes(tmp_path: pathlib.Path, rule: str, name: str, numbers: int) -> None:
    """The published LSTM width gives the published number of weights and of bytes."""
    flat = flat_theta(rule, 0, hidden_size=64)
    assert sum(array.size for array in flat.values()) == numbers
    save(tmp_path / "new", trees.nest(flat))
    assert (tmp_path / "new").stat().st_size == PUBLISHED[name].size_bytes


@pytest.mark.parametrize("rule", RULES)
def test_the_form_with_a_wrapper(tmp_path: pathlib.Path, rule: str) -> None:
    data = container.encode(flat_theta(rule, 1), LAYOUTS[rule], ("run", 7))
    (tmp_path / "wrapped").write_bytes(data)
    assert set(leaves(LOADERS[rule](tmp_path / "wrapped"), rule)) == set(shapes_of(rule))


@pytest.mark.parametrize("wanted", RULES)
@pytest.mark.parametrize("given_rule", [*RULES, "velo"])
def test_files_of_another_rule_are_named(
    tmp_path: pathlib.Path, wanted: str, given_rule: str
) -> None:
    path = SMALL if given_rule == "velo" else written(tmp_path / "theta.state", given_rule)
    if wanted == given_rule:
        LOADERS[wanted](path)
        return
    with pytest.raises(WeightsError) as caught:
        LOADERS[wanted](path)
    message = str(caught.value)
    assert f"this is a {TITLES[given_rule]} file; expected a {TITLES[wanted]} file" in message
    assert f"use optimizer={given_rule}" in message
    assert "\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize("rule", RULES)
def test_velo_names_files_of_other_rules(tmp_path: pathlib.Path, rule: str) -> None:
    with pytest.raises(WeightsError, match=f"this is a {TITLES[rule]} file; expected a VeLO file"):
        load_weights(written(tmp_path / "theta.state", rule))


def test_a_damaged_file_of_another_rule_is_named_too(tmp_path: pathlib.Path) -> None:
    tree = theta("celo_adam")
    tree["rnn_params"]["step_size"]["b"] = np.full(1, np.nan, np.float32)
    (tmp_path / "x").write_bytes(flax.serialization.to_bytes(tree))
    with pytest.raises(WeightsError, match="this is a Celo-Adam file"):
        load_celo(tmp_path / "x")
    with pytest.raises(WeightsError, match="step_size/b: expected finite values, got nan"):
        load_celo_adam(tmp_path / "x")


def change(rule: str, path: tuple[str, ...], value: Any) -> bytes:
    """A valid container but for one node."""
    packed = {p: tensor(list(s)) for p, s in shapes_of(rule).items()}
    tree: Any = trees.nest(packed)
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    data: bytes = msgpack.packb(tree)
    return data


W1 = ("ff_mod_stack", "~", "w1")
CELL = ("lstm_init_state", "cell")


@pytest.mark.parametrize(
    ("rule", "path", "value", "match"),
    [
        ("celo2", W1, tensor([8, 7]), r"w1: expected shape \(8, 8\), got \(8, 7\)"),
        ("celo2", W1, tensor([1, 8, 8]), r"w1: expected shape \(8, 8\), got \(1, 8, 8\)"),
        ("celo2", W1, tensor([8, 8], "float64", b"\0" * 512), "dtype float32, got float64"),
        ("celo2", W1, tensor([8, 8], raw=b"\0" * 255), "needs 256 bytes, got 255"),
        ("celo2", W1, tensor([8, 8], raw=b"\0\0\x80\x7f" * 64), "finite values, got inf"),
        ("celo2", W1, {}, "expected a tensor, got a map"),
        ("celo2", ("ff_mod_stack", "~", "w0__14"), tensor([3, 8]), "unexpected w0__14"),
        ("celo2", ("ff_mod_stack",), 3, "ff_mod_stack: expected a map"),
        ("celo", W1, tensor([2, 4, 4]), r"w1: expected shape \(1, 4, 4\) \(hidden size 8"),
        ("celo", CELL, tensor([1, 9]), r"cell: expected shape \(1, 8\) \(hidden size 8"),
        ("celo_adam", CELL, tensor([2, 8]), r"cell: expected shape \(1, 8\)"),
        ("celo_adam", ("lstm_init_state", "hidden"), tensor([8]), r"shape \(1, hidden size\)"),
        ("celo_adam", ("rnn_params", "rnn_to_controls"), {}, "unexpected rnn_to_controls"),
    ],
)
def test_bad_nodes_are_refused(
    tmp_path: pathlib.Path, rule: str, path: Any, value: Any, match: str
) -> None:
    (tmp_path / "x").write_bytes(change(rule, path, value))
    with pytest.raises(WeightsError, match=match) as caught:
        LOADERS[rule](tmp_path / "x")
    assert str(tmp_path / "x") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "the container is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "pointer of Git LFS"),
        (b"<!doctype html>", "web page"),
        (b"\x02\0\0\0\0\0\0\0{}", "safetensors"),
        (b"PK\x03\x04", "zip archive"),
        (b"\x80\x04\x95", "Python pickle"),
        (b"\x81\xa1a" * 5000 + b"\x01", "nested too deeply"),
    ],
)
def test_foreign_files_are_refused(tmp_path: pathlib.Path, content: bytes, match: str) -> None:
    (tmp_path / "x").write_bytes(content)
    for load in LOADERS.values():
        with pytest.raises(WeightsError, match=match):
            load(tmp_path / "x")


def test_keys_that_occur_twice_are_refused(tmp_path: pathlib.Path) -> None:
    data = SEED21.read_bytes()
    assert data[0] == 0x81
    (tmp_path / "x").write_bytes(b"\x82" + data[1:] + data[1:])
    with pytest.raises(WeightsError, match="the key ff_mod_stack occurs twice"):
        load_celo2(tmp_path / "x")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
@pytest.mark.parametrize(
    "hostile",
    [
        b"\xdf\xff\xff\xff\xff" + b"\xa0" * 2_000_000,
        (b"\x8f" + b"\xa1a\x80" * 15) * 40_000,
        change("celo2", W1, tensor([2**31, 2**31], raw=b"")),
        change("celo2", W1, msgpack.ExtType(1, b"\x93\xdd\xff\xff\xff\xff" + b"\x01" * 2_000_000)),
        msgpack.packb({"ff_mod_stack": {"~": {b"k" * 2_000_000: tensor([1])}}}),
    ],
    ids=range(5),
)
def test_hostile_files_take_little_memory(layout: layouts.Layout, hostile: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError):
            container.decode(hostile, layout)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(hostile) + 2_000_000


def test_every_truncation_is_noticed() -> None:
    data = SEED21.read_bytes()
    for end in range(len(data)):
        with pytest.raises(WeightsError):
            container.decode(data[:end], layouts.CELO2)


@given(st.sampled_from(RULES), st.integers(0, 1_800), st.integers(1, 255))
@FAST
def test_flipped_bytes_change_one_number_or_are_refused(rule: str, offset: int, mask: int) -> None:
    flat = flat_theta(rule, 0)
    data = bytearray(container.encode(flat, LAYOUTS[rule]))
    data[offset] ^= mask
    try:
        found = container.decode(bytes(data), LAYOUTS[rule]).arrays
    except WeightsError:
        return
    assert sum(int(np.sum(found[path] != flat[path])) for path in flat) <= 1
    assert all(np.isfinite(array).all() for array in found.values())


@pytest.mark.parametrize(
    ("tree", "match"),
    [
        ({}, "expected the weights of one of VeLO, Celo, Celo-Adam, Celo2"),
        ({"ff_mod_stack": {"~": {"w0__0": 3}}}, "w0__0: expected an array, got int"),
        ({"ff_mod_stack": {"~": {"w0__0": np.zeros((1, 8))}}}, "names differ from Celo2's"),
        ({"other": np.zeros(3)}, "got other names"),
    ],
)
def test_saving_refuses_what_loading_would(
    tmp_path: pathlib.Path, tree: dict[str, Any], match: str
) -> None:
    with pytest.raises(WeightsError, match=match):
        save(tmp_path / "new", tree)
    wrong = theta("celo2")
    wrong["ff_mod_stack"]["~"]["b1"] = np.zeros(8)
    with pytest.raises(WeightsError, match="b1: expected dtype float32, got float64"):
        save(tmp_path / "new", wrong)
    assert not list(tmp_path.iterdir())


def test_published_weights(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMETRIAL_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    with pytest.raises(WeightsError) as caught:
        published("celo2")
    for part in (
        "timetrial fetch celo2",
        "https://huggingface.co/amoudgl/celo2/resolve/main/theta.state",
        str(tmp_path / "celo2" / "theta.state"),
    ):
        assert part in str(caught.value)
    (tmp_path / "celo2").mkdir()
    (tmp_path / "celo2" / "theta.state").write_bytes(SEED21.read_bytes())
    assert published("celo2").source == "celo2"
    (tmp_path / "celo2" / "theta.state").write_bytes(SEED21.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="run `timetrial fetch celo2` to replace it"):
        published("celo2")
    with pytest.raises(UserError, match=r"expected one of velo, celo2, .*, got 'celo3'"):
        published("celo3")
