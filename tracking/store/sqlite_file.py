"""The database file of a local store: made once, checked, set aside when damaged.

Boundary: files, locks and SQLite; calls nothing of MLflow.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from timetrial.framework.files import owner_only
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.store.errors import is_damage

_log = logging.getLogger(__name__)

LOCKED_SECONDS: Final = 5.0
"""Time to wait for another process that has locked the file."""

CHECKED_BYTES: Final = 2**30
"""Largest file that is checked as a whole at opening; 76 MB take 0.06 s."""

_ENDINGS: Final = ("", "-wal", "-shm", "-journal")
_MAGIC: Final = b"SQLite format 3\0"


def sqlite_path(uri: str) -> Path | None:
    """Absolute path of the file of a sqlite URI; ``None`` for any other URI."""
    if scheme(uri) != "sqlite":
        return None
    name = uri.partition(":///")[2]
    if not name or name.startswith(":memory:"):
        raise TrackingError(f"tracking URI: expected a file, as in sqlite:///<path>; got {uri!r}")
    path = Path(name).expanduser().absolute()
    if "%" in str(path) or "?" in str(path):  # versions of SQLAlchemy read these differently
        raise TrackingError(f"tracking URI: expected a path without '%' and '?', got {path}")
    return path


def scheme(uri: str) -> str:
    """Scheme of a URI, without the driver (``postgresql+psycopg2``)."""
    return urlsplit(uri).scheme.partition("+")[0]


def files_of(database: Path) -> list[Path]:
    """The database and the files that SQLite keeps beside it."""
    return [database.with_name(database.name + ending) for ending in _ENDINGS]


def damage(database: Path) -> str:
    """Why an existing file is no intact database; "" if it is one.

    Raises:
        sqlite3.Error: the file cannot be checked, for example because it is locked.
        OSError: the file is unreadable.
    """
    size = database.stat().st_size
    if size == 0:
        return "empty (0 bytes)"
    with database.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return "damaged (file is not a database)"
    try:
        with contextlib.closing(_connected(database)) as connection:
            check = "quick_check(1)" if size <= CHECKED_BYTES else "schema_version"
            (found,) = connection.execute(f"PRAGMA {check}").fetchone()
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return f"damaged ({error})"
        raise
    return "" if found == "ok" or isinstance(found, int) else f"damaged ({found})".splitlines()[0]


def set_aside(database: Path) -> Path:
    """Renames a damaged database and the files beside it; returns the new path."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = [f"{database.name}.damaged-{stamp}{more}" for more in ("", *map("-{}".format, _COUNT))]
    free = (database.with_name(name) for name in names)
    aside = next(path for path in free if not path.exists())
    for old, new in zip(files_of(database), files_of(aside), strict=True):
        with contextlib.suppress(FileNotFoundError):
            old.rename(new)
    return aside


_COUNT: Final = range(2, 100)


def remove_unfinished(database: Path, lock: Path) -> None:
    """Removes a database whose process was killed while it made the schema; call it in the lock.

    Half of a schema looks like an intact database, so the lock file says it (``being_made``).
    """
    if lock.read_bytes() == _MAKING and not _has_runs(database):
        for path in files_of(database):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def being_made(database: Path, lock: Path) -> Iterator[None]:
    """Notes in the lock file that a missing database is made inside; call it in the lock."""
    if not database.exists():
        lock.write_bytes(_MAKING)
    yield
    if lock.stat().st_size:
        lock.write_bytes(b"")


_MAKING: Final = b"the database is being made\n"


def _has_runs(database: Path) -> bool:
    """True when a database has a run."""
    try:
        with contextlib.closing(_connected(database)) as connection:
            return connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is not None
    except sqlite3.DatabaseError:  # no file, no table, no database
        return False


def check_writable(database: Path) -> None:
    """Returns if another process could write now; waits a few seconds for a lock.

    Raises:
        sqlite3.Error: the file is missing, locked or read-only.
    """
    with contextlib.closing(_connected(database)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def identity(database: Path) -> tuple[int, int] | None:
    """Identity of the file behind a path; None without one. A replaced file has another one."""
    try:
        status = database.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def follow_move(database: Path) -> None:
    """Corrects the artifact paths in a database whose directory was moved or copied.

    MLflow stores absolute addresses, which would still lead to the old directory.
    """
    here = (database.parent / "artifacts").as_uri()
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        found = connection.execute("SELECT DISTINCT artifact_location FROM experiments")
        moved = [old for (old,) in found if str(old).endswith("/artifacts") and old != here]
        for old in moved:
            if not str(old).startswith("file:"):
                continue
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?",
                (here, old),
            )
            connection.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE substr(artifact_uri, 1, ?) = ?",
                (here, len(old) + 1, len(old) + 1, f"{old}/"),
            )
            _log.warning("%s was moved: its artifact paths lead to %s now", database, here)


def allow_readers_while_writing(database: Path) -> None:
    """Switches the file to the write-ahead log: about twice the speed with two writers."""
    with (
        contextlib.suppress(sqlite3.OperationalError),  # optional: only speed
        contextlib.closing(sqlite3.connect(database, timeout=5)) as connection,
    ):
        connection.execute("PRAGMA journal_mode=WAL")


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file, across processes."""
    while True:
        with open(path, "a", opener=owner_only) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Another, failed process may have removed the file in the meantime.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return


def _connected(database: Path) -> sqlite3.Connection:
    """A connection to an existing file; makes none."""
    address = f"file:{quote(str(database))}?mode=rw"
    return sqlite3.connect(address, timeout=LOCKED_SECONDS, isolation_level=None, uri=True)
