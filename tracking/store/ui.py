"""How to look at a store in MLflow's web interface: the command and the address.

Boundary: decides, starts nothing; the caller runs the command.
"""

from __future__ import annotations

import importlib.util
import os
import sys

from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.store.opening import Store


def ui_command(store: Store, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves the store's web interface; empty where a server already does.

    Run it with ``ui_environment()``. It answers at ``ui_address(...)`` after some seconds.

    Raises:
        TrackingError: the store is served from here, but only the small part of MLflow is
            installed.
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
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    command += ["--artifacts-destination", str(store.artifact_location)]
    return [*command, "--host", host, "--port", str(port), "--workers", "1"]


def ui_environment() -> dict[str, str]:
    """Environment for the command: neither MLflow's job runners nor its telemetry."""
    return {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def ui_address(store: Store, path: str = "/", host: str = "127.0.0.1", port: int = 5000) -> str:
    """Where to point a browser; ``path`` as ``tracking.store.views.write_views`` returns it."""
    server = store.uri if store.artifact_location is None else f"http://{host}:{port}"
    return server.rstrip("/") + path


def run_address(store: Store, experiment: str, server: str = "") -> str:
    """Address of a run in the web interface, with ``{run_id}`` in place of its id.

    ``server`` is where the interface is served; by default where ``ui_address`` expects it. Without
    ``workflowType`` MLflow opens its pages for generative AI.

    Raises:
        TrackingError: no such experiment.
    """
    experiment_id = store.experiment_id(experiment, create=False)
    path = f"/#/experiments/{experiment_id}/runs/{{run_id}}?workflowType=machine_learning"
    return server.rstrip("/") + path if server else ui_address(store, path)
