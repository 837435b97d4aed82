"""MLflow's web interface of a store: command and addresses.

Boundary: starts nothing; the caller runs the command.
"""

from __future__ import annotations

import importlib.util
import os
import sys

from timetrial.framework.secrets import without_login
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.store.opening import Store


def ui_command(store: Store, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves the web interface of a store; empty for a running server.

    Run it with ``ui_environment(store)``; after some seconds it serves ``ui_address(...)``.

    Raises:
        TrackingError: the store needs a local server, but only a part of MLflow is installed.
    """
    if store.artifact_location is None:
        return []
    if (
        importlib.util.find_spec("flask") is None
        or importlib.util.find_spec("mlflow.server") is None
    ):
        raise TrackingError(
            "the web interface needs all of MLflow: install it with pip install 'timetrial[ui]'"
        )
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--artifacts-destination", str(store.artifact_location)]
    return [*command, "--host", host, "--port", str(port), "--workers", "1"]


def ui_environment(store: Store) -> dict[str, str]:
    """Environment of the command: the store's address, no job runners, no telemetry.

    Commands are listed for all users of the machine; the address may hold a password.
    """
    return {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store.uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def ui_address(store: Store, path: str = "/", host: str = "127.0.0.1", port: int = 5000) -> str:
    """Address for a browser; ``tracking.store.views.write_views`` returns ``path``."""
    server = (
        without_login(store.uri) if store.artifact_location is None else f"http://{host}:{port}"
    )
    return server.rstrip("/") + path


def run_address(store: Store, experiment: str, server: str = "") -> str:
    """Address of a run in the web interface, with ``{run_id}`` in place of its id.

    ``server`` is the address of the interface, by default that of ``ui_address``. Without
    ``workflowType`` MLflow opens its pages for generative AI.

    Raises:
        TrackingError: the experiment does not exist.
    """
    experiment_id = store.experiment_id(experiment, create=False)
    path = f"/#/experiments/{experiment_id}/runs/{{run_id}}?workflowType=machine_learning"
    return server.rstrip("/") + path if server else ui_address(store, path)
