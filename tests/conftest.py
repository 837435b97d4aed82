"""Settings of every test: no deadlines, for slow or busy machines.

Programs are compiled once, and databases migrated once.
"""

import importlib.util
import os
import shutil
import tempfile
from typing import Any

import mlflow_tables

if importlib.util.find_spec("hypothesis") is not None:  # tests/gpu runs where it may be missing
    from hypothesis import settings

    settings.register_profile("timetrial", deadline=None)
    settings.load_profile("timetrial")

LONGEST_FIRST = ("e2e", "soak", "integration", "fuzz", "contract", "golden")
"""Folders of tests in order of their start."""

CACHE = "JAX_COMPILATION_CACHE_DIR"


def pytest_configure(config: Any) -> None:
    """Shares programs and tables among the processes of this session; workers inherit the place."""
    if CACHE not in os.environ:
        config.compiled = tempfile.mkdtemp(prefix="timetrial-compiled-")
        os.environ[CACHE] = config.compiled
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
        os.environ.setdefault(mlflow_tables.PLACE, config.compiled)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Puts files with long tests first, so that no worker waits for another one at the end."""
    last = len(LONGEST_FIRST)
    rank = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.parent.name, last))


def pytest_runtest_setup(item: Any) -> None:
    """Copies tables from now on, if MLflow is loaded."""
    mlflow_tables.install()


def pytest_runtest_teardown(item: Any, nextitem: Any) -> None:
    """Forgets a store that MLflow has put into the environment, before the next file."""
    if nextitem is None or nextitem.path != item.path:
        os.environ.pop("MLFLOW_TRACKING_URI", None)


def pytest_unconfigure(config: Any) -> None:
    """Removes the compiled programs of this session."""
    if hasattr(config, "compiled"):
        shutil.rmtree(config.compiled, ignore_errors=True)
