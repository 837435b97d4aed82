"""The arrays of a state as two parts: small ones packed into one, and large ones.

Boundary: arrays in and out; ``framework.checkpoint`` keeps the files.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.framework.state import TrainState

PACKED_BYTES: Final = 2**20
"""Smaller arrays are packed."""

PACKED_STATE_BYTES: Final = 2**26
"""Of smaller states all arrays are packed: such a checkpoint costs 6 ms, with Orbax 30."""

_SPARE_BYTES: Final = 2**22


def bytes_of(state: TrainState) -> int:
    """Size of a checkpoint of a state at most, in bytes; of several hosts together."""
    return int(sum(leaf.nbytes for leaf in jax.tree.leaves(state))) + _SPARE_BYTES


def split(state: TrainState) -> tuple[list[dict[str, Any]], bytes, dict[str, Any]]:
    """The description of all arrays, the small ones as bytes, the large ones as a tree for Orbax.

    Small ones are copied; the others may be donated once Orbax returns.
    """
    named = jax.tree_util.tree_flatten_with_path(state)[0]
    leaves = [(jax.tree_util.keystr(path), _data(leaf)) for path, leaf in named]
    everything = sum(leaf.nbytes for _, leaf in leaves) <= PACKED_STATE_BYTES
    packs = [_is_whole(leaf) and (everything or leaf.nbytes < PACKED_BYTES) for _, leaf in leaves]
    chosen = [_local(leaf) for (_, leaf), pack in zip(leaves, packs, strict=True) if pack]
    parts = iter([np.asarray(values).tobytes() for values in jax.device_get(chosen)])
    described: list[dict[str, Any]] = []
    packed, large = bytearray(), dict[str, Any]()
    for (name, leaf), pack in zip(leaves, packs, strict=True):
        at = len(packed) if pack else -1
        if pack:
            packed += next(parts)
        else:
            large[f"large_{len(large)}"] = leaf
        shape = list(leaf.shape)
        described.append({"name": name, "dtype": leaf.dtype.name, "shape": shape, "at": at})
    return described, bytes(packed), large


def read_arrays(
    packed: bytes,
    path: Path,
    found: Mapping[str, Mapping[str, Any]],
    expected: Mapping[str, Any],
) -> dict[str, jax.Array]:
    """The arrays of a checkpoint, by name, where the expected ones are.

    Args:
        packed: bytes of the small arrays.
        path: Orbax's directory of the large ones, if there are any.
        found: descriptions made by ``split``, by name.
        expected: arrays of the same shapes and types, by name.

    Raises:
        ValueError: the bytes are too few.
    """
    arrays: dict[str, jax.Array] = {}
    large = [name for name, array in found.items() if array["at"] < 0]
    if large:
        arrays |= _read_large(path, {name: expected[name] for name in large})
    for name, array in found.items():
        if name not in arrays:
            count = int(math.prod(array["shape"]))
            dtype = jnp.dtype(array["dtype"])
            values = np.frombuffer(packed, dtype, count, array["at"]).reshape(array["shape"])
            arrays[name] = _placed(values, expected[name])
    return arrays


def _read_large(path: Path, expected: Mapping[str, Any]) -> dict[str, jax.Array]:
    import orbax.checkpoint as ocp

    like = {
        f"large_{i}": jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
        for i, leaf in enumerate(expected.values())
    }
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        content = reader.restore(path, args=ocp.args.StandardRestore(like))
    return {name: content[f"large_{i}"] for i, name in enumerate(expected)}


def save_args(content: Mapping[str, Any]) -> Any:
    """Orbax's arguments to save a tree of ``split``."""
    import orbax.checkpoint as ocp

    return ocp.args.StandardSave(content)


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_whole(leaf: Any) -> bool:
    """True when this host has all of an array."""
    return bool(leaf.is_fully_addressable or leaf.is_fully_replicated)


def _local(leaf: Any) -> Any:
    """A whole array as this host has it."""
    return leaf if leaf.is_fully_addressable else leaf.addressable_data(0)


def described(leaf: Any) -> str:
    """Shape and type of an array as text; ``nothing`` for None."""
    if leaf is None:
        return "nothing"
    data = _data(leaf)
    return f"{data.dtype.name}{list(data.shape)}"


def recorded(array: Mapping[str, Any] | None) -> str:
    """The text of ``described`` from a description made by ``split``."""
    return "nothing" if array is None else f"{array['dtype']}{list(array['shape'])}"


def _placed(values: np.ndarray, like: jax.Array) -> jax.Array:
    """A small array on the device; a copy, because the buffers of the state are donated."""
    if _is_key(like):
        wrapped = jax.jit(
            lambda data: jax.random.wrap_key_data(data, impl=jax.random.key_impl(like)),
            out_shardings=like.sharding,
        )
        key: jax.Array = wrapped(np.array(values))
        return key
    if not like.is_fully_addressable:
        return jax.make_array_from_callback(
            values.shape, like.sharding, lambda part: np.array(values[part])
        )
    placed: jax.Array = jax.device_put(jnp.array(values, copy=True), like.sharding)
    return placed
