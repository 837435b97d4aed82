"""Paths and addresses as typed by users: ``~`` is the home directory.

Boundary: looks up home directories; opens no file.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Final

from timetrial.framework.errors import UserError
from timetrial.framework.secrets import MASK, remember

_LONGEST_PART: Final = 255
_LONGEST_PATH: Final = 4000
"""Sizes in bytes that file systems allow; looking for a longer name is an error, not a miss."""


class PathError(UserError, ValueError):
    """A path names no home directory or is too long, or an address cannot be used."""


def expanded(path: str) -> str:
    """The path with a leading ``~`` or ``~USER`` replaced by that home directory.

    Raises:
        PathError: there is no such user, or this user has no home directory; the path is too long.
    """
    found = os.path.expanduser(path)
    parts = [part.encode("utf-8", "surrogatepass") for part in found.split("/")]
    if max(map(len, parts)) > _LONGEST_PART or sum(map(len, parts)) + len(parts) > _LONGEST_PATH:
        raise PathError(
            f"expected a path of names of at most {_LONGEST_PART} bytes, got {path[:40]!r}... "
            f"({len(path):,} characters)"
        )
    if found.startswith("~"):
        raise PathError(
            f"expected a path, got {path!r}: {path.split('/')[0]} has no home directory here "
            f"(set HOME, or write ./{path} for a file of that name)"
        )
    return found


def expanded_uri(uri: str) -> str:
    """The address with ``~`` at the start of its path replaced: ``sqlite:///~/m.db``, ``~/runs``.

    Raises:
        PathError: as in ``expanded`` and ``checked_address``.
    """
    uri = checked_address(uri)
    head = re.match(r"(?:[a-z][a-z0-9+.-]*:(?:///?)?)?(?=~)", uri, re.IGNORECASE)
    if head is None:
        if re.match(r"(sqlite|file|journal):|[^:]*$", uri):
            expanded(uri)  # for its length
        return uri
    scheme = head[0].replace("file:///", "file://")  # sqlite needs a fourth slash, file does not
    return scheme + expanded(uri[head.end() :])


def checked_address(uri: str) -> str:
    """The address; its password is masked in every text from now on.

    Raises:
        PathError: it has the old name of PostgreSQL, or a masked password.
    """
    remember(uri)
    if uri.startswith("postgres:"):
        raise PathError(f"expected postgresql://, as SQLAlchemy knows no postgres://; got {uri!r}")
    if f":{MASK}@" in uri:
        raise PathError(
            f"expected an address with its password, got {uri!r}; passwords are masked wherever "
            "they are written down, so type it again"
        )
    return uri


def user_path(path: str) -> Path:
    """A typed path with ``~`` expanded.

    Raises:
        PathError: as in ``expanded``.
    """
    return Path(expanded(path))


def legal_name(text: str) -> str:
    """A text as a part of a file name: letters, digits, ``_ . -``, at most 100 of them.

    At most 180 bytes, since file systems allow 255. Different texts may get the same name.
    """
    return re.sub(r"[^\w.\-]+", "_", text)[:100].encode()[:180].decode(errors="ignore")


def own_name(text: str) -> str:
    """A text as the name of a file or directory of its own: a changed one ends with a digest."""
    name = legal_name(text).lstrip(".")
    if name == text and name:
        return name
    return f"{name}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"


def is_file_name(name: str) -> bool:
    """Whether a text names a file in a directory, and none outside it."""
    apart = {"/", "\\", "\0", *map(chr, range(0xD800, 0xE000))}  # surrogates have no bytes
    return bool(name) and name not in (".", "..") and not set(name) & apart


UserPath = Annotated[str, expanded]
"""Type of a setting for a file or directory."""

UserUri = Annotated[str, expanded_uri]
"""Type of a setting for an address, such as ``sqlite:///PATH``, or a path."""
