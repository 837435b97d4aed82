"""Outages of an MLflow server: a real server, and a proxy in front of it that injects faults."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from timetrial.tracking.store.opening import Store
from timetrial.tracking.store.ui import ui_address, ui_command, ui_environment


@dataclasses.dataclass
class Fault:
    """What happens to requests.

    Attributes:
        kind: ``hang``, ``slow``, ``lost`` (executed, the reply is lost), ``late`` (the reply is
            lost, executed later), ``garbage`` (a page that is no JSON), or a status such as
            ``500``.
        part: requests with this text in "METHOD path" only.
        times: so many requests only; -1 for all.
        seconds: delay of ``slow`` and ``late``.
    """

    kind: str
    part: str = ""
    times: int = -1
    seconds: float = 0.5


class Proxy:
    """Forwards HTTP to a server on this machine, except where a fault is set.

    Attributes:
        address: URL of the proxy.
        requests: "METHOD path" of every request, in order.
    """

    def __init__(self, port: int) -> None:
        self.requests: list[str] = []
        self._target = port
        self._fault: Fault | None = None
        self._healed = threading.Event()
        self._lock = threading.Lock()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.up()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        """Listens, always at the same port."""
        if self._server is None:
            self._server = _Server(("127.0.0.1", self._port), _handler(self))
            self._port = self._server.server_address[1]
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Refuses connections, also those that are open."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.close_connections()
            self._server = None

    def set(self, kind: str, part: str = "", times: int = -1, seconds: float = 0.5) -> None:
        """Injects a fault from the next request on, in place of an earlier one."""
        self.heal()
        self._fault = Fault(kind, part, times, seconds)

    def heal(self) -> None:
        """Ends all faults; hanging requests end without a reply."""
        self._fault = None
        self._healed.set()
        self._healed = threading.Event()
        self.up()

    def close(self) -> None:
        self.heal()
        self.down()

    def fault_of(self, request: str) -> tuple[Fault | None, threading.Event]:
        with self._lock:
            self.requests.append(request)
            fault = self._fault
            if fault is None or fault.part not in request or fault.times == 0:
                return None, self._healed
            fault.times -= 1
            return fault, self._healed

    def forward(self, method: str, path: str, headers: Any, body: bytes) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._target, timeout=60)
        with contextlib.closing(connection):
            kept = {k: v for k, v in headers.items() if k.lower() not in ("host", "connection")}
            connection.request(method, path, body, kept)
            reply = connection.getresponse()
            return reply.status, reply.getheader("Content-Type", ""), reply.read()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *arguments: Any) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that gave up are no errors of the proxy."""


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            chunked = self.headers.get("Transfer-Encoding", "") == "chunked"
            body = self._chunks() if chunked else self._read(self.headers.get("Content-Length"))
            fault, healed = proxy.fault_of(f"{self.command} {self.path}")
            kind = "" if fault is None else fault.kind
            if fault is not None and kind == "hang":
                healed.wait(120)
                return self._cut()
            if fault is not None and kind == "late":
                parts = (self.command, self.path, dict(self.headers), body)
                threading.Timer(fault.seconds, proxy.forward, parts).start()
                return self._cut()
            if fault is not None and kind == "slow":
                time.sleep(fault.seconds)
            if kind == "garbage":
                return self._reply(200, "text/html", b"<html>down for maintenance</html>")
            if kind.isdecimal():
                return self._reply(int(kind), "application/json", b'{"error_code": "FAULT"}')
            found = proxy.forward(self.command, self.path, dict(self.headers), body)
            return self._cut() if kind == "lost" else self._reply(*found)

        def _read(self, size: str | None) -> bytes:
            return self.rfile.read(int(size or 0))

        def _chunks(self) -> bytes:
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _reply(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _cut(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *arguments: Any) -> None:
            """Keeps the terminal clean."""

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.handle_any)
    return Handler


@contextlib.contextmanager
def mlflow_server(store: Store, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A real server of a local store: its process and its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            ui_command(store, port=port),
            env=ui_environment(store),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = ui_address(store, "/health", port=port)
        wait_for(lambda: _answers(address, process, log), 180)
        yield process, port
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kills a server with its workers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(true: Callable[[], bool], seconds: float) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def _answers(address: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True
