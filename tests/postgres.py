"""A PostgreSQL server of its own on a free port of 127.0.0.1, for tests that need a real one."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def program(name: str) -> str | None:
    """Path of a program of PostgreSQL, also where Debian hides it."""
    hidden = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(hidden[-1]) if hidden else None)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Yields the URL of a new, empty server; skips the test without PostgreSQL."""
    pytest.importorskip("psycopg")
    initdb, postgres = program("initdb"), program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory(prefix="pg") as root, socket.socket() as free:
        os.chmod(root, 0o777)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        data = Path(root) / "data"
        as_user = {"user": user} if os.getuid() == 0 else {}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": root}
        subprocess.run(
            [initdb, "-D", data, "-U", "me", "-A", "trust", "--no-sync"],
            check=True,
            **quiet,
            **as_user,
        )
        options = ["-h", "127.0.0.1", "-p", str(port), "-k", root, "-F"]
        running = subprocess.Popen([postgres, "-D", data, *options], **quiet, **as_user)
        try:
            wait_for(port, running)
            yield f"postgresql://me@127.0.0.1:{port}/postgres"
        finally:
            running.send_signal(signal.SIGINT)  # a fast shutdown: clients are disconnected
            running.wait(timeout=30)


def wait_for(port: int, running: subprocess.Popen) -> None:
    import time

    import psycopg

    for _ in range(600):
        assert running.poll() is None, "the server ended"
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(f"postgresql://me@127.0.0.1:{port}/postgres").close()
            return
        time.sleep(0.05)
    raise TimeoutError("PostgreSQL did not start within 30 s")
