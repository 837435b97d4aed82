"""Hostile, corrupt and random containers: always a WeightsError, never a crash or a mistake."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from velo_files import FAST, SMALL, arrays_of, tensor, tree_of

from timetrial.optimizers.velo import layout
from timetrial.optimizers.velo.weights import WeightsError, container

TINY = container.encode(arrays_of(1, 2), "tiny", 7)


def refused(data: bytes, match: str) -> str:
    with pytest.raises(WeightsError, match=match) as caught:
        container.decode(data)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def change(path: tuple[str, ...], value: Any) -> bytes:
    """A valid tiny container but for one node."""
    tree = tree_of()
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return msgpack.packb(tree)


B1 = ("params", "ff_mod_stack", "~", "b1")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (tensor([2, 5]), r"ff_mod_stack/~/b1: expected shape \(2, 4\).*got \(2, 5\)"),
        (tensor([3, 4]), r"expected shape \(2, 4\)"),
        (tensor([8]), r"expected shape \(2, 4\).*got \(8,\)"),
        (tensor([2, 4], raw=b"\0" * 31), r"shape \(2, 4\) of float32 needs 32 bytes, got 31"),
        (tensor([2**31, 2**31], raw=b""), "needs 18,446,744,073,709,551,616 bytes, got 0"),
        (tensor([2**63, 2**63, 2**63], raw=b""), "needs .* bytes, got 0"),
        (tensor([0, 2**63], raw=b""), "whole numbers >= 1"),
        (tensor([-2, -4], raw=b"\0" * 32), r"whole numbers >= 1, got \[-2, -4\]"),
        (tensor([2.0, 4.0], raw=b"\0" * 32), r"whole numbers >= 1, got \[float, float\]"),
        (tensor([True, 4], raw=b"\0" * 16), r"whole numbers >= 1"),
        (tensor([1] * 9), "exceeds max_array_len"),
        (tensor([2, 4], "float64"), "expected dtype float32, got float64"),
        (tensor([2, 4], "float16", b"\0" * 16), "expected dtype float32, got float16"),
        (tensor([2, 4], "object"), "expected dtype float32, got object"),
        (tensor([2, 4], "(2**40,)f4"), "expected dtype float32"),
        (tensor([2, 4], 7), r"expected \[shape, dtype name, bytes\]"),
        (tensor([2, 4], raw="text"), r"expected \[shape, dtype name, bytes\]"),
        (tensor(8, raw=b"\0" * 32), r"expected \[shape, dtype name, bytes\]"),
        (tensor([2, 4], tail=b"\0"), "1 bytes follow"),
        (tensor([2, 4], code=3), "extension type 3"),
        (tensor([2, 4], code=2), "extension type 2"),
        (tensor([2, 4], code=5), "extension type 5"),
        (tensor([2, 4], raw=np.full(8, np.nan, "f4").tobytes()), "finite values, got nan .8 of 8"),
        (tensor([2, 4], raw=np.full(8, np.inf, "f4").tobytes()), "finite values, got inf"),
        (msgpack.ExtType(1, b""), "end too early"),
        (msgpack.ExtType(1, b"\x93\x92\x02"), "end too early"),
        (msgpack.ExtType(1, msgpack.packb({"shape": [2, 4]})), "at most 0 maps"),
        (msgpack.ExtType(1, msgpack.packb([[[2]], "float32", b""])), "at most 2 arrays"),
        (msgpack.ExtType(1, msgpack.packb([[2, tensor([1])], "float32", b""])), "extension type"),
        (msgpack.ExtType(1, b"\x91" * 3000 + b"\1"), "nested too deeply"),
        (msgpack.Timestamp(1), "got Timestamp"),
        (None, "got NoneType"),
        (1.5, "got float"),
        (b"\0" * 32, "got bytes of length 32"),
        ([1, 2], "at most 0 arrays"),
        ({}, "expected a tensor, got a map"),
        ({"__msgpack_chunked_array__": True, "shape": {"0": 2}, "chunks": {}}, "chunks"),
    ],
)
def test_bad_tensors_are_refused(value: Any, match: str) -> None:
    refused(change(B1, value), match)


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (("params",), None, "params: expected a map, got NoneType"),
        (("params",), {}, "missing ff_mod_stack, lstm_init_state, rnn_params"),
        (("params", "extra"), 1, "top level: .*unexpected extra"),
        (("params", "ff_mod_stack", "~", "w0__14"), 1, "ff_mod_stack/~: .*unexpected w0__14"),
        (("params", "rnn_params", "rnn"), {"linear": 1}, "rnn_params: .*unexpected rnn"),
        (("params", "rnn_params", "linear"), tensor([1]), "rnn_params/linear: expected a map"),
        (("params", "lstm_init_state", "x\n" * 60), 1, r"unexpected x\\nx"),
        (("gen_id",), 3, "gen_id: expected text, got int"),
        (("gen_id",), b"id", "gen_id: expected text, got bytes"),
        (("gen_id",), "i" * 257, "max_str_len"),
        (("step",), -1, "step: expected a whole number >= 0, got -1"),
        (("step",), True, "step: expected a whole number >= 0, got bool"),
        (("step",), 1.0, "step: .*got float"),
        (("step",), tensor([2], "int32", b"\0" * 8), "step: expected one number"),
        (("step",), tensor([], "float32"), "step: expected dtype int8"),
        (("step",), tensor([], "int32", b"\xff" * 4), "step: .*got -1"),
        (("other",), 1, "expected the keys params, gen_id, step and no other"),
        (("params", 5), 1, "strict_map_key|not allowed for map key"),
    ],
)
def test_bad_names_and_metadata_are_refused(path: Any, value: Any, match: str) -> None:
    refused(change(path, value), match)


def test_duplicate_keys_are_refused() -> None:
    step = msgpack.packb("step") + msgpack.packb(3)
    data = msgpack.packb(tree_of())
    assert data.endswith(step)
    refused(b"\x84" + data[1:] + step, "container: the key step occurs twice")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "empty"),
        (b"\x80", "missing ff_mod_stack"),
        (b"\x81\xa1a\xc1", "truncated, corrupt or foreign"),
        (b"\xdf\xff\xff\xff\xff", "exceeds max_map_len"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
        (b"\x81\xa1a\xc6\xff\xff\xff\xff", "truncated, corrupt or foreign"),
        (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01", "truncated, corrupt or foreign"),
        (b"\x81\xdb\xff\xff\xff\xff", "truncated, corrupt or foreign"),
        (b"\x81\xa1a" * 5000 + b"\x01", "nested too deeply"),
        (b"\x81\xa1a" + b"\x91" * 5000 + b"\x01", "nested too deeply"),
        (b"\x81\xa1a" * 100 + b"\x01", "at most 64 maps"),
        (b"\x81\xa1\xff\x01", "truncated, corrupt or foreign"),
        (TINY + b"\0", "1 bytes follow after the end"),
        (TINY + TINY, "bytes follow after the end"),
    ],
)
def test_corrupt_containers_are_refused(data: bytes, match: str) -> None:
    refused(data, match)


@pytest.mark.parametrize(
    "hostile",
    [
        b"\xdf\xff\xff\xff\xff" + b"\xa0" * 2_000_000,
        b"\x81\xa1a\xdd\x7f\xff\xff\xff" + b"\x80" * 2_000_000,
        b"\x81\xa1a" + b"\x98" + b"\x80" * 2_000_000,
        (b"\x8f" + b"\xa1a\x80" * 15) * 40_000,
        b"\x81\xa1a" + b"\x98" * 900 + b"\xc0" * 2_000_000,
        change(B1, tensor([2**31, 2**31], raw=b"")),
        change(B1, msgpack.ExtType(1, b"\x93\xdd\xff\xff\xff\xff" + b"\x01" * 2_000_000)),
        change(B1, msgpack.ExtType(1, b"\x98" + (b"\x98" + b"\x90" * 8) * 8)),
    ],
)
def test_hostile_containers_take_little_memory(hostile: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError):
            container.decode(hostile)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(hostile) + 2_000_000


def test_sizes_of_another_architecture_are_refused() -> None:
    """Celo's scheduler network has 18 inputs and a bank of one."""
    tree = tree_of(8, 1)["params"]
    tree["rnn_params"]["linear"]["w"] = tensor([18, 8])
    refused(
        msgpack.packb(tree),
        r"rnn_params/linear/w: expected shape \(30, 8\) \(hidden size 8 and bank size 1.*\(18, 8\)",
    )


