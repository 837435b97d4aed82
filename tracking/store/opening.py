"""Opens the MLflow store that journals are mirrored to, ready for many processes.

Boundary: the only place that decides on URIs, directories and MLflow's environment settings;
reads and writes no run. Uses ``MlflowClient``, never MLflow's global "active run".
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
"""Default directory of everything that is recorded, under the current directory."""

ALLOWED_URIS = (
    "sqlite:///<path>, http(s)://<host>:<port> of a running MLflow server, postgresql://..."
)
_SERVERS = ("http", "https", "databricks")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_FIRST_CONTACT_SECONDS = 4

# MLflow reads these at import or at each request; whoever has set one keeps it.
_MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The default, 7 retries of 120 s with growing pauses, would hold up a run for minutes.
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
        client: the client of that store.
        artifact_location: absolute directory for artifacts, ``None`` where a server decides.
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
        """The URI without password; a sqlite path below the root is relative to it."""
        path = sqlite_path(self.uri)
        if path is not None and path.is_relative_to(self.root):
            return f"sqlite:///{path.relative_to(self.root).as_posix()}"
        return _without_password(self.uri)

    def experiment_id(self, name: str, *, create: bool = True) -> str:
        """Id of the experiment called ``name``; created when missing, by one process only.

        Raises:
            TrackingError: it is missing and ``create`` is false, or it was deleted.
        """
        from mlflow.exceptions import MlflowException

        with store_errors(self.uri):
            found = self.client.get_experiment_by_name(name)
            if found is None and create:
                # Whoever loses the race to create it finds it at the second look.
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
    """The tracking URI in force: ``uri``, else ``MLFLOW_TRACKING_URI``, else sqlite in ``root``.

    Relative sqlite paths become absolute, so that the URI means the same everywhere.

    Raises:
        TrackingError: it is a sqlite URI without a usable path.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"
    path = sqlite_path(chosen)
    return chosen if path is None else f"sqlite:///{path}"


def sqlite_path(uri: str) -> Path | None:
    """Absolute path of the file behind a sqlite URI; ``None`` for any other URI."""
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
    """Opens the store, creating it where it is a local one that does not exist yet.

    Several processes may do so at the same time: one creates, the others wait.

    Args:
        uri: tracking URI; ``None`` takes ``MLFLOW_TRACKING_URI`` and, where that is not set
            either, ``sqlite:///<root>/mlflow.db``.
        root: directory of journals and of the default store. Artifacts of a local store lie in
            ``artifacts`` beside the sqlite file; where the file was moved, the paths in it follow.
        create: whether a missing sqlite file is created; readers say no.

    Raises:
        TrackingError: no such kind of URI, a directory cannot be written, the server cannot be
            reached within a few seconds, the file is no MLflow store or of another version.
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
    """Opens a local store, made where it is new; a failed attempt leaves no file behind."""
    if not create:
        client = _connect(uri)
        _follow_move(database)
        return client
    files = [database.with_name(database.name + end) for end in ("", "-wal", "-shm", "-journal")]
    lock = database.with_name(database.name + ".lock")
    with removed_on_error(lock):
        _make_writable(database.parent)
        # Inside the lock: a database that another process has made meanwhile is not ours to remove.
        with _exclusive(lock), removed_on_error(*files):
            client = _connect(uri)
            _allow_readers_while_writing(database)
            _follow_move(database)
    return client


def _follow_move(database: Path) -> None:
    """Corrects the artifact paths in a database whose directory was moved or copied.

    MLflow stores them as absolute addresses: artifacts would go on to the old place.
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
    """Turns whatever MLflow raises inside the block into a one-line ``TrackingError``."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
        raise TrackingError(
            f"tracking store {_without_password(uri)}: {_reason(error)}{hint}"
        ) from error


def _connect(uri: str) -> MlflowClient:
    """A client whose store has answered once, which is also what creates a new store's tables."""
    with warnings.catch_warnings():
        # What MLflow's dependencies deprecate is not for our users to mend.
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
    """Connects once to a database URI: MLflow itself would try ten times over 100 seconds."""
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
    """MLflow cannot be imported without a home directory, of which nothing here makes use."""
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
    """Inside, MLflow tries a server once and for a few seconds only."""
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
            # A process that failed may have removed the file while this one waited for it.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return


def _allow_readers_while_writing(database: Path) -> None:
    """Switches to the write-ahead log, kept in the file: about twice the speed with two writers."""
    with (
        contextlib.suppress(sqlite3.OperationalError),  # it works without, only slower
        contextlib.closing(sqlite3.connect(database, timeout=5)) as connection,
    ):
        connection.execute("PRAGMA journal_mode=WAL")


def _check_writable(directory: Path) -> None:
    """Refuses a directory that could not be made or written to, without making it."""
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
    """What went wrong, in one line."""
    if isinstance(error, ImportError):
        return f"{error}; install the database driver that this URI names"
    text = str(error)
    if "out-of-date database schema" in text:
        return "it was made by another version of MLflow; back it up and run 'mlflow db upgrade'"
    if "Caused by" in text:  # requests' innermost cause, as in "[Errno 111] Connection refused"
        cause = text.rsplit(": ", 1)[-1].rstrip("'\") ")
        return f"no answer: {cause}" + ")" * (cause.count("(") - cause.count(")"))
    first = next((line.strip() for line in text.splitlines() if line.strip()), repr(error))
    return first.split(". ")[0]


def _scheme(uri: str) -> str:
    """What kind of store a URI names, without the driver (``postgresql+psycopg2``)."""
    return urlsplit(uri).scheme.partition("+")[0]


def _without_password(uri: str) -> str:
    password = urlsplit(uri).password
    return uri if password is None else uri.replace(f":{password}@", ":***@", 1)
