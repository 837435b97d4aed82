"""Files of learned weights: read within limits, checked, and written.

Boundary: files that the caller names; ``catalogue`` knows where the published ones are. A flipped
bit in a tensor's numbers leaves a valid container, so a file is also compared with the sha256 in
``<file>.sha256`` where there is one; ``timetrial fetch`` writes it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from timetrial.framework.checksums import (
    ChecksumError,
    check_beside,
    digest_line,
    digest_path,
)
from timetrial.framework.files import write_atomically
from timetrial.optimizers.weights import container
from timetrial.optimizers.weights.layouts import (
    CELO,
    CELO2,
    CELO_ADAM,
    VELO,
    Layout,
    layout_of,
)
from timetrial.optimizers.weights.trees import Path, WeightsError, nest, show

MAX_FILE_BYTES = 64 << 20
"""Larger files are refused unread: seven times VeLO's, hidden size about 1,400."""

_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive (PyTorch or .npz file)",
    b"\x1f\x8b": "a gzip file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a .npy file",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
    **{bytes([0x80, protocol]): "a Python pickle" for protocol in range(2, 6)},
}
"""First bytes of formats that are often given in place of a container; none is ever opened."""


@dataclasses.dataclass(frozen=True, eq=False)
class LearnedWeights:
    """One valid set of meta-parameters and its origin.

    Attributes:
        meta_params: nested dict of read-only float32 arrays with the published names.
        sha256: hex digest of the file.
        source: a name of the catalogue, or ``file``.
    """

    meta_params: dict[str, Any]
    sha256: str
    source: str


def load(path: str | os.PathLike[str], layout: Layout, *, source: str = "file") -> LearnedWeights:
    """Reads the weights of a rule.

    Args:
        path: a container as flax writes it.
        layout: the rule.
        source: value of ``LearnedWeights.source``.

    Raises:
        WeightsError: the file is missing, too large, truncated, corrupt or foreign, holds the
            weights of another rule, or differs from the sha256 recorded beside it. The message is
            one line and names the file.
    """
    path = pathlib.Path(path)
    data = read(path)
    try:
        reject_other_formats(data)
        content = container.decode(data, layout)
    except WeightsError as error:
        raise WeightsError(f"{path}: no usable {layout.title} weights: {error}") from None
    return LearnedWeights(nest(content.arrays), hashlib.sha256(data).hexdigest(), source)


def load_celo2(path: str | os.PathLike[str], *, source: str = "file") -> LearnedWeights:
    """Reads Celo2's weights; see ``load``."""
    return load(path, CELO2, source=source)


def load_celo(path: str | os.PathLike[str], *, source: str = "file") -> LearnedWeights:
    """Reads Celo's weights; see ``load``."""
    return load(path, CELO, source=source)


def load_celo_adam(path: str | os.PathLike[str], *, source: str = "file") -> LearnedWeights:
    """Reads the weights of Celo-Adam, or of AlgoPerf's submission sinv6; see ``load``."""
    return load(path, CELO_ADAM, source=source)


def reject_other_formats(data: bytes) -> None:
    """Names the format of a file that is plainly no container.

    Raises:
        WeightsError: it is a web page, an archive, or another known format.
    """
    text = data[:256].lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError("expected a msgpack container, got a web page")
    for magic, kind in _OTHER_FORMATS.items():
        if data.startswith(magic):
            raise WeightsError(f"expected a msgpack container, got {kind}")
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        raise WeightsError("expected a msgpack container, got a safetensors file")


def read(path: pathlib.Path) -> bytes:
    """Contents of a regular file of allowed size that matches its recorded sha256, if any.

    Raises:
        WeightsError: the file is missing, not regular, too large, unreadable or changed.
    """
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
    """Records the sha256 of a file beside it, so that ``read`` notices any change."""
    line = digest_line(path.name, path.read_bytes())
    write_atomically(digest_path(path), line)
    return line[:64].decode()


def save(path: str | os.PathLike[str], meta_params: Mapping[str, Any]) -> None:
    """Writes weights of any rule as a bare container, atomically.

    The bytes are those of ``flax.serialization.to_bytes(meta_params)``: maps keep the order of
    their keys. A sha256 recorded beside an older file of that name is removed.

    Args:
        path: file to write; its directory exists.
        meta_params: nested mapping with the published names, float32, NumPy or JAX arrays.

    Raises:
        WeightsError: names, shapes, dtypes or values are not those of a known rule.
        OSError: the file cannot be written; an older file of that name stays unchanged.
    """
    path = pathlib.Path(path)
    arrays = dict(_leaves(meta_params, ()))
    layout = layout_of({place: array.shape for place, array in arrays.items()})
    if layout is None:
        titles = ", ".join(one.title for one in (VELO, CELO, CELO_ADAM, CELO2))
        raise WeightsError(f"expected the weights of one of {titles}, got other names")
    layout.flatten(meta_params)
    data = container.encode(arrays, layout)
    digest_path(path).unlink(missing_ok=True)
    write_atomically(path, data)


def _leaves(tree: Mapping[str, Any], prefix: Path) -> Iterator[tuple[Path, np.ndarray[Any, Any]]]:
    """Tensors by path, in the order of the keys."""
    for key, node in tree.items():
        path = (*prefix, str(key))
        if isinstance(node, Mapping):
            yield from _leaves(node, path)
        elif hasattr(node, "dtype"):
            yield path, np.asarray(node)
        else:
            raise WeightsError(f"{show(path)}: expected an array, got {type(node).__name__}")
