"""VeLO weights as files: reads every published format, writes the released one.

Boundary: files that the caller names; ``catalogue`` knows where the named weights are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from timetrial.framework.checksums import digest_path
from timetrial.framework.files import write_atomically
from timetrial.optimizers.velo import layout
from timetrial.optimizers.velo.layout import WeightsError
from timetrial.optimizers.velo.weights import container, pylo
from timetrial.optimizers.weights.files import (
    MAX_FILE_BYTES,
    read,
    record_digest,
    reject_other_formats,
)

__all__ = ["MAX_FILE_BYTES", "Weights", "load_weights", "record_digest", "save_weights"]

_PYLO_NAMES = ("VeLO_RNN", "VeLO_MLP")


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """One valid set of meta-parameters and its origin.

    Attributes:
        meta_params: nested dict of read-only float32 arrays with the released names: the argument
            of ``velo(meta_params=...)``.
        hidden_size: H, width of the per-tensor LSTM.
        bank_size: K, number of per-parameter networks in the bank.
        sha256: hex digest of the file; for PyLO's pair, of VeLO_RNN's bytes followed by
            VeLO_MLP's.
        source: ``google``, ``embedded`` or ``file``; tables show ``velo[google]``.
        gen_id: name of the meta-training run; ``None`` in formats without it.
        step: meta-training steps made; ``None`` in formats without it.
    """

    meta_params: dict[str, Any]
    hidden_size: int
    bank_size: int
    sha256: str
    source: str
    gen_id: str | None
    step: int | None


def load_weights(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, source: str = "file"
) -> Weights:
    """Reads weights in any published format.

    Args:
        path: a container file (Google's released ``params``, or the bare ``theta.state``); or for
            PyLO's conversion a directory holding ``VeLO_RNN.safetensors`` and
            ``VeLO_MLP.safetensors`` (or ``VeLO_RNN/model.safetensors`` and
            ``VeLO_MLP/model.safetensors``), or a sequence of the two files.
        source: value of ``Weights.source``.

    Raises:
        WeightsError: the file is missing, too large, truncated, corrupt or foreign, or differs
            from the sha256 recorded beside it. The message is one line and names the file.
    """
    if not isinstance(path, str | os.PathLike):
        return _load_pair([pathlib.Path(part) for part in path], source)
    path = pathlib.Path(path)
    if path.is_dir():
        return _load_pair(_find_pair(path), source)
    data = read(path)
    try:
        _reject_one_of_a_pair(data)
        reject_other_formats(data)
        content = container.decode(data)
    except WeightsError as error:
        raise WeightsError(f"{path}: no usable VeLO weights: {error}") from None
    digest = hashlib.sha256(data).hexdigest()
    return _weights(content.arrays, digest, source, content.gen_id, content.step)


def _weights(
    arrays: container.Float32Arrays, digest: str, source: str, gen_id: str | None, step: int | None
) -> Weights:
    H, K = layout.sizes({path: array.shape for path, array in arrays.items()})
    return Weights(layout.nest(arrays), H, K, digest, source, gen_id, step)


def _reject_one_of_a_pair(data: bytes) -> None:
    if pylo.is_safetensors(data):
        raise WeightsError(
            "this is one safetensors file: give the directory with PyLO's pair "
            f"{_PYLO_NAMES[0]}.safetensors and {_PYLO_NAMES[1]}.safetensors"
        )


def _find_pair(directory: pathlib.Path) -> list[pathlib.Path]:
    candidates = (
        [directory / f"{name}.safetensors" for name in _PYLO_NAMES],
        [directory / name / "model.safetensors" for name in _PYLO_NAMES],
    )
    for pair in candidates:
        if all(file.is_file() for file in pair):
            return pair
    raise WeightsError(
        f"{directory}: expected a file, or a directory with PyLO's pair "
        f"{_PYLO_NAMES[0]}.safetensors and {_PYLO_NAMES[1]}.safetensors"
    )


def _load_pair(paths: Sequence[pathlib.Path], source: str) -> Weights:
    if len(paths) != 2:
        raise WeightsError(f"expected PyLO's two files VeLO_RNN and VeLO_MLP, got {len(paths)}")
    first, second = (read(path) for path in paths)
    try:
        swapped, arrays = pylo.decode_pair(first, second)
    except WeightsError as error:
        names = " and ".join(str(path) for path in paths)
        raise WeightsError(f"{names}: no usable VeLO weights: {error}") from None
    digest = hashlib.sha256(second + first if swapped else first + second).hexdigest()
    return _weights(arrays, digest, source, None, None)


def save_weights(
    path: str | os.PathLike[str], meta_params: Mapping[str, Any], gen_id: str, step: int
) -> None:
    """Writes a container of the released form, atomically; equal content gives equal bytes.

    A sha256 recorded beside an older file of that name is removed.

    Args:
        path: file to write; its directory exists.
        meta_params: nested mapping with the released names, float32, NumPy or JAX arrays.
        gen_id: name of the meta-training run, at most 256 bytes of UTF-8.
        step: meta-training steps made, 0 to 2^31 - 1.

    Raises:
        WeightsError: names, shapes, dtypes or values are not those of VeLO weights.
        OSError: the file cannot be written; an older file of that name stays unchanged.
    """
    path = pathlib.Path(path)
    leaves = layout.flatten(meta_params)
    data = container.encode({p: np.asarray(leaf) for p, leaf in leaves.items()}, gen_id, step)
    digest_path(path).unlink(missing_ok=True)
    write_atomically(path, data)
