"""Opens the MLflow store of the mirrored journals, for many processes at once.

Boundary: addresses and directories; reads and writes no run. Uses ``MlflowClient``, never MLflow's
global "active run". A store that fails while it is opened for writing stops nothing: runs are
recorded in journals and sent later.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from timetrial.framework.files import (
    make_directory,
    make_private_directory,
    make_private_file,
    removed_on_error,
)
from timetrial.framework.paths import checked_address
from timetrial.framework.secrets import masked
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.journal import DIRECTORIES
from timetrial.tracking.store import sqlite_file
from timetrial.tracking.store.client import make_client, prepare_environment, with_driver
from timetrial.tracking.store.connection import Connection
from timetrial.tracking.store.errors import (
    DamagedStoreError,
    OutageError,
    store_errors,
    without_password,
)
from timetrial.tracking.store.sqlite_file import sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_log = logging.getLogger(__name__)

DEFAULT_ROOT = Path("runs")
"""Default directory of recorded runs, below the current directory."""

ALLOWED_URIS = (
    "sqlite:///<path>, http(s)://<host>:<port> of a running MLflow server, postgresql://..."
)
_SERVERS = ("http", "https", "databricks")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_HINT: Final = f"; expected {ALLOWED_URIS}"


@dataclasses.dataclass(frozen=True)
class Store:
    """A connection to an MLflow store.

    Attributes:
        uri: tracking URI; a sqlite path in it is absolute.
        root: absolute directory of journals, reports and checkpoints.
        artifact_location: absolute directory of artifacts; ``None`` for a server.
        connection: opens the store at first use, again after a failure.
        for_writing: True where runs are made: what the store lacks is read from journals. Readers
            raise instead.
    """

    uri: str = dataclasses.field(repr=False)
    root: Path
    artifact_location: Path | None
    connection: Connection = dataclasses.field(repr=False, compare=False)
    for_writing: bool = True

    @property
    def client(self) -> MlflowClient:
        """Client of the store.

        Raises:
            OutageError: the store cannot be opened.
        """
        return self.connection.client

    @property
    def journals(self) -> Path:
        """Directory of the journals, one file per run."""
        return self.root / DIRECTORIES[0]

    @property
    def name(self) -> str:
        """The URI without password; a sqlite path below the root becomes relative."""
        path = sqlite_path(self.uri)
        if path is not None and path.is_relative_to(self.root):
            return f"sqlite:///{path.relative_to(self.root).as_posix()}"
        return without_password(self.uri)

    def experiment_id(self, name: str, *, create: bool = True) -> str:
        """Id of the experiment ``name``; created if missing, by one process only.

        Raises:
            OutageError: the store fails.
            TrackingError: the experiment is missing and ``create`` is False, or it was deleted.
        """
        with store_errors(self.uri):
            found = self.experiment(name)
            if found is None and create:
                found = self._made(name)
            if found is None:
                known = ", ".join(sorted(e.name for e in self.client.search_experiments()))
                raise TrackingError(
                    f"experiment: expected one of {known or '(none)'} in "
                    f"{without_password(self.uri)}, got {name!r}"
                )
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"experiment {name!r} in {without_password(self.uri)} was deleted; restore it "
                f"with: MLFLOW_TRACKING_URI={without_password(self.uri)} mlflow experiments "
                f"restore --experiment-id {found.experiment_id}; or choose another "
                "tracking.experiment"
            )
        return str(found.experiment_id)

    def experiment(self, name: str) -> Experiment | None:
        """The experiment ``name``, deleted or not; None without one.

        Raises:
            OutageError: the store fails.
        """
        with store_errors(self.uri):
            return self.client.get_experiment_by_name(name)

    def _made(self, name: str) -> Experiment | None:
        """A new experiment, or that of a process which was faster, or of a reply that was lost."""
        location = None if self.artifact_location is None else self.artifact_location.as_uri()
        try:
            self.client.create_experiment(name, location)
        except Exception:
            found = self.experiment(name)
            if found is None:
                raise
            return found
        return self.experiment(name)


def resolve_uri(uri: str | None, root: Path) -> str:
    """The tracking URI: ``uri``, else ``MLFLOW_TRACKING_URI``, else sqlite in ``root``.

    Relative sqlite paths become absolute, independent of the current directory.

    Raises:
        TrackingError: a sqlite URI has no usable path.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"
    path = sqlite_path(checked_address(chosen))
    return chosen if path is None else f"sqlite:///{path}"


def open_store(uri: str | None = None, *, root: Path = DEFAULT_ROOT, create: bool = True) -> Store:
    """Opens the store; creates a missing local one.

    Several processes may open it at once: one creates it, the others wait. With ``create``, a store
    that fails gives one warning: runs are recorded in journals, and sent by the next command. A
    damaged local store below ``root`` is set aside and made anew.

    Args:
        uri: tracking URI; ``None`` takes ``MLFLOW_TRACKING_URI``, else
            ``sqlite:///<root>/mlflow.db``.
        root: directory of journals and of the default store. Artifacts of a local store are in
            ``artifacts`` beside the sqlite file; paths in a moved file are corrected.
        create: True opens for writing and creates a missing sqlite file; readers pass False.

    Raises:
        TrackingError: the kind of URI is unknown, its driver is missing, ``root`` is not writable,
            or the file is a store of another MLflow version, or damaged and outside ``root``. For
            readers also: the store fails, or does not respond within a few seconds.
    """
    root = root.expanduser().absolute()
    uri = resolve_uri(uri, root)
    kind = sqlite_file.scheme(uri)
    if kind not in (*_DATABASES, *_SERVERS):
        raise TrackingError(f"tracking URI: expected {ALLOWED_URIS}; got {masked(uri)!r}")
    database = sqlite_path(uri)
    if database is not None and not create and not database.exists():
        raise TrackingError(
            f"no runs recorded yet: {database} does not exist; make some with 'timetrial bench' "
            "or name another store in MLFLOW_TRACKING_URI"
        )
    if create:
        _check_writable(root)
    prepare_environment()
    artifacts = None
    if kind in _DATABASES:
        artifacts = (database.parent if database else root) / "artifacts"
    store = Store(uri, root, artifacts, _connection(uri, root, database, create), create)
    began = time.monotonic()
    try:
        _ = store.client
    except OutageError as error:
        if not create:
            raise
        store.connection.failed(error, time.monotonic() - began)
    return store


def _connection(uri: str, root: Path, database: Path | None, create: bool) -> Connection:
    advice = (
        f". Runs are recorded in {root / DIRECTORIES[0]}; the next command that uses this store, "
        "or 'timetrial sync', sends them"
    )
    if database is None:
        return Connection(lambda: _connect(uri), advice=advice if create else "")
    if not create:
        return Connection(lambda: _read_sqlite(uri, database, root))
    return Connection(
        lambda: _open_sqlite(uri, database, root),
        lambda: _is_the_same(uri, database),
        advice,
    )


def _connect(uri: str) -> MlflowClient:
    """An open client of a server or a database."""
    uri = with_driver(uri)
    with store_errors(uri, hint=_HINT):
        if sqlite_file.scheme(uri) in _DATABASES:
            import sqlalchemy

            # Connects once; MLflow retries ten times within 100 seconds.
            engine = sqlalchemy.create_engine(uri)
            engine.connect().close()
            engine.dispose()
        return make_client(uri)


def _open_sqlite(uri: str, database: Path, root: Path) -> MlflowClient:
    """Opens or creates a local store; a failed attempt leaves no file."""
    lock = database.with_name(database.name + ".lock")
    with store_errors(uri), removed_on_error(lock):
        try:
            make_directory(database.parent)
        except OSError as error:
            if database.is_relative_to(root):  # no journal can be written either
                raise _not_writable(root, str(error.strerror)) from error
            raise
        # Inside the lock, so that a database of another process is never removed.
        with sqlite_file.exclusive(lock):
            sqlite_file.remove_unfinished(database, lock)
            if database.exists():
                _set_damaged_aside(database, root)
            made = sqlite_file.files_of(database)
            with sqlite_file.being_made(database, lock), removed_on_error(*made):
                if database.exists():
                    sqlite_file.check_writable(database)
                make_private_file(database)  # the -wal and -shm files get its mode
                client = _opened(database)
                sqlite_file.allow_readers_while_writing(database)
                sqlite_file.follow_move(database)
                make_private_directory(database.parent / "artifacts")
    return client


def _read_sqlite(uri: str, database: Path, root: Path) -> MlflowClient:
    """Opens a local store for a reader."""
    with store_errors(uri):
        if reason := sqlite_file.damage(database):
            raise DamagedStoreError(
                f"tracking store {database}: it is {reason}; expected an MLflow database. The "
                f"journals in {root / DIRECTORIES[0]} hold the runs: 'timetrial sync' makes a new "
                "one from them"
            )
        client = _opened(database)
        sqlite_file.follow_move(database)
    return client


def _set_damaged_aside(database: Path, root: Path) -> None:
    """Renames a damaged database below the root.

    Raises:
        TrackingError: it is damaged, and lies elsewhere.
    """
    reason = sqlite_file.damage(database)
    if not reason:
        return
    if not database.is_relative_to(root):
        raise TrackingError(
            f"tracking store {database}: it is {reason}; expected an MLflow database. It lies "
            f"outside {root} and stays as it is: move it away, or name another one in tracking.uri"
        )
    aside = sqlite_file.set_aside(database)
    _log.warning(
        "tracking store %s was %s. It is now %s, and a new one is made; runs with a journal in %s "
        "are sent again",
        *(database, reason, aside, root / DIRECTORIES[0]),
    )


_opened_files: dict[Path, tuple[object, int]] = {}
"""Identity of each database that this process opened, and number of earlier files at its path."""


def _opened(database: Path) -> MlflowClient:
    """A client of a database.

    MLflow keeps one connection per address in a process, also after the file was replaced. Each
    file at a path therefore gets an address of its own.
    """
    seen, count = _opened_files.get(database, (None, -1))
    if count < 0 or seen != sqlite_file.identity(database):
        count += 1
    _opened_files[database] = (object(), count)  # equal to no file, in case the next line raises
    client = make_client(f"sqlite:///{database.parent}{'/.' * count}/{database.name}")
    _opened_files[database] = (sqlite_file.identity(database), count)
    return client


def _is_the_same(uri: str, database: Path) -> bool:
    """True when a database is the file that this process opened, and takes writes.

    Raises:
        OutageError: the file is locked or read-only.
    """
    file = sqlite_file.identity(database)
    if file is None or _opened_files.get(database, (None, 0))[0] != file:
        return False
    with store_errors(uri):
        sqlite_file.check_writable(database)
    return True


def _check_writable(directory: Path) -> None:
    """Raises TrackingError if a directory is not writable or cannot be made; makes nothing."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        code = errno.EACCES if existing.is_dir() else errno.ENOTDIR
        raise _not_writable(directory, f"{os.strerror(code)}: {existing}")


def _not_writable(directory: Path, reason: str) -> TrackingError:
    return TrackingError(
        f"tracking directory {directory}: expected one that can be created and written to, "
        f"got: {reason}"
    )
