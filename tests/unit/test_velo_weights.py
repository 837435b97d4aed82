"""VeLO weights as files: formats read, format written, and the weights chosen for a run."""

from __future__ import annotations

import hashlib
import os
import pathlib
import pickle
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from velo_files import FAST, FIXTURES, SMALL, Arrays, arrays_of, tensor, tree_of

from timetrial.optimizers.velo import layout, velo
from timetrial.optimizers.velo.weights import (
    WeightsError,
    container,
    embedded_weights,
    find_weights,
    google_weights,
    google_weights_path,
    load_weights,
    save_weights,
)
from timetrial.optimizers.velo.weights.catalogue import (
    EMBEDDED_SHA256,
    RELEASED_BYTES,
    RELEASED_URL,
    cache_directory,
)
from timetrial.optimizers.velo.weights.formats import MAX_FILE_BYTES


def equal(a: Any, b: Any) -> bool:
    return all(
        np.array_equal(x, y)
        for x, y in zip(layout.flatten(a).values(), layout.flatten(b).values(), strict=True)
    )


def test_released_form() -> None:
    weights = load_weights(SMALL)
    assert (weights.hidden_size, weights.bank_size) == (32, 16)
    assert (weights.source, weights.gen_id, weights.step) == ("file", "fake_initial_gen_id", 5620)
    assert weights.sha256 == hashlib.sha256(SMALL.read_bytes()).hexdigest()
    assert weights.sha256.startswith("f45d462b5241f93a")
    params = weights.meta_params
    assert params["rnn_params"]["rnn/linear"]["w"].shape == (64, 128)
    assert params["ff_mod_stack"]["~"]["w0__13"].shape == (16, 3, 4)
    for leaf in layout.flatten(params).values():
        assert leaf.dtype == np.float32
        assert leaf.flags.aligned
        assert not leaf.flags.writeable


def test_values_follow_the_seed_rule_of_the_fixtures() -> None:
    """The fixtures' numbers come from a documented rule, restated here for two tensors."""
    draws = np.random.RandomState(301)
    expected: dict[str, Any] = {}
    for path, shape in sorted(("/".join(p), s) for p, s in layout.shapes(32, 16).items()):
        expected[path] = draws.standard_normal(shape)
    params = load_weights(SMALL).meta_params
    hidden = (0.3 * expected["lstm_init_state/hidden"]).astype(np.float32)
    np.testing.assert_array_equal(params["lstm_init_state"]["hidden"], hidden)
    lstm = (expected["rnn_params/rnn/linear/w"] / np.sqrt(64)).astype(np.float32)
    np.testing.assert_allclose(params["rnn_params"]["rnn/linear"]["w"], lstm, rtol=1e-6)


def test_other_encodings_of_id_and_step() -> None:
    weights = load_weights(FIXTURES / "ckpt_small_intstep.params")
    assert (weights.gen_id, weights.step) == ("a" * 32, 5620)
    assert equal(weights.meta_params, load_weights(SMALL).meta_params)


def test_bare_form() -> None:
    weights = load_weights(FIXTURES / "ckpt_small.theta_state")
    assert (weights.gen_id, weights.step) == (None, None)
    assert equal(weights.meta_params, load_weights(SMALL).meta_params)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "uint64"])
@pytest.mark.parametrize("code", [1, 3])
def test_step_as_array_or_scalar_of_any_integer_type(dtype: str, code: int) -> None:
    raw = np.asarray(100, dtype).tobytes()
    tree = tree_of() | {"step": tensor([], dtype, raw, code)}
    assert container.decode(msgpack.packb(tree)).step == 100


def test_key_order_does_not_matter() -> None:
    def backwards(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        return {key: backwards(node[key]) for key in reversed(node)}

    hooks = {"ext_hook": msgpack.ExtType, "raw": False}
    turned = msgpack.packb(backwards(msgpack.unpackb(SMALL.read_bytes(), **hooks)))
    assert turned != SMALL.read_bytes()
    content = container.decode(turned)
    assert equal(layout.nest(content.arrays), load_weights(SMALL).meta_params)


def test_released_sizes_give_the_released_number_of_bytes() -> None:
    data = container.encode(arrays_of(512, 256), "fake_initial_gen_id", 5620)
    assert len(data) == RELEASED_BYTES
    content = container.decode(data)
    assert sum(array.size for array in content.arrays.values()) == 2_320_385


def test_saving_reproduces_the_reference_byte_for_byte(tmp_path: pathlib.Path) -> None:
    weights = load_weights(SMALL)
    save_weights(tmp_path / "copy", weights.meta_params, "fake_initial_gen_id", 5620)
    assert (tmp_path / "copy").read_bytes() == SMALL.read_bytes()


def test_saving_takes_jax_arrays_in_any_order(tmp_path: pathlib.Path) -> None:
    flat = layout.flatten(load_weights(SMALL).meta_params)
    turned = layout.nest({path: jnp.asarray(flat[path]) for path in reversed(flat)})
    save_weights(tmp_path / "copy", turned, "fake_initial_gen_id", 5620)
    assert (tmp_path / "copy").read_bytes() == SMALL.read_bytes()


@given(st.integers(1, 5), st.integers(1, 5), st.text(max_size=40), st.integers(0, 2**31 - 1))
@FAST
def test_what_is_encoded_is_decoded(h: int, k: int, gen_id: str, step: int) -> None:
    arrays = arrays_of(h, k)
    content = container.decode(container.encode(arrays, gen_id, step))
    assert (content.gen_id, content.step) == (gen_id, step)
    assert layout.sizes({p: a.shape for p, a in content.arrays.items()}) == (h, k)
    for path, array in arrays.items():
        np.testing.assert_array_equal(content.arrays[path], array)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: a | {("lstm_init_state", "cell"): np.zeros((1, 3), np.float32)}, "cell: exp"),
        (lambda a: a | {("lstm_init_state", "cell"): np.zeros((1, 2))}, "float32, got float64"),
        (lambda a: a | {("lstm_init_state", "cell"): np.full((1, 2), np.nan, "f4")}, "finite"),
    ],
)
def test_saving_refuses_what_loading_would(
    tmp_path: pathlib.Path, change: Callable[[Arrays], Arrays], match: str
) -> None:
    with pytest.raises(WeightsError, match=match):
        save_weights(tmp_path / "new", layout.nest(change(arrays_of(2, 2))), "id", 1)
    with pytest.raises(WeightsError, match="step"):
        save_weights(tmp_path / "new", layout.nest(arrays_of(2, 2)), "id", 2**31)
    with pytest.raises(WeightsError, match="gen_id"):
        save_weights(tmp_path / "new", layout.nest(arrays_of(2, 2)), "i" * 257, 1)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    tree = layout.nest(arrays_of(2, 2))
    with pytest.raises(OSError, match="No such file"):
        save_weights(tmp_path / "missing" / "new", tree, "id", 1)
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        save_weights(tmp_path / "taken", tree, "id", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


class Mine:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/timetrial-executed",)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (pickle.dumps(Mine(), protocol=4), "Python pickle"),
        (b"PK\x03\x04 and so on", "zip archive"),
        (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b"\n <HTML>", "web page"),
        (b"\x93NUMPY\x01\x00", "npy"),
        (b"root:x:0:0", "expected a msgpack map, got bytes that begin with b'root"),
        (b"", "empty"),
    ],
)
def test_foreign_files_are_named(tmp_path: pathlib.Path, content: bytes, match: str) -> None:
    path = tmp_path / "params"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=match) as caught:
        load_weights(path)
    assert str(path) in str(caught.value)
    assert not os.path.exists("/tmp/timetrial-executed")


