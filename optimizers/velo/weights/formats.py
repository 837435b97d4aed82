"""VeLO weights as files: reads every published format, writes the released one.

Boundary: files that the caller names; ``catalogue`` knows where the named weights are. A flipped
bit in a tensor's numbers leaves a valid container, so a file is also compared with the sha256 in
``<file>.sha256`` where there is one; ``timetrial fetch velo`` writes it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from timetrial.framework.checksums import (
    ChecksumError,
    check_beside,
    digest_line,
    digest_path,
)
from timetrial.framework.files import write_atomically
from timetrial.optimizers.velo import layout
from timetrial.optimizers.velo.layout import WeightsError
from timetrial.optimizers.velo.weights import container, pylo

MAX_FILE_BYTES = 64 << 20
"""Larger files are refused unread: seven times the released one, hidden size about 1,400."""

_PYLO_NAMES = ("VeLO_RNN", "VeLO_MLP")

_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive (PyTorch or .npz file)",
    b"\x1f\x8b": "a gzip file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a .npy file",
    **{bytes([0x80, protocol]): "a Python pickle" for protocol in range(2, 6)},
}
"""First bytes of formats that are often given in place of a container; none is ever opened."""


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
    data = _read(path)
    try:
        _reject_other_formats(data)
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


def _reject_other_formats(data: bytes) -> None:
    """Names the format of a file that is plainly no container."""
    if pylo.is_safetensors(data):
        raise WeightsError(
            "this is one safetensors file: give the directory with PyLO's pair "
            f"{_PYLO_NAMES[0]}.safetensors and {_PYLO_NAMES[1]}.safetensors"
        )
    text = data[:256].lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError("expected a msgpack container, got a web page")
    for magic, kind in _OTHER_FORMATS.items():
        if data.startswith(magic):
            raise WeightsError(f"expected a msgpack container, got {kind}")


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
    first, second = (_read(path) for path in paths)
    try:
        swapped, arrays = pylo.decode_pair(first, second)
    except WeightsError as error:
        names = " and ".join(str(path) for path in paths)
        raise WeightsError(f"{names}: no usable VeLO weights: {error}") from None
    digest = hashlib.sha256(second + first if swapped else first + second).hexdigest()
    return _weights(arrays, digest, source, None, None)


def _read(path: pathlib.Path) -> bytes:
    """Contents of a regular file of allowed size that matches its recorded sha256, if any."""
    try:
        if not path.is_file():
            what = "not a regular file" if path.exists() else "no such file"
            raise WeightsError(f"{path}: {what}")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise WeightsError(
            f"{path}: expected at most {MAX_FILE_BYTES:,} bytes, got {path.stat().st_size:,}"
        )
    try:
        check_beside(path, data)
    except ChecksumError as error:
        raise WeightsError(str(error)) from None
    return data


def record_digest(path: pathlib.Path) -> str:
    """Records the sha256 of a file beside it, so that ``load_weights`` notices any change."""
    line = digest_line(path.name, path.read_bytes())
    write_atomically(digest_path(path), line)
    return line[:64].decode()


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
