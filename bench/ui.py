"""``timetrial ui``: serves the recorded runs in the MLflow UI, at the saved views.

Boundary: starts and ends the server process; ``tracking.store.views`` defines the views.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from timetrial.framework.config import Tracking
from timetrial.framework.errors import UserError
from timetrial.framework.signals import raise_interrupted
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.store.opening import open_store
from timetrial.tracking.store.ui import ui_address, ui_command, ui_environment
from timetrial.tracking.store.views import OVERVIEW, write_views

HOST = "127.0.0.1"
START_SECONDS = 120.0


def serve(tracking: Tracking, port: int) -> int:
    """Serves the store until Ctrl-C, after printing the address of each saved view."""
    store = open_store(tracking.uri, root=Path(tracking.root), create=False)
    links = write_views(store, tracking.experiment, load_runs(store, tracking.experiment))
    command = ui_command(store, HOST, port)
    if command:
        _check_free(port)
        log = store.root / "ui.log"
        with raise_interrupted(), log.open("w") as output, _started(command, output) as server:
            try:
                _wait_until_healthy(server, port, log)
                _show(links, lambda path: ui_address(store, path, HOST, port))
                print("Ctrl-C ends the server", flush=True)
                return server.wait()
            except KeyboardInterrupt:
                return 0
    _show(links, lambda path: ui_address(store, path))
    return 0


@contextmanager
def _started(command: Sequence[str], output: TextIO) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the server in its own process group; ends the whole group afterwards."""
    server = subprocess.Popen(
        command, env=ui_environment(), stdout=output, stderr=output, start_new_session=True
    )
    try:
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise UserError(f"port: expected a free one, got {port}, in use; try --port {port + 1}")


def _wait_until_healthy(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    print("starting MLflow (it takes some seconds)", flush=True)
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise UserError(f"MLflow's server did not start within {START_SECONDS:.0f} s; see {log}")


def _show(links: Mapping[str, str], address: Callable[[str], str]) -> None:
    for name in sorted(links, key=lambda name: (name != OVERVIEW, name)):
        print(f"{name:<24} {address(links[name])}")
