"""Errors of an MLflow store, in one line each.

Boundary: turns exceptions into ``TrackingError``; decides nothing.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator

from timetrial.framework.errors import UserError
from timetrial.framework.secrets import masked
from timetrial.tracking.record.errors import TrackingError


class OutageError(TrackingError):
    """The store fails, perhaps only for now; runs are recorded in journals all the same."""


class DamagedStoreError(OutageError):
    """The file of a local store is empty, damaged, or no database."""


@contextlib.contextmanager
def store_errors(uri: str, hint: str = "") -> Iterator[None]:
    """Turns errors of MLflow inside the block into a one-line ``TrackingError``.

    Behind a broken server MLflow raises many kinds of errors, such as those of a JSON parser.

    Raises:
        OutageError: the store fails.
        DamagedStoreError: its database is damaged.
        TrackingError: a driver is missing, or the store is of another MLflow version.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = f"tracking store {without_password(uri)}: {_reason(error)}{hint}"
        raise _kind(error)(text) from error


def is_damage(error: BaseException) -> bool:
    """True when SQLite says that a file is no intact database."""
    text = str(error)
    return any(part in text for part in ("malformed", "is not a database", "file is encrypted"))


def without_password(uri: str) -> str:
    """The URI with ``***`` in place of its password."""
    return masked(uri)


def _kind(error: Exception) -> type[TrackingError]:
    if isinstance(error, ImportError) or "out-of-date database schema" in str(error):
        return TrackingError
    return DamagedStoreError if is_damage(error) else OutageError


def _reason(error: Exception) -> str:
    """The cause of an error, in one line."""
    if isinstance(error, ImportError):
        return f"{error}; install the database driver that this URI names"
    text = str(error)
    if "out-of-date database schema" in text:
        return "it was made by another version of MLflow; back it up and run 'mlflow db upgrade'"
    if "Caused by" in text:  # innermost cause, as in "[Errno 111] Connection refused"
        cause = re.split(r": |\('", text.rpartition("Caused by")[2].rstrip("'\") "))[-1]
        return f"no answer: {cause}" + ")" * (cause.count("(") - cause.count(")"))
    first = next((line.strip() for line in text.splitlines() if line.strip()), repr(error))
    known = isinstance(error, OSError | sqlite3.Error) or type(error).__module__ != "builtins"
    return first.split(". ")[0] if known else f"{type(error).__name__}: {first.split('. ')[0]}"
