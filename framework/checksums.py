"""Checksums of files that are written and read back, so that no change of theirs goes unnoticed.

Boundary: bytes in, bytes out, and the small file beside another one.

A file whose format has comments (YAML, targets as CSV) begins with ``# sha256: DIGEST``, the digest
of all bytes after that line. Other files (weights, tables) have it beside them, in ``FILE.sha256``,
in the format of ``sha256sum``. Files without either are not checked: written by hand, or edited
on purpose after that line or file was removed.

SHA-256: FIPS 180-4, Secure Hash Standard, 2015, https://doi.org/10.6028/NIST.FIPS.180-4. It is no
protection against forgery: whoever changes a file can write another digest.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

from timetrial.framework.errors import ConfigError, UserError

_MARK: Final = b"# sha256: "
_SEAL: Final = re.compile(re.escape(_MARK) + rb"([0-9a-f]{64})\r?")
_BOM: Final = b"\xef\xbb\xbf"
_HEXADECIMAL: Final = frozenset(b"0123456789abcdefABCDEF")


class ChecksumError(UserError):
    """A file has other bytes than those that were written."""


def seal(text: str) -> bytes:
    """A text with its digest in a first line."""
    data = text.encode()
    return _MARK + _digest(data) + b"\n" + data


def unsealed(data: bytes, source: str) -> bytes:
    """The text with its first line emptied if that holds a digest; other texts unchanged.

    Args:
        data: content of a file.
        source: its name, for errors.

    Raises:
        ConfigError: the text has another digest, or its first line is damaged.
    """
    first, newline, rest = data.removeprefix(_BOM).partition(b"\n")
    found = _SEAL.fullmatch(first)
    if found is None and not _is_like_a_seal(first):
        return data
    if found is None or _digest(rest) != found[1]:
        raise ConfigError(
            f"{source}: the file was changed since it was written, it has another sha256 than its "
            "first line says; to accept your own edits, remove that line"
        )
    return newline + rest


def _digest(data: bytes) -> bytes:
    """Digest in hexadecimal digits; other ends of lines, as editors write them, change nothing."""
    return hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest().encode()


def _is_like_a_seal(line: bytes) -> bool:
    """True for a first line that was one before a few of its bytes were changed."""
    digits = sum(byte in _HEXADECIMAL for byte in line)
    return line.startswith(_MARK[:7]) or (digits >= 56 and len(line) < 100)


def digest_path(path: Path) -> Path:
    """File that holds the digest of another one, in the format of ``sha256sum``."""
    return path.with_name(path.name + ".sha256")


def digest_line(name: str, data: bytes) -> bytes:
    """Content of the file beside a file of this name and content."""
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


def check_beside(path: Path, data: bytes) -> None:
    """Compares a file with the digest beside it, if there is one.

    Args:
        path: the file.
        data: its content.

    Raises:
        ChecksumError: they differ, or the digest is not readable.
    """
    recorded = digest_path(path)
    try:
        with recorded.open("rb") as file:
            text = file.read(1024)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise ChecksumError(f"{recorded}: cannot be read: {error}") from None
    found = re.match(rb"([0-9a-f]{64})(?:\s|$)", text)
    if found is None:
        raise ChecksumError(f"{recorded}: expected a sha256 in 64 hexadecimal digits")
    digest = hashlib.sha256(data).hexdigest()
    if digest != found[1].decode():
        raise ChecksumError(
            f"{path}: the file has changed: expected sha256 {found[1].decode()}, recorded in "
            f"{recorded.name}, got {digest}; to accept your own edits, remove {recorded.name}"
        )
