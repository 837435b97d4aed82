"""Drives a headless Chromium over its debugging pipe: loads pages, runs scripts, takes pictures.

Boundary: build time only. Messages are those of the Chrome DevTools Protocol,
https://chromedevtools.github.io/devtools-protocol/ (JSON, each followed by a zero byte).
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import Any, Final

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PATIENCE_SECONDS: Final = 120.0


def browser() -> str:
    """Path of Chromium: ``$CHROMIUM``, else the first one on PATH; exits if there is none."""
    named = [os.environ["CHROMIUM"]] if os.environ.get("CHROMIUM") else list(_NAMES)
    found = next(filter(None, map(shutil.which, named)), None)
    if found is None:
        sys.exit(f"pictures: expected {' or '.join(named)} on PATH, or CHROMIUM=PATH")
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
            f"exec {shlex.join(words)} 3<&{theirs_in} 4>&{theirs_out}",
            shell=True,
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
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0], height=size[1], deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

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

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression; None if it fails."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
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
