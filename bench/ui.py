"""``timetrial ui``: serves the recorded runs in the MLflow UI, at the saved views.

Boundary: starts and ends the server process; ``tracking.store.views`` defines the views.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from timetrial.framework.config import Tracking
from timetrial.framework.errors import UserError
from timetrial.framework.files import owner_only
from timetrial.framework.signals import raise_interrupted
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.store.opening import Store, open_store
from timetrial.tracking.store.ui import ui_address, ui_command, ui_environment
from timetrial.tracking.store.views import OVERVIEW, write_views

HOST = "127.0.0.1"
"""Default address to listen on: reached from this machine only."""

START_SECONDS = 120.0


def serve(tracking: Tracking, port: int, host: str = HOST) -> int:
    """Serves the store until Ctrl-C, after printing the address of each saved view.

    Args:
        tracking: the store.
        port: port to listen on.
        host: address to listen on.
    """
    store = open_store(tracking.uri, root=Path(tracking.root), create=False)
    links = write_views(store, tracking.experiment, load_runs(store, tracking.experiment))
    command = ui_command(store, host, port)
    if command:
        reached = _reached(host)
        _check_free(reached, port)
        log = store.root / "ui.log"
        with (
            raise_interrupted(),
            _log_file(log) as output,
            _started(store, command, output) as server,
        ):
            try:
                _wait_until_healthy(server, f"http://{reached}:{port}", log)
                _show(links, lambda path: ui_address(store, path, reached, port))
                if not _is_local(host):
                    print(_open_to_others(host, port), file=sys.stderr, flush=True)
                print("Ctrl-C ends the server", flush=True)
                return server.wait()
            except KeyboardInterrupt:
                return 0
    _show(links, lambda path: ui_address(store, path))
    return 0


@contextmanager
def _started(
    store: Store, command: Sequence[str], output: TextIO
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the server in its own process group; ends the whole group afterwards."""
    server = subprocess.Popen(
        command, env=ui_environment(store), stdout=output, stderr=output, start_new_session=True
    )
    try:
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _log_file(path: Path) -> TextIO:
    return open(path, "w", opener=owner_only)


def _is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reached(host: str) -> str:
    """The address at which this machine reaches a server that listens on ``host``."""
    return HOST if host == "0.0.0.0" else host


def _open_to_others(host: str, port: int) -> str:
    """The warning about a server that others reach."""
    return (
        f"timetrial: warning: anybody who reaches {host}:{port} can read and change the runs; "
        f"without --host only this machine does"
    )


def _check_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex((host, port)) == 0:
            raise UserError(f"port: expected a free one, got {port}, in use; try --port {port + 1}")


def _wait_until_healthy(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    print("starting MLflow (it takes some seconds)", flush=True)
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise UserError(f"MLflow's server did not start within {START_SECONDS:.0f} s; see {log}")


def _show(links: Mapping[str, str], address: Callable[[str], str]) -> None:
    for name in sorted(links, key=lambda name: (name != OVERVIEW, name)):
        print(f"{name:<24} {address(links[name])}")
