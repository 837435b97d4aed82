"""Bytes of a container of learned weights to named float32 arrays and back.

Boundary: bytes in, arrays out, and the reverse; no files. Input is untrusted: nothing in it is
executed, and decoding takes no more memory than a small multiple of its length.

The container is the output of ``flax.serialization.to_bytes``: the tree of arrays, or a map
``{"params", "gen_id", "step"}`` around it, as google/learned_optimization writes its checkpoints.
Arrays are msgpack extensions of type 1 whose payload is again msgpack:
``[shape, dtype name, little-endian C-order bytes]``; type 3 is the same for a NumPy scalar. See
https://flax.readthedocs.io/en/latest/api_reference/flax.serialization.html and the msgpack
specification, https://github.com/msgpack/msgpack/blob/master/spec.md.

Flax writes it. Flax does not read it: ``msgpack_restore`` bounds neither the number of objects (a
hostile file of 64 MiB would take 4.6 GB) nor the types of arrays, and accepts keys twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from timetrial.optimizers.weights.layouts import Layout, layout_of
from timetrial.optimizers.weights.trees import Path, WeightsError, nest, show

Float32Arrays = dict[Path, np.ndarray[Any, np.dtype[np.float32]]]

_ARRAY, _SCALAR = 1, 3
_CHUNKED = "__msgpack_chunked_array__"
_WRAPPER = frozenset({"params", "gen_id", "step"})
_INTEGERS = {
    f"{u}int{bits}": f"<{u or 'i'}{bits // 8}" for u in ("", "u") for bits in (8, 16, 32, 64)
}
_MAP_BYTES = frozenset([*range(0x80, 0x90), 0xDE, 0xDF])
_MAX_TEXT = 256
_MAX_KEYS = 64
_MAX_MAPS = 64
_MAX_RANK = 8


@dataclasses.dataclass(frozen=True)
class Container:
    """The content of a container.

    Attributes:
        arrays: every tensor by path, in container order; names, shapes and values are valid.
        gen_id: name of the meta-training run; ``None`` in the bare form.
        step: meta-training steps made, >= 0; ``None`` in the bare form.
    """

    arrays: Float32Arrays
    gen_id: str | None
    step: int | None


@dataclasses.dataclass(frozen=True)
class _Extension:
    code: int
    payload: bytes


def decode(data: bytes, layout: Layout) -> Container:
    """Reads a container of either form.

    Args:
        data: the container.
        layout: names and shapes of the expected weights.

    Raises:
        WeightsError: ``data`` is truncated, corrupt, foreign, or no valid set of such weights.
            Where it holds the weights of another rule, the message names that rule.
    """
    if not data:
        raise WeightsError("the container is empty")
    if data[0] not in _MAP_BYTES:
        raise WeightsError(f"expected a msgpack map, got bytes that begin with {data[:12]!r}")
    tree = _unpack(data, "container", max_maps=_MAX_MAPS, max_arrays=0)
    if "params" not in tree:
        return Container(_decode_arrays(tree, layout), None, None)
    if tree.keys() != _WRAPPER:
        found = ", ".join(show([str(key)]) for key in tree)
        raise WeightsError(f"expected the keys params, gen_id, step and no other, got {found}")
    gen_id = tree["gen_id"]
    if not isinstance(gen_id, str):
        raise WeightsError(f"gen_id: expected text, got {_kind(gen_id)}")
    return Container(_decode_arrays(tree["params"], layout), gen_id, _decode_step(tree["step"]))


def _decode_arrays(tree: Any, layout: Layout) -> Float32Arrays:
    if not isinstance(tree, dict):
        raise WeightsError(f"params: expected a map, got {_kind(tree)}")
    try:
        arrays = {
            path: _decode_array(leaf, show(path), {"float32": "<f4"}, (_ARRAY,))
            for path, leaf in layout.flatten(tree).items()
        }
        return validate(arrays, layout)
    except WeightsError as error:
        other = layout_of(_readable_shapes(tree))
        if other is None or other is layout:
            raise
        use = " or ".join(f"optimizer={name}" for name in other.optimizers)
        raise WeightsError(
            f"this is a {other.title} file; expected a {layout.title} file; use {use} ({error})"
        ) from None


def _readable_shapes(tree: Mapping[Any, Any], prefix: Path = ()) -> dict[Path, tuple[int, ...]]:
    """Shapes of the tensors of a tree by path, those of damaged tensors left out."""
    shapes: dict[Path, tuple[int, ...]] = {}
    for key, node in tree.items():
        path = (*prefix, key)
        if not isinstance(key, str):
            continue
        if isinstance(node, dict):
            shapes |= _readable_shapes(node, path)
        elif isinstance(node, _Extension):
            with contextlib.suppress(WeightsError):
                array = _decode_array(node, show(path), {"float32": "<f4"}, (_ARRAY,))
                shapes[path] = array.shape
    return shapes


def validate(arrays: Mapping[Path, np.ndarray[Any, Any]], layout: Layout) -> Float32Arrays:
    """Checks dtypes, shapes and values; returns read-only native float32 copies.

    Args:
        arrays: one array for every path of the layout.
        layout: names and shapes of the expected weights.

    Raises:
        WeightsError: a dtype is not float32, a shape is not the layout's, or a value is NaN or
            infinite.
    """
    for path, array in arrays.items():
        if array.dtype.newbyteorder("=") != np.float32:
            raise WeightsError(f"{show(path)}: expected dtype float32, got {array.dtype}")
    layout.check({path: array.shape for path, array in arrays.items()})
    for path, array in arrays.items():
        finite = np.isfinite(array)
        if not finite.all():
            raise WeightsError(
                f"{show(path)}: expected finite values, got "
                f"{array[~finite][0]} ({np.sum(~finite)} of {array.size} are not finite)"
            )
    valid = {path: np.array(array, dtype=np.float32) for path, array in arrays.items()}
    for array in valid.values():
        array.flags.writeable = False
    return valid


def _decode_array(
    leaf: Any, where: str, dtypes: Mapping[str, str], codes: tuple[int, ...]
) -> np.ndarray[Any, Any]:
    """A view of an extension's bytes; shape, dtype and length are checked to agree first."""
    if not isinstance(leaf, _Extension) or leaf.code not in codes:
        raise WeightsError(f"{where}: expected a tensor (extension type 1), got {_kind(leaf)}")
    triple = _unpack(leaf.payload, where, max_maps=0, max_arrays=2)
    if not isinstance(triple, list) or [type(part) for part in triple] != [list, str, bytes]:
        raise WeightsError(f"{where}: expected [shape, dtype name, bytes], got {_kind(triple)}")
    shape, name, raw = triple
    if not all(type(size) is int and size >= 1 for size in shape):
        got = ", ".join(str(size) if type(size) is int else _kind(size) for size in shape)
        raise WeightsError(f"{where}: expected a shape of whole numbers >= 1, got [{got}]")
    if name not in dtypes:
        allowed = ", ".join(dtypes)
        raise WeightsError(f"{where}: expected dtype {allowed}, got {show([name])}")
    dtype = np.dtype(dtypes[name])
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(raw):
        raise WeightsError(
            f"{where}: shape {tuple(shape)} of {name} needs {needed:,} bytes, got {len(raw):,}"
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def _decode_step(value: Any) -> int:
    if isinstance(value, _Extension):
        array = _decode_array(value, "step", _INTEGERS, (_ARRAY, _SCALAR))
        if array.shape != ():
            raise WeightsError(f"step: expected one number, got shape {array.shape}")
        value = int(array)
    if type(value) is not int or value < 0:
        got = value if type(value) is int else _kind(value)
        raise WeightsError(f"step: expected a whole number >= 0, got {got}")
    return value


def _unpack(data: bytes, where: str, *, max_maps: int, max_arrays: int) -> Any:
    """Decodes msgpack within limits on the number and the size of objects."""
    maps, arrays = itertools.count(1), itertools.count(1)

    def make_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        if next(maps) > max_maps:
            raise WeightsError(f"{where}: expected at most {max_maps} maps, got more")
        return _map_of(pairs, where)

    def make_array(items: list[Any]) -> list[Any]:
        if next(arrays) > max_arrays:
            raise WeightsError(f"{where}: expected at most {max_arrays} arrays, got more")
        return items

    try:
        return msgpack.unpackb(
            data,
            strict_map_key=True,
            object_pairs_hook=make_map,
            list_hook=make_array,
            ext_hook=_Extension,
            max_str_len=_MAX_TEXT,
            max_map_len=_MAX_KEYS,
            max_array_len=_MAX_RANK,
            max_bin_len=len(data),
            max_ext_len=len(data),
        )
    except WeightsError:
        raise
    except (ValueError, OverflowError) as error:
        raise WeightsError(f"{where}: {_reason(error, len(data))}") from None


def _map_of(pairs: list[tuple[Any, Any]], where: str) -> dict[Any, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise WeightsError(f"{where}: the key {show([str(twice)])} occurs twice")
    if _CHUNKED in made:
        raise WeightsError(f"{where}: tensors in chunks are not supported")
    return made


def _reason(error: Exception, length: int) -> str:
    """One line for an error of msgpack's decoder."""
    if isinstance(error, msgpack.ExtraData):
        return f"{len(error.extra):,} bytes follow after the end of the data"
    if isinstance(error, msgpack.StackError):
        return "nested too deeply"
    detail = str(error) or "no msgpack"
    if "incomplete" in detail:
        detail = f"the data end too early, after {length:,} bytes"
    return f"truncated, corrupt or foreign: {detail}"


def _kind(value: Any) -> str:
    if isinstance(value, _Extension):
        return f"extension type {value.code} of {len(value.payload):,} bytes"
    if isinstance(value, dict | list | str | bytes):
        return f"{type(value).__name__} of length {len(value)}"
    return type(value).__name__


def encode(
    arrays: Mapping[Path, np.ndarray[Any, Any]],
    layout: Layout,
    origin: tuple[str, int] | None = None,
) -> bytes:
    """The container as flax writes it; tensors keep their order.

    Args:
        arrays: one array for every path of the layout.
        layout: names and shapes of the weights.
        origin: name of the meta-training run, at most 256 bytes of UTF-8, and meta-training steps
            made, 0 to 2^31 - 1, for the form with both; ``None`` for the bare tree.

    Raises:
        WeightsError: ``decode`` would refuse the result.
    """
    valid = validate(arrays, layout)
    tree = nest(valid)
    if origin is not None:
        gen_id, step = _checked_origin(*origin)
        # The step is an array of rank 0, as in VeLO's released file.
        tree = {"params": tree, "gen_id": gen_id, "step": np.asarray(step, np.int32)}
    from flax import serialization  # loads JAX

    # In place, because a copy would have its keys sorted.
    data: bytes = serialization.msgpack_serialize(tree, in_place=True)
    return data


def _checked_origin(gen_id: Any, step: Any) -> tuple[str, int]:
    if not isinstance(gen_id, str) or len(gen_id.encode()) > _MAX_TEXT:
        raise WeightsError(
            f"gen_id: expected text of at most {_MAX_TEXT} bytes, got {gen_id!r:.80}"
        )
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 2**31:
        raise WeightsError(f"step: expected a whole number from 0 to 2^31 - 1, got {step!r:.80}")
    return gen_id, step
