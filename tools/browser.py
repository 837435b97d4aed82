"""Drives a headless Chromium over its debugging pipe: loads pages, runs scripts, takes pictures.

Boundary: build time only. Messages are those of the Chrome DevTools Protocol,
https://chromedevtools.github.io/devtools-protocol/ (JSON, each followed by a zero byte).
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import Any, Final

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PATIENCE_SECONDS: Final = 120.0
_TO_3_AND_4: Final = (  # where Chromium reads and writes; a shell takes no number above 9
    "import fcntl, os, sys; move = lambda fd: fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10); "
    "theirs = [move(fd) for fd in sys.argv[1:3]]; "
    "[os.dup2(fd, number) for number, fd in enumerate(theirs, 3)]; "
    "os.execv(sys.argv[3], sys.argv[3:])"
)
_KEYS: Final = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37,
                "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}  # fmt: skip


def browser() -> str:
    """Path of Chromium: ``$CHROMIUM``, else the first one on PATH; exits if there is none."""
    named = [os.environ["CHROMIUM"]] if os.environ.get("CHROMIUM") else list(_NAMES)
    found = next(filter(None, map(shutil.which, named)), None)
    if found is None:
        sys.exit(f"expected {' or '.join(named)} on PATH, or CHROMIUM=PATH")
    return found


class Page:
    """One page of a browser of its own; a context manager that ends the browser."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Starts the browser; ``size`` is width and height in pixels."""
        self._numbers = itertools.count(1)
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        words = [
            browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--remote-debugging-pipe", f"--user-data-dir={self._profile.name}",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-ISc", _TO_3_AND_4, str(theirs_in), str(theirs_out), *words],
            pass_fds=(theirs_in, theirs_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb")
        self._session = ""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.view(size)

    def __enter__(self) -> Page:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._out.close()
        self._in.close()
        self._profile.cleanup()

    def open(self, address: str, *, until: str = "document.readyState == 'complete'") -> None:
        """Loads a page and waits until a JavaScript expression is true.

        Raises:
            TimeoutError: it stays false.
        """
        self._call("Page.navigate", url=address)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self.run(f"location.href != 'about:blank' && ({until})") is not True:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{address}: expected {until}")
            time.sleep(0.3)

    def view(self, size: tuple[int, int], *, dark: bool = False) -> None:
        """Sets width and height of the window in pixels, and its colour scheme."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0], height=size[1], deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str) -> None:
        """Presses and releases a key, by its name in the DOM, such as ``Tab`` or ``ArrowUp``."""
        code = _KEYS[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent",
                type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text,
            )  # fmt: skip

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression, or of its promise; None if it fails."""
        answer = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        return answer["result"].get("value")

    def picture(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Result of one command; events in between are dropped."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._read()
            if answer.get("id") == number:
                break
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    def _read(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser ended")
            data += byte
        return dict(json.loads(data))
