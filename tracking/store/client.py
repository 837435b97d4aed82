"""MLflow's client: its environment, its first contact, and how long a request may take.

Boundary: the only module for MLflow's environment settings.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from timetrial.tracking.store.sqlite_file import sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

_RETRIES: Final = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_TIMEOUT: Final = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_FIRST_CONTACT_SECONDS: Final = 4
_PATIENT_SECONDS: Final = 60

# MLflow reads these at import or at each request; values already set are kept.
_ENVIRONMENT: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The default of 7 retries of 120 s with growing pauses delays a run for minutes. A retry of a
    # request whose reply was lost makes a second run. ``store.connection`` tries again later.
    _RETRIES: "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    _TIMEOUT: "10",
}


def prepare_environment() -> None:
    """Sets MLflow's settings that are not set yet."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def with_driver(uri: str) -> str:
    """The address of a PostgreSQL server with the driver that this package's extra installs.

    SQLAlchemy before 2.1 takes another one by default. An address with a driver keeps it, and so
    does one without where that driver is missing.
    """
    if importlib.util.find_spec("psycopg") is None:
        return uri
    return uri.replace("postgresql://", "postgresql+psycopg://", 1)


def make_client(uri: str) -> MlflowClient:
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
        with _settings({_RETRIES: "0", _TIMEOUT: str(_FIRST_CONTACT_SECONDS)}):
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
    return client


@contextlib.contextmanager
def once(uri: str) -> Iterator[None]:
    """Sends each request to a store inside the block once, whatever the settings of the user."""
    if sqlite_path(uri) is not None:  # no request, and other threads may read the environment
        yield
        return
    with _settings({_RETRIES: "0"}):
        yield


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Waits longer for each reply inside the block; for when no run has to wait."""
    given = os.environ.get(_TIMEOUT, "")
    seconds = max(_PATIENT_SECONDS, int(given) if given.isdecimal() else 0)
    with _settings({_TIMEOUT: str(seconds)}):
        yield


@contextlib.contextmanager
def _settings(chosen: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables inside the block."""
    before = {name: os.environ.get(name) for name in chosen}
    os.environ.update(chosen)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _some_home() -> Iterator[None]:
    """Sets a temporary HOME if there is none: the import of MLflow needs one."""
    try:
        Path.home()
    except RuntimeError:
        with _settings({"HOME": tempfile.gettempdir()}):
            yield
    else:
        yield
