"""Workers on a Ray cluster of two nodes on this machine: killed workers, removed nodes, signals."""

from __future__ import annotations

import importlib.util
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import launched
import postgres
import pytest

from timetrial.bench.launch.tables import RUNNING

pytestmark = [
    pytest.mark.slow,  # a cluster takes half a minute to start
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.filterwarnings("ignore"),  # those of Ray
]


class Place:
    """A cluster with a database, and the bits of the race made in one process."""

    def __init__(self, cluster: Any, uri: str, site: Path, alone: Path) -> None:
        self.cluster, self.uri, self.site = cluster, uri, site
        self.alone = launched.evaluations(alone)
        self.nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]

    def words(self, root: Path, name: str) -> list[str]:
        """Words of a race with an experiment of its own."""
        return launched.words(self.site, root, f"tracking.uri={self.uri}", experiment=name)

    def bench(self, root: Path, name: str, *more: str) -> Any:
        """Starts the race on the cluster; its log is in ``root``."""
        engine = ["launcher=ray", *more]
        if not any("address" in word for word in more):
            engine.append(f"launcher.address={self.cluster.address}")
        variables = {**launched.environment(self.site), **LOCAL}
        return launched.start(
            ["bench", *self.words(root, name), *engine], variables, root.with_suffix(".log")
        )


LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Without it Ray replaces 127.0.0.1 by the machine's outer address."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    site, alone = tmp_path_factory.mktemp("site") / "s", tmp_path_factory.mktemp("alone")
    launched.install(site)
    fast, log = launched.environment(site, step_seconds=0), alone / "log"
    sequential = launched.start(["bench", *launched.words(site, alone)], fast, log)
    with (
        postgres.server() as uri,
        tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short,  # paths of sockets are short
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in {**launched.environment(site), **LOCAL, "RAY_TMPDIR": short}.items():
            patch.setenv(name, value)
        (Path(short) / "ray").mkdir()
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "node_ip_address": "127.0.0.1", "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            assert sequential.wait(timeout=300) == 0, log.read_text()
            yield Place(cluster, uri, site, alone)
        finally:
            cluster.shutdown()


def text(root: Path) -> str:
    logs = sorted((root / "logs").rglob("*.log"))
    return "\n".join(path.read_text() for path in (root.with_suffix(".log"), *logs))


def check(place: Place, root: Path, name: str) -> None:
    """Every run is finished once, with the bits of the race made in one process."""
    assert len(place.alone) == launched.RUNS
    with launched.queue(root, place.uri, name) as queue:
        assert launched.finished(queue) == launched.RUNS
    assert launched.evaluations(root, place.uri, name) == place.alone


def test_a_killed_worker_and_then_a_removed_node_lose_and_double_no_run(
    place: Place, tmp_path: Path
):
    root = tmp_path / "runs"
    bench = place.bench(root, "killed")
    with launched.queue(root, place.uri, "killed") as queue:
        both = launched.wait_until(lambda: two(launched.running(queue)), bench)
        victim, digest = next(iter(both.items()))
        where = root / "checkpoints" / "killed" / digest
        launched.wait_until(lambda: list(where.glob("*/SHA256SUMS")), bench)
        os.kill(victim, signal.SIGKILL)
        launched.wait_until(lambda: sum(e.deaths for e in queue.entries()) == 1, bench)
        launched.wait_until(lambda: two(launched.running(queue)), bench)
        before = launched.running(queue)
        place.cluster.remove_node(place.nodes.pop(), allow_graceful=False)
        launched.wait_until(lambda: not before.keys() <= launched.running(queue).keys(), bench)
        assert bench.wait(timeout=300) == 0, text(root)
        assert sum(e.deaths for e in queue.entries()) == 2, "the second one died with its node"
    check(place, root, "killed")
    for process in before:
        launched.wait_until(lambda process=process: not Path(f"/proc/{process}").exists())
    place.nodes.append(place.cluster.add_node(num_cpus=1))


def two(makers: dict[int, str]) -> bool:
    return len(makers) == 2 and makers


def test_an_actor_that_is_killed_takes_its_worker_along_and_is_restarted(
    place: Place, tmp_path: Path
):
    root = tmp_path / "runs"
    bench = place.bench(root, "actor", "launcher.workers=1")
    with launched.queue(root, place.uri, "actor") as queue:
        makers = launched.wait_until(lambda: launched.running(queue), bench)
        (worker,) = makers
        os.kill(launched.parent(worker), signal.SIGKILL)
        launched.wait_until(lambda: not Path(f"/proc/{worker}").exists())
        assert bench.wait(timeout=300) == 0, text(root)
        assert sum(e.deaths for e in queue.entries()) == 1
    check(place, root, "actor")


def test_sigterm_saves_the_runs_and_the_same_command_continues(place: Place, tmp_path: Path):
    root = tmp_path / "runs"
    bench = place.bench(root, "ended")
    with launched.queue(root, place.uri, "ended") as queue:
        makers = launched.wait_until(lambda: two(launched.running(queue)), bench)
        time.sleep(1)
        bench.send_signal(signal.SIGTERM)
        assert bench.wait(timeout=120) == 143, text(root)
        assert not queue.entries(RUNNING)
        assert {entry.deaths for entry in queue.entries()} == {0}
    assert not [process for process in makers if Path(f"/proc/{process}").exists()]
    assert place.bench(root, "ended").wait(timeout=300) == 0, text(root)
    assert "continues at update" in text(root)
    check(place, root, "ended")


def test_a_study_on_the_cluster(place: Place, tmp_path: Path):
    import psycopg

    with psycopg.connect(place.uri, autocommit=True) as server:
        server.execute("CREATE DATABASE studies")  # Optuna's tables do not fit beside MLflow's
    studies = place.uri.rpartition("/")[0] + "/studies"
    words = ["tune", "workload=soaked", "optimizer=adam", "study.trials=3", "study.name=on-ray"]
    words += [f"tracking.uri={place.uri}", f"study.storage={studies}"]
    words += [f"tracking.root={tmp_path / 'runs'}", "budget.steps=10"]
    engine = ["launcher=ray", f"launcher.address={place.cluster.address}"]
    log = tmp_path / "tune.log"
    variables = {**launched.environment(place.site, 0), **LOCAL}
    assert launched.start([*words, *engine], variables, log).wait(timeout=300) == 0, log.read_text()
    assert log.read_text().count("(point ") == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["launcher.gpus=2"], "expected a node with 1 CPU and 2 GPU, got a cluster of"),
        (["launcher.address=127.0.0.1:1"], "expected the answer of a Ray cluster (ray start)"),
    ],
)
def test_what_the_cluster_lacks_is_said_in_one_line(
    place: Place, tmp_path: Path, words: list[str], message: str
):
    root = tmp_path / "runs"
    began = time.monotonic()
    assert place.bench(root, "lacking", *words).wait(timeout=120) == 2
    assert time.monotonic() - began < 60
    assert message in root.with_suffix(".log").read_text().splitlines()[-1]


def test_an_address_that_does_not_answer_is_refused_in_time(place: Place, tmp_path: Path):
    """A server that accepts and says nothing, as behind a firewall."""
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        address = f"launcher.address=127.0.0.1:{silent.getsockname()[1]}"
        root = tmp_path / "runs"
        bench = place.bench(root, "silent", address, "launcher.connect_seconds=5")
        assert bench.wait(timeout=120) == 2, text(root)
    assert "got none in 5 s" in root.with_suffix(".log").read_text()
