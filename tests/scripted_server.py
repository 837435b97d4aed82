"""A local HTTP server that answers as a test tells it, faults included."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable
from typing import Any

Handler = http.server.BaseHTTPRequestHandler
Answer = Callable[[Handler], None]


class Server:
    """Answers the n-th request with the n-th answer; the last answer serves all later ones."""

    def __init__(self, answer: Answer) -> None:
        self.answers: list[Answer] = [answer]
        self.ranges: list[str | None] = []
        self.paths: list[str] = []
        server = self

        class Scripted(Handler):
            def do_GET(self) -> None:  # noqa: N802
                answer = server.answers[min(len(server.ranges), len(server.answers) - 1)]
                server.ranges.append(self.headers.get("Range"))
                server.paths.append(self.path)
                try:
                    answer(self)
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
        self.http.daemon_threads = True
        self.root = f"http://127.0.0.1:{self.http.server_port}"
        self.url = f"{self.root}/params"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def body(handler: Handler, data: bytes, pause: float = 0.0, piece: int = 1 << 16) -> None:
    for begin in range(0, len(data), piece):
        handler.wfile.write(data[begin : begin + piece])
        if pause:
            time.sleep(pause)


def plain(data: bytes, sent: int | None = None, **headers: str) -> Answer:
    """The whole file, whatever was asked for; only ``sent`` bytes of it if given."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        for name, value in ({"Content_Length": str(len(data))} | headers).items():
            if value:
                handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        body(handler, data[:sent])

    return answer


def ranged(data: bytes, sent: int | None = None, pause: float = 0.0) -> Answer:
    """What was asked for, as Google's storage does; only ``sent`` bytes of it if given."""

    def answer(handler: Handler) -> None:
        asked = handler.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if start >= len(data):
            handler.send_error(416)
            return
        handler.send_response(206 if asked else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        if asked:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        body(handler, data[start:][:sent], pause, 4096 if pause else 1 << 16)

    return answer


def status(code: int, **headers: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer
