"""Opens the MLflow store of the mirrored journals, for many processes at once.

Boundary: the only module for URIs, directories and MLflow's environment settings; reads and writes
no run. Uses ``MlflowClient``, never MLflow's global "active run".
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import logging
import os
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from timetrial.framework.files import removed_on_error
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.journal import DIRECTORIES

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)

DEFAULT_ROOT = Path("runs")
"""Default directory of recorded runs, below the current directory."""

ALLOWED_URIS = (
    "sqlite:///<path>, http(s)://<host>:<port> of a running MLflow server, postgresql://..."
)
_SERVERS = ("http", "https", "databricks")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_FIRST_CONTACT_SECONDS = 4

# MLflow reads these at import or at each request; values already set are kept.
_MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The default of 7 retries of 120 s with growing pauses delays a run for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


@dataclasses.dataclass(frozen=True)
class Store:
    """An open connection to an MLflow store.

    Attributes:
        uri: tracking URI; a sqlite path in it is absolute.
        root: absolute directory of journals, reports and checkpoints.
        client: client of the store.
        artifact_location: absolute directory of artifacts; ``None`` for a server.
    """

    uri: str
    root: Path
    client: MlflowClient
    artifact_location: Path | None

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
        return _without_password(self.uri)

    def experiment_id(self, name: str, *, create: bool = True) -> str:
        """Id of the experiment ``name``; created if missing, by one process only.

        Raises:
            TrackingError: the experiment is missing and ``create`` is False, or it was deleted.
        """
        from mlflow.exceptions import MlflowException

        with store_errors(self.uri):
            found = self.client.get_experiment_by_name(name)
            if found is None and create:
                # If another process creates it first, the second lookup finds it.
                with contextlib.suppress(MlflowException):
                    return str(self.client.create_experiment(name, self._artifact_uri()))
                found = self.client.get_experiment_by_name(name)
            if found is None:
                known = ", ".join(sorted(e.name for e in self.client.search_experiments()))
                raise TrackingError(
                    f"experiment: expected one of {known or '(none)'} in {self.uri}, got {name!r}"
                )
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"experiment {name!r} in {_without_password(self.uri)} was deleted; restore it "
                f"with: MLFLOW_TRACKING_URI={_without_password(self.uri)} mlflow experiments "
                f"restore --experiment-id {found.experiment_id}; or choose another "
                "tracking.experiment"
            )
        return str(found.experiment_id)

    def _artifact_uri(self) -> str | None:
        return None if self.artifact_location is None else self.artifact_location.as_uri()


def resolve_uri(uri: str | None, root: Path) -> str:
    """The tracking URI: ``uri``, else ``MLFLOW_TRACKING_URI``, else sqlite in ``root``.

    Relative sqlite paths become absolute, independent of the current directory.

    Raises:
        TrackingError: a sqlite URI has no usable path.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"
    path = sqlite_path(chosen)
    return chosen if path is None else f"sqlite:///{path}"


def sqlite_path(uri: str) -> Path | None:
    """Absolute path of the file of a sqlite URI; ``None`` for any other URI."""
    if _scheme(uri) != "sqlite":
        return None
    name = uri.partition(":///")[2]
    if not name or name.startswith(":memory:"):
        raise TrackingError(f"tracking URI: expected a file, as in sqlite:///<path>; got {uri!r}")
    path = Path(name).expanduser().absolute()
    if "%" in str(path) or "?" in str(path):  # versions of SQLAlchemy read these differently
        raise TrackingError(f"tracking URI: expected a path without '%' and '?', got {path}")
    return path


def open_store(uri: str | None = None, *, root: Path = DEFAULT_ROOT, create: bool = True) -> Store:
    """Opens the store; creates a missing local one.

    Several processes may open it at once: one creates it, the others wait.

    Args:
        uri: tracking URI; ``None`` takes ``MLFLOW_TRACKING_URI``, else
            ``sqlite:///<root>/mlflow.db``.
        root: directory of journals and of the default store. Artifacts of a local store are in
            ``artifacts`` beside the sqlite file; paths in a moved file are corrected.
        create: True creates a missing sqlite file; readers pass False.

    Raises:
        TrackingError: the kind of URI is unknown, a directory is not writable, the server does not
            respond within a few seconds, or the file is not an MLflow store of this version.
    """
    root = root.expanduser().absolute()
    uri = resolve_uri(uri, root)
    if _scheme(uri) not in (*_DATABASES, *_SERVERS):
        raise TrackingError(f"tracking URI: expected {ALLOWED_URIS}; got {uri!r}")
    database = sqlite_path(uri)
    if database is not None and not create and not database.exists():
        raise TrackingError(
            f"no runs recorded yet: {database} does not exist; make some with 'timetrial bench' "
            "or name another store in MLFLOW_TRACKING_URI"
        )
    if create:
        _check_writable(root)
    _prepare_environment()
    client = _connect(uri) if database is None else _open_sqlite(uri, database, create)
    artifacts = None
    if _scheme(uri) in _DATABASES:
        artifacts = (database.parent if database else root) / "artifacts"
    return Store(uri=uri, root=root, client=client, artifact_location=artifacts)


def _open_sqlite(uri: str, database: Path, create: bool) -> MlflowClient:
    """Opens or creates a local store; a failed attempt leaves no file."""
    if not create:
        client = _connect(uri)
        with store_errors(uri):
            _follow_move(database)
        return client
    files = [database.with_name(database.name + end) for end in ("", "-wal", "-shm", "-journal")]
    lock = database.with_name(database.name + ".lock")
    with removed_on_error(lock):
        _make_writable(database.parent)
        # Inside the lock, so that a database of another process is never removed.
        with _exclusive(lock), removed_on_error(*files):
            client = _connect(uri)
            with store_errors(uri):
                _allow_readers_while_writing(database)
                _follow_move(database)
    return client


def _follow_move(database: Path) -> None:
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


@contextlib.contextmanager
def store_errors(uri: str, hint: str = "") -> Iterator[None]:
    """Turns errors of MLflow inside the block into a one-line ``TrackingError``."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (
        MlflowException,
        SQLAlchemyError,
        sqlite3.Error,
        OSError,
        ImportError,
        UnicodeError,  # of a damaged database
    ) as error:
        raise TrackingError(
            f"tracking store {_without_password(uri)}: {_reason(error)}{hint}"
        ) from error


def _connect(uri: str) -> MlflowClient:
    """An open client; the first request checks the store and creates missing tables."""
    with warnings.catch_warnings():
        # Deprecations in MLflow's dependencies do not concern users.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        with _some_home():
            from mlflow import MlflowClient

        # Failures reach the user as a TrackingError, not as a logged traceback.
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        with store_errors(uri, hint=f"; expected {ALLOWED_URIS}"), _impatient():
            _probe_database(uri)
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
    return client


def _probe_database(uri: str) -> None:
    """Connects once to a database URI; MLflow retries ten times within 100 seconds."""
    path = sqlite_path(uri)
    if path is not None:
        with contextlib.closing(sqlite3.connect(path, timeout=20)) as connection:
            connection.execute("PRAGMA schema_version")
    elif _scheme(uri) in _DATABASES:
        import sqlalchemy

        engine = sqlalchemy.create_engine(uri)
        engine.connect().close()
        engine.dispose()


def _prepare_environment() -> None:
    for name, value in _MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def _some_home() -> Iterator[None]:
    """Sets a temporary HOME if there is none: the import of MLflow needs one."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()
        try:
            yield
        finally:
            del os.environ["HOME"]
    else:
        yield


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Limits MLflow to one request of a few seconds inside the block."""
    short = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_FIRST_CONTACT_SECONDS),
    }
    before = {name: os.environ.get(name) for name in short}
    os.environ.update(short)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file, across processes."""
    while True:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Another, failed process may have removed the file in the meantime.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return


def _allow_readers_while_writing(database: Path) -> None:
    """Switches the file to the write-ahead log: about twice the speed with two writers."""
    with (
        contextlib.suppress(sqlite3.OperationalError),  # optional: only speed
        contextlib.closing(sqlite3.connect(database, timeout=5)) as connection,
    ):
        connection.execute("PRAGMA journal_mode=WAL")


def _check_writable(directory: Path) -> None:
    """Raises TrackingError if a directory is not writable or cannot be made; makes nothing."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        code = errno.EACCES if existing.is_dir() else errno.ENOTDIR
        raise TrackingError(
            f"tracking directory {directory}: expected one that can be created and written to, "
            f"got: {os.strerror(code)}: {existing}"
        )


def _make_writable(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        writable = os.access(directory, os.W_OK | os.X_OK)
        reason = "no write permission"
    except OSError as error:
        writable, reason = False, str(error.strerror)
    if not writable:
        raise TrackingError(
            f"tracking directory {directory}: expected one that can be created and written to, "
            f"got: {reason}"
        )


def _reason(error: Exception) -> str:
    """The cause of an error, in one line."""
    if isinstance(error, ImportError):
        return f"{error}; install the database driver that this URI names"
    text = str(error)
    if "out-of-date database schema" in text:
        return "it was made by another version of MLflow; back it up and run 'mlflow db upgrade'"
    if "Caused by" in text:  # innermost cause, as in "[Errno 111] Connection refused"
        cause = text.rsplit(": ", 1)[-1].rstrip("'\") ")
        return f"no answer: {cause}" + ")" * (cause.count("(") - cause.count(")"))
    first = next((line.strip() for line in text.splitlines() if line.strip()), repr(error))
    return first.split(". ")[0]


def _scheme(uri: str) -> str:
    """Scheme of a URI, without the driver (``postgresql+psycopg2``)."""
    return urlsplit(uri).scheme.partition("+")[0]


def _without_password(uri: str) -> str:
    password = urlsplit(uri).password
    return uri if password is None else uri.replace(f":{password}@", ":***@", 1)
