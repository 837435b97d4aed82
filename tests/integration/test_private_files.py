"""Who may read what a race and a study leave, under the widest umask; who may connect."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_suite
from command_line import Outcome, command_line

from timetrial.bench import ui
from timetrial.bench.tune.storage import open_storage
from timetrial.framework.files import make_private_directory, write_atomically

SUITE = "summary: s\npresets: p\nworkloads: [tiny]\noptimizers: [adam]\nseeds: [0]\n"


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    tiny_suite.register(monkeypatch, tmp_path, steps=10, eval_every_steps=5)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return command_line(capsys)


def others_may(path: Path, *, below: Path) -> bool:
    """Whether others than the owner may read or write a file."""
    inner = [part for part in path.parents if part.is_relative_to(below)]
    closed = any(not part.stat().st_mode & stat.S_IXOTH for part in inner)
    return bool(path.stat().st_mode & 0o077) and not closed


def test_others_read_the_reports_and_nothing_else(
    call: Callable[..., Outcome], tmp_path: Path, umask: None
):
    root = tmp_path / "runs"
    suite = tmp_path / "s.yaml"
    suite.write_text(SUITE)
    words = ("workload=tiny", "optimizer=adam", "budget.steps=5", "study.trials=1")
    assert call("bench", f"suite={suite}", f"tracking.root={root}").code == 0
    assert call("tune", *words, f"tracking.root={root}", "--export", "best.yaml").code == 0
    open_storage(f"journal:{tmp_path}/j.log", 15)
    files = [path for path in root.rglob("*") if path.is_file()]
    open_ = {path for path in files if others_may(path, below=root)}
    reports = {path for path in files if path.is_relative_to(root / "reports")}
    assert reports
    assert open_ == reports
    assert all(path.stat().st_mode & stat.S_IROTH for path in reports)
    assert {"mlflow.db", "mlflow.db.lock", "studies.db"} <= {path.name for path in files}
    for path in ("best.yaml", "j.log", "j.log.workers"):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o600, path
    assert {
        path.name: oct(stat.S_IMODE(path.stat().st_mode))
        for path in (root, *root.iterdir())
        if path.is_dir() and path.name not in ("reports", "checkpoints")
    } == {"runs": "0o755", "journals": "0o700", "begun": "0o700", "artifacts": "0o700"}


def test_the_log_of_an_open_database_has_its_mode(tmp_path: Path, umask: None):
    from timetrial.tracking.store.opening import open_store

    store = open_store(root=tmp_path / "runs")
    store.client.create_experiment("x")
    modes = {
        path.name: oct(stat.S_IMODE(path.stat().st_mode))
        for path in (tmp_path / "runs").glob("mlflow.db*")
    }
    assert {"mlflow.db", "mlflow.db-wal", "mlflow.db-shm", "mlflow.db.lock"} <= set(modes)
    assert set(modes.values()) == {"0o600"}


def test_modes_of_new_files_and_directories(tmp_path: Path, umask: None):
    make_private_directory(tmp_path / "a" / "b")
    write_atomically(tmp_path / "a" / "shown", b"", 0o666)
    write_atomically(tmp_path / "a" / "hidden", b"", 0o600)
    modes = {p.name: oct(stat.S_IMODE(p.stat().st_mode)) for p in tmp_path.rglob("*")}
    assert modes == {"a": "0o755", "b": "0o700", "shown": "0o666", "hidden": "0o600"}
    (tmp_path / "a" / "b").chmod(0o750)  # chosen by the user
    make_private_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o750


SERVER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path == "/end":
            self.server.shutdown_request(self.request)
            import os
            os._exit(0)
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Answer).serve_forever()
"""


@pytest.mark.parametrize(("words", "listens"), [((), False), (("--host", "0.0.0.0"), True)])
def test_a_server_for_others_says_so(
    words: tuple[str, ...],
    listens: bool,
    call: Callable[..., Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    root = f"tracking.root={tmp_path / 'runs'}"
    words_of_run = ("workload=tiny", "optimizer=adam", "budget.steps=1", root)
    assert call("train", *words_of_run).code == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    reached: list[bool] = []

    def answered(links: object, address: Callable[[str], str]) -> None:
        for host in ("127.0.0.1", "127.0.0.2"):  # another address of this machine
            with socket.socket() as probe:
                reached.append(probe.connect_ex((host, port)) == 0)
        with socket.create_connection(("127.0.0.1", port)) as end:
            end.sendall(b"GET /end HTTP/1.0\r\n\r\n")
            end.recv(1)

    monkeypatch.setattr(ui, "_show", answered)
    stub = [sys.executable, "-c", SERVER]
    monkeypatch.setattr(ui, "ui_command", lambda store, host, port: [*stub, host, str(port)])
    suite = tmp_path / "s.yaml"
    suite.write_text(SUITE)
    experiment = "tracking.experiment=timetrial"
    done = call("ui", f"suite={suite}", root, experiment, "--port", str(port), *words)
    assert done.code == 0, done
    assert reached == [True, listens]
    line = f"anybody who reaches 0.0.0.0:{port} can read and change the runs"
    assert (line in done.err) == listens
    assert "--host ADDRESS" in call("ui", "--help").out
    assert call("ui", "--host", "example.org").code == 2