def decode_or_refuse(data: bytes, reference: container.Container) -> bool:
    """Whether ``data`` is accepted; then it holds what ``reference`` holds but for one number."""
    try:
        content = container.decode(data)
    except WeightsError:
        return False
    assert list(content.arrays) == list(reference.arrays)
    changed = 0
    for path, array in content.arrays.items():
        assert array.shape == reference.arrays[path].shape
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
        changed += int(np.sum(array.view(np.int32) != reference.arrays[path].view(np.int32)))
    changed += (content.gen_id, content.step) != (reference.gen_id, reference.step)
    assert changed <= 1
    return True


def structure_bytes(data: bytes) -> list[int]:
    """Offsets of all bytes that are not numbers of a tensor: found by changing the numbers."""
    other = {p: -a - 3 for p, a in container.decode(data).arrays.items()}
    content = container.decode(data)
    turned = container.encode(other, content.gen_id or "", content.step or 0)
    same = {i for i, (a, b) in enumerate(zip(data, turned, strict=True)) if a == b}
    # A byte of a number may be equal by chance, which does no harm: it is only tried in vain.
    return sorted(same)


def test_every_flipped_bit_of_the_structure_is_noticed() -> None:
    reference = container.decode(TINY)
    accepted = 0
    offsets = structure_bytes(TINY)
    for offset in offsets:
        for bit in range(8):
            flipped = bytearray(TINY)
            flipped[offset] ^= 1 << bit
            accepted += decode_or_refuse(bytes(flipped), reference)
    # Only the text of gen_id, the step and a few numbers' bytes may change and stay valid.
    assert 0 < accepted < 8 * len(offsets) / 4