def test_files_that_cannot_be_read_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(tmp_path / "none")
    with pytest.raises(WeightsError, match="not a regular file"):
        load_weights("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="not a regular file"):
        load_weights(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(WeightsError, match="expected at most 67,108,864 bytes"):
        load_weights(tmp_path / "huge")


def test_embedded_weights() -> None:
    weights = embedded_weights()
    assert (weights.hidden_size, weights.bank_size, weights.source) == (32, 16, "embedded")
    assert (weights.sha256, weights.gen_id, weights.step) == (
        EMBEDDED_SHA256,
        "timetrial-metatrain-box-659b9713a368d3a0",
        3000,
    )
    card = (pathlib.Path(container.__file__).parents[1] / "embedded" / "CARD.md").read_text()
    assert EMBEDDED_SHA256 in card


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("TIMETRIAL_CACHE", str(tmp_path))
    return tmp_path


def test_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMETRIAL_CACHE", "/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_directory() == pathlib.Path("/own")
    assert google_weights_path() == pathlib.Path("/own/velo/google/params")
    monkeypatch.setenv("TIMETRIAL_CACHE", "")
    assert cache_directory() == pathlib.Path("/xdg/timetrial")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == pathlib.Path("/home/me/.cache/timetrial")


def test_embedded_weights_are_found_when_nothing_was_fetched(cache: pathlib.Path) -> None:
    assert find_weights().source == "embedded"
    with pytest.raises(WeightsError) as caught:
        google_weights()
    message = str(caught.value)
    assert "timetrial fetch velo" in message
    assert RELEASED_URL in message
    assert str(cache / "velo" / "google" / "params") in message


def test_googles_weights_are_found_once_fetched(cache: pathlib.Path) -> None:
    google_weights_path().parent.mkdir(parents=True)
    google_weights_path().write_bytes(SMALL.read_bytes())
    assert find_weights().source == "google"
    assert google_weights().source == "google"


def test_velo_without_weights_takes_what_is_found(cache: pathlib.Path) -> None:
    def first_update(**weights: Any) -> Any:
        tx = velo(10, **weights)
        params = {"w": jnp.arange(6.0).reshape(2, 3)}
        grads = {"w": jnp.ones((2, 3))}
        return tx.update(grads, tx.init(params), params, value=1.0)[0]["w"]

    embedded = first_update(meta_params=embedded_weights().meta_params)
    np.testing.assert_array_equal(first_update(), embedded)
    google_weights_path().parent.mkdir(parents=True)
    google_weights_path().write_bytes(SMALL.read_bytes())
    fetched = first_update(meta_params=load_weights(SMALL).meta_params)
    np.testing.assert_array_equal(first_update(), fetched)
    assert not np.array_equal(fetched, embedded)


def test_damaged_weights_are_not_replaced_by_others(cache: pathlib.Path) -> None:
    google_weights_path().parent.mkdir(parents=True)
    google_weights_path().write_bytes(SMALL.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="run `timetrial fetch velo` to replace"):
        find_weights()


def test_a_recorded_sha256_reveals_a_changed_number(tmp_path: pathlib.Path) -> None:
    path, recorded = tmp_path / "params", tmp_path / "params.sha256"
    data = bytearray(SMALL.read_bytes())
    recorded.write_text(hashlib.sha256(data).hexdigest() + "  params\n")
    path.write_bytes(data)
    assert load_weights(path).step == 5620
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"has changed: expected sha256 f45d462b"):
        load_weights(path)
    recorded.unlink()
    load_weights(path)
    recorded.write_text("no digest")
    with pytest.raises(WeightsError, match="expected a sha256 in 64"):
        load_weights(path)
    save_weights(path, load_weights(SMALL).meta_params, "id", 1)
    assert load_weights(path).gen_id == "id"
