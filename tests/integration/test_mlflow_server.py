from __future__ import annotations

import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from outages import mlflow_server, stop
from recorded import ROWS, Recording, identity, points, record

from timetrial.framework.records import Row
from timetrial.tracking.read.mlflow import from_mlflow
from timetrial.tracking.read.runs import finished_configs, load_runs
from timetrial.tracking.store.delivery import deliver_files
from timetrial.tracking.store.opening import Store, open_store
from timetrial.tracking.store.ui import ui_address, ui_command
from timetrial.tracking.store.views import write_views

pytest.importorskip("flask", reason="needs all of MLflow")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The sqlite store behind the server."""
    root = tmp_path_factory.mktemp("runs")
    return open_store(f"sqlite:///{root}/mlflow.db", root=root)


@pytest.fixture(scope="module")
def server(
    local: Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Store, subprocess.Popen[bytes]]]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with mlflow_server(local, log) as (process, port):
        root = tmp_path_factory.mktemp("client")
        yield open_store(f"http://127.0.0.1:{port}", root=root), process


def test_the_server_listens_on_this_machine_only_and_its_address_is_no_argument(
    server: tuple[Store, subprocess.Popen[bytes]], local: Store
):
    port = int(server[0].uri.rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):  # it would answer if it listened on 0.0.0.0
        socket.create_connection(("127.0.0.2", port), timeout=5)
    assert local.uri not in ui_command(local)  # all users of a machine may list commands


def test_a_server_is_written_and_read_like_a_file(
    server: tuple[Store, subprocess.Popen[bytes]], local: Store, capfd: pytest.CaptureFixture[str]
):
    remote, _ = server
    tracker = record(remote, config_hash="abc")
    assert capfd.readouterr().out == ""  # MLflow's greeting is kept out of the terminal
    assert remote.artifact_location is None
    assert ui_command(remote) == []
    assert ui_address(remote, "/#/x") == f"{remote.uri}/#/x"
    assert from_mlflow(remote, "tests") == from_mlflow(local, "tests")
    assert len(load_runs(remote, "tests")[0].evaluations) == 3
    assert finished_configs(remote, "tests") == {"abc"}
    config = remote.client.download_artifacts(tracker.run_id, "config.yaml")
    assert Path(config).read_text() == identity().config_yaml
    assert "viewStateShareKey" in write_views(remote, "tests", load_runs(remote, "tests"))["tiny"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_the_web_interface_draws_the_saved_view(
    server: tuple[Store, subprocess.Popen[bytes]], tmp_path: Path
):
    remote, _ = server
    for optimizer, pace in (("adam", 0.5), ("velo", 0.7)):
        for seed in range(3):
            rows = [
                Row(s, s * pace * (1 + 0.1 * seed), {"validation/accuracy": s * 0.1 + 0.01 * seed})
                for s in range(5)
            ]
            record(remote, experiment="drawn", rows=rows, optimizer=optimizer, seed=str(seed))
    links = write_views(remote, "drawn", load_runs(remote, "drawn"))
    page = subprocess.run(
        [
            "chromium",
            *("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1600,1200"),
            *(f"--user-data-dir={tmp_path}", "--virtual-time-budget=60000", "--dump-dom"),
            ui_address(remote, links["tiny"]),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout
    assert "Over charged seconds" in page
    assert "time/mean_train_seconds" in page  # the title of the x axis
    assert page.count("Group: ") == 2
    # The first chart: per optimizer five points of means and the two edges of the band. Were the
    # seeds not averaged, there would be three times as many.
    over_seconds = page.split("js-plotly-plot")[1]
    assert over_seconds.count('class="point"') == 2 * (5 + 2 * 5)


def test_a_server_that_dies_does_not_take_the_run_with_it(
    server: tuple[Store, subprocess.Popen[bytes]], local: Store, caplog: pytest.LogCaptureFixture
):
    remote, process = server
    tracker = Recording(remote, identity("dies"), flush_seconds=0)
    tracker.log(ROWS[:2])
    stop(process)
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        tracker.log(ROWS[2:5])
        tracker.log(ROWS[5:])
        tracker.finish("FINISHED", {"stop_reason": "BUDGET"}, {})
    assert time.monotonic() - started < 120  # MLflow's own retries take many minutes
    assert "timetrial sync" in caplog.text
    assert len(caplog.records) == 1
    assert local.client.get_run(tracker.run_id).info.status == "RUNNING"

    outcome = deliver_files(local, [tracker.path])
    assert list(outcome.left) == [tracker.path]  # the artifacts need the server
    (run,) = load_runs(local, "dies")
    assert (run.status, run.step, len(run.evaluations)) == ("FINISHED", 4, 3)
    whole = record(local, experiment="dies")
    assert {p[:3] for p in points(local, tracker.run_id)} == {
        p[:3] for p in points(local, whole.run_id)
    }
