"""Storages of studies: any database or a journal file, for many workers at once.

Boundary: URLs in, an opened storage and its lock out; independent of plans and runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from timetrial.framework.errors import UserError
from timetrial.framework.files import make_directory, make_private_file, owner_only
from timetrial.framework.secrets import masked
from timetrial.tracking.store.client import with_driver

ALLOWED = (
    "sqlite:///PATH, postgresql://USER@HOST:PORT/NAME, another database of SQLAlchemy, "
    "or journal:PATH"
)
SILENT_HEARTBEATS = 4
"""Missed heartbeats after which a worker counts as dead."""


@dataclasses.dataclass(frozen=True)
class Database:
    """An opened storage.

    Attributes:
        url: its URL, without password.
        storage: optuna's storage.
        lock: excludes all other workers inside its ``with`` block, on any machine that reaches the
            database (sqlite and journal: that shares the file system). Errors inside are
            ``UserError``.
        heartbeat_seconds: pause between two heartbeats; None if the storage has none.
    """

    url: str
    storage: BaseStorage
    lock: Callable[[], AbstractContextManager[None]]
    heartbeat_seconds: int | None

    @contextlib.contextmanager
    def alive(self, trial_id: int) -> Iterator[None]:
        """Sends heartbeats of a running trial from a thread, inside its ``with`` block."""
        if not isinstance(self.storage, RDBStorage) or self.heartbeat_seconds is None:
            yield
            return
        ended = threading.Event()
        thread = threading.Thread(
            target=_beat, args=(self.storage, trial_id, self.heartbeat_seconds, ended), daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _beat(storage: RDBStorage, trial_id: int, seconds: int, ended: threading.Event) -> None:
    while not ended.wait(seconds):
        with contextlib.suppress(Exception):  # the next heartbeat may succeed
            storage.record_heartbeat(trial_id)


def check_storage(url: str) -> None:
    """Connects to a database server, or checks the name of a file; creates nothing.

    Raises:
        UserError: no such kind of URL, the server cannot be reached, or a driver is missing.
    """
    shown = _without_password(url)
    kind = _kind(url, shown)
    if kind in ("sqlite", "journal"):
        _path(url, {"sqlite": "sqlite:///", "journal": "journal:"}[kind], shown)
        return
    import sqlalchemy

    with _storage_errors(shown):
        engine = sqlalchemy.create_engine(with_driver(url))
        engine.connect().close()
        engine.dispose()


def open_storage(url: str, heartbeat_seconds: int) -> Database:
    """Opens or creates a storage; several workers may call it at the same time.

    Raises:
        UserError: no such kind of URL, it cannot be reached or written, or a driver is missing.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    shown = _without_password(url)
    kind = _kind(url, shown)
    if kind == "journal":
        return _open_journal(_file(url, "journal:", shown), shown)
    url = with_driver(url)
    lock = _file_lock(_file(url, "sqlite:///", shown)) if kind == "sqlite" else _database_lock(url)
    lock = _told(lock, shown)
    with lock(), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = RDBStorage(
            url,
            heartbeat_interval=heartbeat_seconds,
            grace_period=SILENT_HEARTBEATS * heartbeat_seconds,
        )
    return Database(shown, storage, lock, heartbeat_seconds)


def _kind(url: str, shown: str) -> str:
    """Kind of storage of a URL."""
    try:
        return urlsplit(url).scheme.partition("+")[0]
    except ValueError as error:
        raise UserError(f"study.storage: expected {ALLOWED}; got {shown!r}") from error


@contextlib.contextmanager
def _storage_errors(shown: str) -> Iterator[None]:
    """Turns any exception inside the block into a one-line ``UserError``.

    A damaged storage raises any of them: KeyError, JSONDecodeError, AssertionError, ...
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # SQLAlchemy, its drivers and optuna share no class
        reason = " ".join(str(error).split("\n")[0].split())[:300]
        raise UserError(
            f"study.storage: cannot use {shown}: {type(error).__name__}: {reason}; expected "
            f"{ALLOWED}"
        ) from error


def _open_journal(path: Path, shown: str) -> Database:
    lock = _told(_file_lock(path), shown)
    with lock():
        storage = JournalStorage(JournalFileBackend(str(path)))
    return Database(shown, storage, lock, None)


def _path(url: str, prefix: str, shown: str) -> Path:
    """The file of a URL."""
    name = url.partition(prefix)[2]
    if prefix == "journal:" and name.startswith("//"):
        name = name[2:]
    if not name or name.startswith(":memory:"):
        raise UserError(f"study.storage: expected a file, as in {prefix}PATH; got {shown!r}")
    return Path(name).absolute()


def _file(url: str, prefix: str, shown: str) -> Path:
    """The file of a URL; creates its directory."""
    path = _path(url, prefix, shown)
    try:
        make_directory(path.parent)
        make_private_file(path)
        make_private_file(path.with_name(f"{path.name}.workers"))
    except OSError as error:
        raise UserError(f"study.storage: cannot write {path}: {error.strerror}") from error
    return path


def _file_lock(path: Path) -> Callable[[], AbstractContextManager[None]]:
    """A lock on a file beside ``path``; the system releases it at the end of the process."""

    @contextlib.contextmanager
    def lock() -> Iterator[None]:
        with open(path.with_name(f"{path.name}.workers"), "a", opener=owner_only) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    return lock


def _told(
    lock: Callable[[], AbstractContextManager[None]], shown: str
) -> Callable[[], AbstractContextManager[None]]:
    """A lock in whose block every error of the storage becomes a ``UserError``."""

    @contextlib.contextmanager
    def told() -> Iterator[None]:
        with _storage_errors(shown), lock():
            yield

    return told


def _database_lock(url: str) -> Callable[[], AbstractContextManager[None]]:
    """A lock in the database itself; the database releases it at the end of the connection."""
    import sqlalchemy

    key = zlib.crc32(b"timetrial tune")
    statements = {
        "postgresql": (f"SELECT pg_advisory_lock({key})", f"SELECT pg_advisory_unlock({key})"),
        "mysql": ("SELECT GET_LOCK('timetrial', -1)", "SELECT RELEASE_LOCK('timetrial')"),
    }

    @contextlib.contextmanager
    def lock() -> Iterator[None]:
        engine = sqlalchemy.create_engine(
            url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT"
        )
        if engine.dialect.name not in statements:
            raise UserError(
                f"study.storage: expected sqlite, postgresql, mysql or journal, which have a lock; "
                f"got {engine.dialect.name}"
            )
        take, release = statements[engine.dialect.name]
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(take))
            try:
                yield
            finally:
                connection.execute(sqlalchemy.text(release))

    return lock


def _without_password(url: str) -> str:
    return masked(url)
