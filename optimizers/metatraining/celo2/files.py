"""Celo2's meta-parameters as files of the published container.

Boundary: small files that the caller names. Input is untrusted: a file of another size, names,
shapes or types is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from flax import serialization

from timetrial.framework.errors import UserError
from timetrial.framework.files import write_atomically
from timetrial.optimizers.metatraining.celo2 import vector

EMBEDDED: Final = Path(__file__).parents[2] / "celo2" / "embedded" / "celo2_base.state"
"""The weights that ship."""

_LARGEST_BYTES: Final = 4096


def load_start(start: str) -> tuple[dict[str, Any], str]:
    """Meta-parameters of ``embedded`` or of a file, and the sha256 of the file.

    Raises:
        UserError: the file is missing or holds something else.
    """
    path = EMBEDDED if start == "embedded" else Path(start)
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        what = "no such file" if not path.exists() else f"cannot be read: {error.strerror}"
        raise UserError(f"start: {path}: {what}") from error
    try:
        if len(data) > _LARGEST_BYTES:
            raise ValueError(f"expected at most {_LARGEST_BYTES:,} bytes")
        found = _checked(serialization.msgpack_restore(data))
    except Exception as error:  # the decoder raises many types
        raise UserError(f"start: {path}: no weights of Celo2: {error}") from error
    return found, hashlib.sha256(data).hexdigest()


def _checked(tree: Any) -> dict[str, Any]:
    expected = _shapes(vector.to_meta_params(np.zeros(vector.LIVE_NUMBERS, np.float32)))
    if not (isinstance(tree, dict) and isinstance(tree.get("ff_mod_stack"), dict)):
        raise ValueError("expected the key ff_mod_stack")
    if _shapes(tree) != expected:
        raise ValueError("expected the 19 float32 arrays of a 30-8-8-3 network")
    layers = tree["ff_mod_stack"]["~"]
    bad = [name for name, array in layers.items() if not np.isfinite(array).all()]
    if bad:
        raise ValueError(f"{bad[0]}: expected finite numbers")
    return {"ff_mod_stack": {"~": layers}}


def _shapes(tree: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    if set(tree) != {"ff_mod_stack"} or set(tree["ff_mod_stack"]) != {"~"}:
        raise ValueError("expected the key ff_mod_stack alone, and ~ below it")
    layers = tree["ff_mod_stack"]["~"]
    return {name: (np.shape(array), str(array.dtype)) for name, array in layers.items()}


def save_meta_params(path: Path, meta_params: Mapping[str, Any]) -> None:
    """Writes a container of 1,833 bytes, atomically; equal content gives equal bytes.

    Args:
        path: file to write; its directory exists.
        meta_params: as of ``vector.to_meta_params``.
    """
    write_atomically(path, serialization.msgpack_serialize(dict(meta_params)))
