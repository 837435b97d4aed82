"""Where the queue of a race lies, and whether other machines reach it.

Boundary: addresses in, an opened queue out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from timetrial.bench.launch.queue import Queue
from timetrial.framework.config import Tracking
from timetrial.framework.errors import UserError
from timetrial.framework.files import make_directory, make_private_file
from timetrial.framework.secrets import masked
from timetrial.tracking.store.client import with_driver
from timetrial.tracking.store.opening import resolve_uri
from timetrial.tracking.store.sqlite_file import scheme, sqlite_path

ALLOWED: Final = (
    "postgresql://USER@HOST:PORT/NAME, or sqlite:///PATH for the workers of one machine"
)


def queue_uri(tracking: Tracking) -> str:
    """Address of the queue: the given one, else the store's database, else a file in the root.

    Raises:
        UserError: the store is a server, which keeps no queue; or the address is no database.
    """
    root = Path(tracking.root).absolute()
    store = resolve_uri(tracking.uri, root)
    kind = scheme(store)
    chosen = tracking.queue
    if chosen is None and kind == "postgresql":
        chosen = store
    if chosen is None and kind == "sqlite":
        chosen = f"sqlite:///{root / 'queue.db'}"
    if chosen is None:
        raise UserError(
            f"tracking.queue: expected {ALLOWED}; the store {masked(store)} keeps no queue of runs"
        )
    if scheme(chosen) not in ("postgresql", "sqlite"):
        raise UserError(f"tracking.queue: expected {ALLOWED}; got {masked(chosen)!r}")
    path = sqlite_path(chosen)
    return chosen if path is None else f"sqlite:///{path}"


def check_reachable(tracking: Tracking, launcher: str) -> None:
    """Refuses a store or queue that lies in a file of this machine.

    Raises:
        UserError: the store or the queue is a file.
    """
    store = resolve_uri(tracking.uri, Path(tracking.root).absolute())
    if scheme(store) == "sqlite":
        raise UserError(
            f"launcher={launcher}: expected tracking.uri=http(s)://... or postgresql://..., which "
            f"every machine reaches; got {masked(store)}, a file of this one"
        )
    if scheme(queue_uri(tracking)) == "sqlite":
        raise UserError(
            f"launcher={launcher}: expected tracking.queue=postgresql://..., which every machine "
            "reaches; got a file of this one"
        )


def check_shared(storage: str, tracking: Tracking, launcher: str) -> None:
    """Refuses the storage of a study in a file of this machine, or in the store's own database.

    Raises:
        UserError: it is a file, or the tables of MLflow and Optuna would meet.
    """
    store = resolve_uri(tracking.uri, Path(tracking.root).absolute())
    if (
        scheme(storage) == scheme(store)
        and storage.partition("://")[2] == store.partition("://")[2]
    ):
        raise UserError(
            f"study.storage: expected another database than tracking.uri, got {masked(storage)} "
            "for both; MLflow and Optuna name tables alike"
        )
    if scheme(storage) in ("sqlite", "journal", ""):
        raise UserError(
            f"launcher={launcher}: expected study.storage=postgresql://..., which every machine "
            f"reaches; got {masked(storage)}, a file of this one"
        )


def queue_exists(tracking: Tracking) -> bool:
    """False when the queue is a file that is not there; a server's is looked for later."""
    path = sqlite_path(queue_uri(tracking))
    return path is None or path.exists()


def open_queue(tracking: Tracking) -> Queue:
    """Opens the queue of an experiment; makes it if it is missing.

    Raises:
        UserError: the address is wrong, or the database cannot be reached or written.
    """
    uri = queue_uri(tracking)
    with _errors(uri):
        queue = Queue(_engine(uri), tracking.experiment)
        queue.make_tables()
    return queue


def _engine(uri: str) -> sa.Engine:
    path = sqlite_path(uri)
    if path is None:
        return sa.create_engine(with_driver(uri), pool_pre_ping=True)
    make_directory(path.parent)
    make_private_file(path)
    engine = sa.create_engine(uri, connect_args={"timeout": 60})

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy begins transactions itself, below
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-32768")  # KiB: the rows of 10,000 runs

    @sa.event.listens_for(engine, "begin")
    def began(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # readers that write later would deadlock

    return engine


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Turns what a database or its driver raises into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # SQLAlchemy and its drivers share no class
        reason = " ".join(str(error).split("\n")[0].split())[:300]
        raise UserError(
            f"tracking.queue: cannot use {masked(uri)}: {type(error).__name__}: {reason}; expected "
            f"{ALLOWED}"
        ) from error
