"""The data sets that ship with the project: small npz files with a manifest of their digests.

Boundary: reads files beside this module with numpy only; ``tools/build_embedded.py`` wrote them.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from timetrial.framework.errors import UserError
from timetrial.framework.types import Split

DIRECTORY = Path(__file__).parents[1] / "embedded"
"""Where the files lie."""

SPLITS = tuple(Split)
"""The arrays called ``split`` hold indices into this tuple."""


class DataError(UserError, OSError):
    """A data file that is missing, unreadable or not the one it should be."""


@functools.cache
def load(name: str, directory: Path = DIRECTORY) -> Mapping[str, np.ndarray]:
    """Reads a data set and checks its digest: once per process, afterwards it is shared.

    Args:
        name: key of the manifest, such as ``"fashion_mnist"``.
        directory: where ``manifest.json`` and the files lie.

    Returns:
        Read-only arrays by name.

    Raises:
        DataError: the file or the manifest is missing, unreadable, or has another digest.
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
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable npz file ({error}); {_RESTORE}") from error
    for array in arrays.values():
        array.flags.writeable = False
    return MappingProxyType(arrays)


def sha256(name: str, directory: Path = DIRECTORY) -> str:
    """Digest of the file of a data set, as the manifest has it and ``load`` checks it."""
    return str(_entry(name, directory)["sha256"])


@functools.cache
def manifest(directory: Path = DIRECTORY) -> Mapping[str, Any]:
    """What the files should be: per data set its file, digest, licence, source and arrays.

    Raises:
        DataError: ``manifest.json`` is missing or no JSON.
    """
    path = directory / "manifest.json"
    try:
        entries = json.loads(_read(path))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
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
