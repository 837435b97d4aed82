"""A marked password in every place that takes one: afterwards it is nowhere but there."""

from __future__ import annotations

import base64
import dataclasses
import sqlite3
import threading
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optax
import pytest
import tiny_suite
from command_line import command_line

from timetrial.framework import secrets
from timetrial.framework.entries import OptimizerEntry
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.store.opening import open_store

pytest.importorskip("flask", reason="needs all of MLflow")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of the server in this process

MARK = "Zq7vWx"
"""Part of every password."""


@dataclasses.dataclass(frozen=True)
class Server:
    """An MLflow server in this process, and the logins that it was given."""

    port: int
    logins: list[str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    from mlflow.server import app, handlers
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: object) -> None:
            pass

    place = tmp_path_factory.mktemp("server")
    logins: list[str] = []

    def noted(environ: dict[str, Any], start: Any) -> Any:
        logins.append(environ.get("HTTP_AUTHORIZATION", ""))
        return app(environ, start)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{place}/server.db")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(place / "artifacts"))
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
        patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
        patch.setattr(handlers, "_tracking_store", None)
        made = make_server("127.0.0.1", 0, noted, threaded=True, request_handler=Quiet)
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        for name in ("experiments", "runs"):  # the first requests take seconds
            address = f"http://127.0.0.1:{made.server_port}/api/2.0/mlflow/{name}/search"
            body = b'{"experiment_ids": ["0"], "max_results": 1}'
            request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=120).close()
        yield Server(made.server_port, logins), place
        made.shutdown()
        thread.join()
        made.server_close()


@dataclasses.dataclass(frozen=True)
class Settings:
    pass


def fails(settings: Settings, horizon: object) -> optax.GradientTransformation:
    raise RuntimeError(f"no answer from http://me:{MARK}-4@host/x with password={MARK}-5")


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a command line, and returns all that it printed."""
    tiny_suite.register(monkeypatch, tmp_path, steps=10, eval_every_steps=5)
    monkeypatch.setitem(OPTIMIZERS, "fails", OptimizerEntry("fails", Settings, fails))
    monkeypatch.setattr(secrets, "_remembered", set())
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "someone")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"{MARK}-2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{MARK}-3")
    monkeypatch.chdir(tmp_path)
    run = command_line(capfd)

    def call(*arguments: str, code: int | None = 0) -> str:
        outcome = run(*arguments)
        assert code in (None, outcome.code), outcome
        return outcome.out + outcome.err

    return call


def forms() -> list[bytes]:
    """The mark, and the logins that hold it, as bytes."""
    basic = [base64.b64encode(login.encode()) for login in (f"me:{MARK}-1", f"someone:{MARK}-2")]
    return [MARK.encode(), MARK.lower().encode(), *basic]


def holds(data: bytes) -> bool:
    """Whether the password is in a file, or in what the saved views have compressed."""
    packed = [part.split(b'"')[0] for part in data.split(b"deflate;")[1:]]
    for part in packed:
        length = len(part) - len(part) % 4
        try:
            data += zlib.decompressobj().decompress(base64.b64decode(part[:length]))
        except (zlib.error, ValueError):
            continue
    return any(form in data for form in forms())


def files(*places: Path) -> list[Path]:
    return [path for place in places for path in sorted(place.rglob("*")) if path.is_file()]


def test_a_password_is_used_and_never_shown(
    server: tuple[Server, Path], call: Callable[..., str], tmp_path: Path
):
    mlflow, place = server
    root = tmp_path / "runs"
    uri = f"http://me:{MARK}-1@127.0.0.1:{mlflow.port}"
    preset = tmp_path / "mine.yaml"
    preset.write_text(f"tracking:\n  uri: {uri}\n  root: {root}\n")
    suite = tmp_path / "s.yaml"
    suite.write_text(
        "summary: s\npresets: p\nworkloads: [tiny]\noptimizers: [adam, fails]\nseeds: [0]\n"
    )
    where = (f"tracking.uri={uri}", f"tracking.root={root}", "tracking.experiment=e")
    study = f"sqlite:///{root}/studies.db"
    told = [
        call("bench", f"suite={suite}", *where, "--debug", code=1),
        call("train", f"preset={preset}", "workload=tiny", "optimizer=adam", "budget.steps=5"),
        call("train", f"preset={preset}", "workload=tiny", "optimizer=adam", "--print-config"),
        call("train", "workload=tiny", "optimizer=fails", *where, "--debug", code=1),
        call("tune", "workload=tiny", "optimizer=adam", "study.trials=2", "budget.steps=5",
             f"study.storage={study}", "--export", "out.yaml", *where),
        call("tune", "workload=tiny", "optimizer=fails", "study.trials=1", *where, "--debug",
             "study.storage=" + study, code=2),
        call("sync", f"suite={suite}", *where),
        call("ui", f"suite={suite}", *where),
        *refused(call, root),
    ]  # fmt: skip
    monitored = base64.b64encode(f"me:{MARK}-1".encode()).decode()
    assert f"Basic {monitored}" in mlflow.logins
    store = open_store(uri, root=root)
    assert {run.optimizer: run.status for run in load_runs(store, "e")}["adam"] == "FINISHED"
    assert not [text for text in told if holds(text.encode())]
    assert any(":***@127.0.0.1" in text for text in told)
    written = files(root, place, tmp_path / "presets", tmp_path)
    assert not [path for path in written if holds(path.read_bytes()) and path != preset]
    kinds = {path.suffix for path in written}
    assert {".jsonl", ".html", ".md", ".csv", ".yaml", ".db", ".json"} <= kinds
    with sqlite3.connect(place / "server.db") as database:
        params = dict(database.execute("SELECT key, value FROM params"))
    assert params["tracking.uri"] == f"http://me:***@127.0.0.1:{mlflow.port}"


def refused(call: Callable[..., str], root: Path) -> Iterator[str]:
    """What is printed about addresses and settings that cannot be used."""
    run = ("train", "workload=tiny", "optimizer=adam", "--debug", f"tracking.root={root}")
    for address in (
        f"http://me:{MARK}@127.0.0.1:1",
        f"http://me:a@{MARK}/b#c?d:e@127.0.0.1:1",
        f"http://me:{MARK}%2F%40@127.0.0.1:1/x",
        f"postgresql://me:{MARK}@127.0.0.1:1/x",
        f"postgresql://127.0.0.1:1/x?user=me&password={MARK}",
        f"mysql://me:{MARK}@127.0.0.1:1/x",
        f"nonsense://me:{MARK}@host",
        f"sqlite://me:{MARK}@/x.db",
    ):
        # A server that does not answer stops no run; a driver that is missing does.
        yield call(*run, f"tracking.uri={address}", code=0 if address.startswith("http") else None)
        words = ("tune", "workload=tiny", "optimizer=adam", "--debug", f"tracking.root={root}")
        yield call(*words, f"study.storage={address}", code=2)
    yield call(*run, f"tracking.url=http://me:{MARK}@host", code=2)
    yield call(*run, f"http://me:{MARK}@host", code=2)
    text = call(*run, f"tracking.uri=postgres://me:{MARK}@host/x", code=2)
    assert "expected postgresql://" in text
    yield text
