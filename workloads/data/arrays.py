"""Reads array files (.npy, .npz) that may be damaged.

Boundary: numpy files in, arrays out; nothing in a file is executed.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import IO, Final

import numpy as np

MAX_BYTES: Final = 1 << 30
"""Maximum size of the arrays of one .npz file, uncompressed."""

_DAMAGED: Final = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, OverflowError, RecursionError),
    *(SyntaxError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error, TokenError),
)
"""What numpy raises for files that are no arrays."""


def read_array(path: Path) -> np.ndarray:
    """The array of a .npy file.

    Raises:
        ValueError: the file is damaged, or has another size than its header says.
        OSError: it is not readable.
    """
    with path.open("rb") as file:
        try:
            _check_size(file)
            file.seek(0)
            array: np.ndarray = np.load(file, allow_pickle=False)
        except _DAMAGED as error:
            raise ValueError(f"not an array file: {type(error).__name__}: {error}") from error
    return array


def _check_size(file: IO[bytes]) -> None:
    """Refuses a header that promises more numbers than there are, before any memory is taken."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"expected version 1.0 or 2.0 of the format, got {version}")
    shape, _, dtype = readers[version](file)
    found = os.fstat(file.fileno()).st_size - file.tell()
    expected = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or expected != found:
        raise ValueError(f"expected {expected:,} bytes of {dtype}{list(shape)}, got {found:,}")


def arrays_in(data: bytes) -> Mapping[str, np.ndarray]:
    """The arrays of a .npz file by name.

    Raises:
        ValueError: the data are damaged, or the arrays take more than ``MAX_BYTES``.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise ValueError(f"expected arrays of at most {MAX_BYTES:,} bytes, got {size:,}")
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            return {key: found[key] for key in found.files}
    except _DAMAGED as error:
        raise ValueError(f"not an npz file: {type(error).__name__}: {error}") from error
