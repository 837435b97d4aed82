"""Embedded data sets: small npz files with a manifest of their digests.

Boundary: reads the embedded files with numpy; ``tools/build_embedded.py`` writes them.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from timetrial.framework.paths import is_file_name
from timetrial.framework.types import Split
from timetrial.workloads.data.arrays import arrays_in
from timetrial.workloads.data.errors import DataError

DIRECTORY = Path(__file__).parents[1] / "embedded"
"""Directory of the files."""

SPLITS = tuple(Split)
"""Splits in order; ``split`` arrays hold indices into this tuple."""


@functools.cache
def load(name: str, directory: Path = DIRECTORY) -> Mapping[str, np.ndarray]:
    """Reads a data set and checks its digest; cached per process.

    Args:
        name: key of the manifest, such as ``"fashion_mnist"``.
        directory: directory of ``manifest.json`` and the files.

    Returns:
        Read-only arrays by name.

    Raises:
        DataError: the file or the manifest is missing or unreadable, or the digest is wrong.
    """
    entry = _entry(name, directory)
    path = directory / entry["file"]
    data = _read(path)
    found = hashlib.sha256(data).hexdigest()
    if found != entry["sha256"]:
        raise DataError(
            f"{path}: expected sha256 {entry['sha256']}, found {found} ({len(data):,} bytes, "
            f"expected {entry['bytes']:,}); {_RESTORE}"
        )
    try:
        arrays = arrays_in(data)
    except ValueError as error:
        raise DataError(f"{path}: not a readable npz file ({error}); {_RESTORE}") from error
    for array in arrays.values():
        array.flags.writeable = False
    return MappingProxyType(arrays)


def sha256(name: str, directory: Path = DIRECTORY) -> str:
    """Digest of the file of a data set, from the manifest; ``load`` checks it."""
    return str(_entry(name, directory)["sha256"])


@functools.cache
def manifest(directory: Path = DIRECTORY) -> Mapping[str, Any]:
    """The manifest: file, digest, licence, source and arrays of each data set.

    Raises:
        DataError: ``manifest.json`` is missing or not JSON.
    """
    path = directory / "manifest.json"
    try:
        entries = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}); {_RESTORE}") from error
    if not isinstance(entries, dict):
        raise DataError(f"{path}: expected an object with an entry per data set; {_RESTORE}")
    return MappingProxyType(entries)


def _entry(name: str, directory: Path) -> Mapping[str, Any]:
    entries = manifest(directory)
    if name not in entries:
        known = ", ".join(sorted(entries)) or "nothing"
        raise DataError(
            f"{directory / 'manifest.json'}: expected an entry {name!r}, found {known}; {_RESTORE}"
        )
    entry: Mapping[str, Any] = entries[name]
    kinds = {"file": str, "sha256": str, "bytes": int}
    if (
        not isinstance(entry, dict)
        or any(not isinstance(entry.get(key), kind) for key, kind in kinds.items())
        or not is_file_name(entry["file"])
    ):
        raise DataError(
            f"{directory / 'manifest.json'}: expected of {name} the name of a file, its sha256 and "
            f"its number of bytes, got others; {_RESTORE}"
        )
    return entry


_RESTORE = (
    "restore it with `git checkout -- workloads/embedded` in a clone, by installing again, or "
    "with tools/build_embedded.py"
)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {_RESTORE}") from error
