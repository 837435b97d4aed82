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

from timetrial.framework.types import TrainState

PACKED_BYTES: Final = 2**20
"""Smaller arrays are packed into one."""

_SPARE_BYTES: Final = 2**22


def bytes_of(state: TrainState) -> int:
    """Size of a checkpoint of a state at most, in bytes; of several hosts together."""
    return int(sum(leaf.nbytes for leaf in jax.tree.leaves(state))) + _SPARE_BYTES


def split(state: TrainState) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The description of all arrays, and the tree for Orbax: packed bytes and large arrays."""
    named = jax.tree_util.tree_flatten_with_path(state)[0]
    leaves = [(jax.tree_util.keystr(path), _data(leaf)) for path, leaf in named]
    large = {name: leaf for name, leaf in leaves if leaf.nbytes >= PACKED_BYTES}
    small = jax.device_get([_local(leaf) for name, leaf in leaves if name not in large])
    values = iter(small)
    described: list[dict[str, Any]] = []
    packed: list[bytes] = []
    offset = 0
    for name, leaf in leaves:
        at = -1
        if name not in large:
            at = offset
            packed.append(np.asarray(next(values)).tobytes())
            offset += len(packed[-1])
        described.append(
            {"name": name, "dtype": leaf.dtype.name, "shape": list(leaf.shape), "at": at}
        )
    content: dict[str, Any] = {"packed": np.frombuffer(b"".join(packed), np.uint8)}
    content |= {f"large_{i}": leaf for i, leaf in enumerate(large.values())}
    return described, content


def read_arrays(
    path: Path, found: Mapping[str, Mapping[str, Any]], expected: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """The arrays of a checkpoint, by name, where the expected ones are.

    Args:
        path: Orbax's directory.
        found: descriptions made by ``split``, by name.
        expected: arrays of the same shapes and types, by name.
    """
    import orbax.checkpoint as ocp

    small = {name: array for name, array in found.items() if array["at"] >= 0}
    size = sum(_nbytes(array) for array in small.values())
    like: dict[str, Any] = {"packed": np.zeros(size, np.uint8)}
    large = [name for name in found if name not in small]
    for i, name in enumerate(large):
        leaf = expected[name]
        like[f"large_{i}"] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        content = reader.restore(path, args=ocp.args.StandardRestore(like))
    packed = np.asarray(content["packed"])
    arrays = {name: content[f"large_{i}"] for i, name in enumerate(large)}
    for name, array in small.items():
        part = packed[array["at"] : array["at"] + _nbytes(array)]
        values = part.view(jnp.dtype(array["dtype"])).reshape(array["shape"])
        arrays[name] = _placed(values, expected[name])
    return arrays


def save_args(content: Mapping[str, Any]) -> Any:
    """Orbax's arguments to save a tree of ``split``."""
    import orbax.checkpoint as ocp

    return ocp.args.StandardSave(content)


def _nbytes(array: Mapping[str, Any]) -> int:
    return int(math.prod(array["shape"])) * int(jnp.dtype(array["dtype"]).itemsize)


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _local(leaf: Any) -> Any:
    """A small array as this host has it; small ones are never divided among hosts."""
    whole = getattr(leaf, "is_fully_addressable", True)
    return leaf if whole else leaf.addressable_data(0)


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
