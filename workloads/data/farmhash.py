"""FarmHash of Criteo's categories, for whole arrays at once.

Pure: numpy in, numpy out.

Source: Geoff Pike, FarmHash, 2014, https://github.com/google/farmhash, ``Fingerprint64`` for 8 to
16 bytes. TensorFlow's ``tf.strings.to_hash_bucket_fast`` is this hash modulo the buckets.
"""

from __future__ import annotations

from typing import Final

import numpy as np

_K2: Final = np.uint64(0x9AE16A3B2F90404F)
_SHIFT: Final = np.uint64(47)


def _rotated(x: np.ndarray, bits: int) -> np.ndarray:
    rotated: np.ndarray = (x >> np.uint64(bits)) | (x << np.uint64(64 - bits))
    return rotated


def fingerprint(field: np.ndarray, column: int) -> np.ndarray:
    """Fingerprint64 of each field followed by the number of its column.

    Args:
        field: 8 characters as a little-endian number (n,), uint64.
        column: 0 to 99, appended in decimal without padding.

    Returns:
        Hashes (n,), uint64.
    """
    tail = str(column).encode()
    n = len(tail)
    number = np.uint64(int.from_bytes(tail, "little") << (64 - 8 * n))
    last = (field >> np.uint64(8 * n)) | number
    mul = _K2 + np.uint64(2 * (8 + n))
    a = field + _K2
    c = _rotated(last, 37) * mul + a
    d = (_rotated(a, 25) + last) * mul
    a = (c ^ d) * mul
    a ^= a >> _SHIFT
    b = (d ^ a) * mul
    b ^= b >> _SHIFT
    hashes: np.ndarray = b * mul
    return hashes