@given(st.integers(0, SMALL.stat().st_size - 1), st.integers(1, 255))
@FAST
def test_flipped_bytes_of_a_real_container(offset: int, mask: int) -> None:
    data = bytearray(SMALL.read_bytes())
    data[offset] ^= mask
    decode_or_refuse(bytes(data), container.decode(SMALL.read_bytes()))


def test_every_truncation_is_noticed() -> None:
    for end in range(len(TINY)):
        with pytest.raises(WeightsError):
            container.decode(TINY[:end])
    data = SMALL.read_bytes()
    for end in range(0, len(data), 97):
        with pytest.raises(WeightsError):
            container.decode(data[:end])


@given(st.data())
@FAST
def test_cut_and_pasted_containers_are_never_mistaken(data: st.DataObject) -> None:
    """Removes, repeats or replaces a stretch of bytes."""
    begin = data.draw(st.integers(0, len(TINY) - 1))
    end = data.draw(st.integers(begin, min(begin + 40, len(TINY))))
    paste = data.draw(st.binary(max_size=40) | st.just(TINY[begin:end] * 2))
    mangled = TINY[:begin] + paste + TINY[end:]
    try:
        content = container.decode(mangled)
    except WeightsError:
        return
    assert [a.shape for a in content.arrays.values()] == list(layout.shapes(1, 2).values())
    assert all(np.isfinite(a).all() for a in content.arrays.values())


@given(st.binary(max_size=400))
@FAST
def test_random_bytes_are_refused(data: bytes) -> None:
    for prefix in (b"", b"\x83", b"\x81\xa6params", TINY[:60]):
        with pytest.raises(WeightsError):
            container.decode(prefix + data)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=40)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=40))
    | st.builds(
        tensor,
        st.lists(st.integers(-1, 5) | st.just(2**63), max_size=4),
        st.sampled_from(["float32", "float64", "int32", "O"]),
        st.binary(max_size=64),
    )
)
NAMES = st.sampled_from(sorted({key for path in layout.PATHS for key in path})) | st.text(
    max_size=8
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=12,
)


@given(TREES)
@FAST
def test_random_structures_are_refused(tree: Any) -> None:
    for top in (tree, {"params": tree, "gen_id": "x", "step": 0}):
        with pytest.raises(WeightsError):
            container.decode(msgpack.packb(top))


@given(st.sampled_from(layout.PATHS), TREES)
@FAST
def test_one_random_node_is_refused(path: layout.Path, node: Any) -> None:
    data = change(("params", *path), node)
    reference = tree_of()["params"]
    for key in path:
        reference = reference[key]
    if node == reference:
        container.decode(data)
        return
    try:
        content = container.decode(data)
    except WeightsError:
        return
    # Random bytes may happen to be a tensor of the right shape with finite numbers.
    assert content.arrays[path].shape == layout.shapes(1, 2)[path]
