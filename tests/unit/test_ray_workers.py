"""The Ray launcher without a cluster: shares of nodes, environments, refusals, and its actors."""

from __future__ import annotations

import logging
import os
import signal
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from timetrial.bench.launch import launchers, ray, ray_crew, ray_seat
from timetrial.bench.launch.ray import (
    Ray,
    RaySettings,
    check_ends,
    connected,
    python_path,
    seats,
    taken_along,
)
from timetrial.bench.launch.ray_crew import Crew
from timetrial.bench.launch.ray_seat import Ended, Order, Seat, share, versions
from timetrial.framework.config import ConfigError
from timetrial.framework.errors import Interrupted, UserError


def order(**changes: Any) -> Order:
    given = {"gpus": 0, "cpus": 0, "versions": {}, "environment": {}, **changes}
    return Order(["--version"], 0, given.pop("logs", ""), given.pop("directory", "."), **given)


def node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {
        "Alive": alive,
        "Resources": {name.replace("_", ":"): n for name, n in resources.items()},
    }


HEAD, SMALL = node(), node(CPU=4)
LARGE = node(CPU=16, GPU=4, pool_h100=1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"CPU": 1}),
        ({"cpus": 8, "gpus": 2}, {"CPU": 8, "GPU": 2}),
        ({"pool": "pools/h100.yaml"}, {"CPU": 1, "pool:h100": 1}),  # alone on its node
        ({"pool": "h100", "gpus": 1}, {"CPU": 1, "GPU": 1, "pool:h100": 0.001}),
    ],
)
def test_what_a_worker_takes_of_a_node(given: dict[str, Any], expected: dict[str, float]):
    assert RaySettings(**given).share == expected


@pytest.mark.parametrize(
    ("given", "free", "expected"),
    [
        ({}, {"CPU": 20}, 20),
        ({}, {"CPU": 3}, 3),
        ({"gpus": 1}, {"CPU": 20, "GPU": 4}, 4),
        ({"cpus": 3}, {"CPU": 20}, 6),  # 5 of 16 cores and 1 of 4: none spans two nodes
        ({"pool": "h100"}, {"CPU": 20, "pool:h100": 1}, 1),
        ({"pool": "h100", "gpus": 2}, {"CPU": 20, "GPU": 4, "pool:h100": 1}, 2),
        ({"workers": 3}, {}, 3),
    ],
)
def test_one_worker_per_free_share_unless_a_number_is_given(given, free, expected: int):
    nodes = [HEAD, SMALL, LARGE, node(alive=False, CPU=64)]
    assert seats(nodes, free, RaySettings(**given)) == expected


@pytest.mark.parametrize(
    ("given", "free", "message"),
    [
        (
            {"gpus": 8, "cpus": 2},
            {},
            r"expected a node with 2 CPU and 8 GPU, got a cluster of 1 x \(0 CPU\) and "
            r"2 x \(4 CPU\) and 1 x \(16 CPU, 4 GPU, pool:h100\)",
        ),
        ({"pool": "a100"}, {"CPU": 9}, "expected a node with 1 CPU and pool:a100, got"),
        ({"gpus": 1}, {"CPU": 9}, "whose 4 shares are all taken; launcher.workers=N waits"),
    ],
)
def test_a_cluster_without_room_is_refused(given, free, message: str):
    with pytest.raises(UserError, match=message):
        seats([HEAD, SMALL, SMALL, LARGE], free, RaySettings(**given))
    with pytest.raises(UserError, match="a cluster of no nodes"):
        seats([], free, RaySettings(**given))


def test_too_many_workers_and_unused_gpus_are_said(caplog: pytest.LogCaptureFixture):
    assert seats([SMALL, LARGE], {"CPU": 1}, RaySettings(workers=30)) == 30
    assert "room for 20 now; the others start when there is" in caplog.text
    assert "the cluster has GPUs, and these workers use none" in caplog.text


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("gpus=-1", "launcher.gpus: expected a whole number >= 0, got -1"),
        ("connect_seconds=0", "launcher.connect_seconds: expected a finite number > 0, got 0"),
        ("adress=auto", "address"),
    ],
)
def test_settings_out_of_range_are_refused(word: str, message: str):
    with pytest.raises(ConfigError, match=message):
        launchers.split(["launcher=ray", f"launcher.{word}"])


def test_pool_and_gpus_are_told_to_the_workers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray.importlib.util, "find_spec", lambda name: True)
    chosen, words = launchers.split(
        ["suite=quick", "launcher=ray", "launcher.pool=h100", "launcher.gpus=1"]
    )
    assert words == ["suite=quick"]
    assert chosen.worker_words() == ["worker.pool=h100", "worker.gpus=1"]
    assert chosen.launcher.leaves_machine
    assert not chosen.is_default


def test_without_ray_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "timetrial\[ray\]"'):
        Ray(RaySettings())


def test_workers_take_the_store_and_jax_along_and_nothing_else():
    given = {"MLFLOW_TRACKING_URI": "u", "XLA_FLAGS": "f", "JAX_PLATFORMS": "cpu", "HOME": "h"}
    assert taken_along(given, gpus=0) == {k: v for k, v in given.items() if k != "HOME"}
    assert taken_along(given, gpus=1) == {"MLFLOW_TRACKING_URI": "u", "XLA_FLAGS": "f"}


def test_nodes_find_the_modules_of_a_copy_that_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    root = str(Path(ray.__file__).absolute().parents[3])
    assert python_path({"PYTHONPATH": f"/mine{os.pathsep}"}) == f"/mine{os.pathsep}{root}"
    assert python_path({"PYTHONPATH": root}) == root
    monkeypatch.setattr(ray.sysconfig, "get_path", lambda name: root)
    assert python_path({}) == ""


@pytest.mark.parametrize(
    ("given", "node_gpus", "gpus", "environment", "cores"),
    [
        ({}, 0, [], {"OMP_NUM_THREADS": "8"}, ()),
        ({"cpus": 2}, 0, [], {"OMP_NUM_THREADS": "2"}, ()),
        ({}, 4, [], {"OMP_NUM_THREADS": "8", "JAX_PLATFORMS": "cpu"}, ()),
        ({"gpus": 1}, 4, ["2"], {"OMP_NUM_THREADS": "2"}, (24, 25)),
        ({"gpus": 1, "cpus": 1}, 4, ["3"], {"OMP_NUM_THREADS": "1"}, (26,)),
        ({"gpus": 2}, 4, ["0", "3"], {"OMP_NUM_THREADS": "4"}, (20, 21, 26, 27)),
        ({"gpus": 1}, 4, ["GPU-8f"], {"OMP_NUM_THREADS": "8"}, ()),
        ({"gpus": 1}, 2, ["5"], {"OMP_NUM_THREADS": "8"}, ()),
        ({"gpus": 1}, 16, ["3"], {"OMP_NUM_THREADS": "8"}, ()),
    ],
)
def test_only_workers_with_gpus_are_bound_to_cores(given, node_gpus, gpus, environment, cores):
    assert share(order(**given), node_gpus, gpus, range(20, 28)) == (environment, cores)


@pytest.fixture
def on_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_seat, "_gpus_of_node", lambda: (0, []))


def test_an_actor_runs_the_command_and_tells_its_last_error(on_a_node: None, tmp_path: Path):
    found = order(logs=str(tmp_path / "logs"), directory=str(tmp_path), versions=versions())
    found = Order(["wurker"], *list(vars(found).values())[1:])
    ended = Seat(found).run()
    assert ended.code == 2
    assert "did you mean 'worker'" in ended.error
    assert f"timetrial: {ended.error}" in (tmp_path / "logs" / "worker-0.log").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"versions": {"jax": "0.1"}}, "expected jax 0.1 as here, got "),
        ({"versions": {"commit": "abc"}}, "expected commit abc as here, got "),
        ({"directory": "/no/such/place"}, "expected the directory /no/such/place"),
    ],
)
def test_a_node_with_other_versions_or_directories_is_refused(given, message: str, monkeypatch):
    installed = {**versions(), "commit": "f00"}
    monkeypatch.setattr(ray_seat, "versions", lambda: installed)
    ended = Seat(order(**given)).run()
    assert ended.code == 2
    assert message in ended.error
    assert Seat(order(versions={"commit": "unknown"}))._order.versions["commit"] == "unknown"


def test_a_signal_before_the_start_prevents_it(on_a_node: None):
    seat = Seat(order())
    seat.send(0)
    seat.send(signal.SIGTERM)
    assert seat.run() == Ended(128 + signal.SIGTERM)


class FakeActor:
    """An actor that ends with a result, dies, or waits for a node."""

    def __init__(self, ends: Ended | Exception | None, waits: bool) -> None:
        self.ends, self.waits, self.killed = ends, waits, False
        self.received: list[int] = []
        self.run = types.SimpleNamespace(remote=lambda: self)
        self.send = types.SimpleNamespace(options=lambda concurrency_group: self.send)
        self.send.remote = self.call

    def call(self, number: int) -> tuple[FakeActor, int]:
        self.received.append(number)
        if number and not self.waits:
            self.ends = Ended(128 + number)
        return self, number

    @property
    def is_over(self) -> bool:
        return self.killed or (self.ends is not None and not self.waits)


class FakeRay:
    """As much of the module as ``Crew`` uses."""

    def __init__(self, *actors: FakeActor) -> None:
        self.actors, self.options = list(actors), {}
        self._left = list(actors)

    def remote(self, **groups: Any) -> Any:
        def options(**given: Any) -> Any:
            self.options = given
            return types.SimpleNamespace(remote=lambda order: self._left.pop(0))

        return lambda kind: types.SimpleNamespace(options=options)

    def wait(self, references: list[Any], timeout: float, num_returns: int = 1) -> Any:
        if isinstance(references[0], tuple):
            silent = [call for call in references if call[0].waits]
            return [call for call in references if call not in silent], silent
        return [actor for actor in references if actor.is_over], []

    def get(self, actor: FakeActor) -> Ended:
        if actor.killed or isinstance(actor.ends, Exception):
            raise actor.ends if isinstance(actor.ends, Exception) else RuntimeError("killed")
        assert actor.ends is not None
        return actor.ends

    def kill(self, actor: FakeActor) -> None:
        actor.killed = True


def test_actors_that_wait_for_a_node_are_given_up_when_no_run_is_left():
    done, waiting = FakeActor(Ended(0), False), FakeActor(None, True)
    engine = FakeRay(done, waiting)
    ends = Crew(engine, {"CPU": 2, "GPU": 1, "pool:p": 0.001}).run([order(), order()])
    assert [end.code for end in ends] == [0, -9]
    assert waiting.received == [0]
    assert engine.options["num_cpus"] == 2
    assert engine.options["num_gpus"] == 1
    assert engine.options["resources"] == {"pool:p": 0.001}
    assert engine.options["max_restarts"] > 3
    assert engine.options["max_task_retries"] == -1


def test_a_signal_ends_the_workers_and_gives_up_those_without_a_node(monkeypatch):
    busy, waiting = FakeActor(None, False), FakeActor(None, True)
    engine = FakeRay(busy, waiting)
    waits = engine.wait

    def signalled(references: list[Any], timeout: float, num_returns: int = 1) -> Any:
        if not busy.received:
            signal.raise_signal(signal.SIGTERM)
        return waits(references, timeout, num_returns)

    monkeypatch.setattr(engine, "wait", signalled)
    with pytest.raises(Interrupted) as stop:
        Crew(engine, {"CPU": 1}).run([order(), order()])
    assert stop.value.number == signal.SIGTERM
    assert busy.received == [signal.SIGTERM]
    assert waiting.killed


def test_a_second_signal_kills_the_workers(monkeypatch: pytest.MonkeyPatch):
    stuck = FakeActor(None, False)
    engine = FakeRay(stuck)
    monkeypatch.setattr(
        engine, "wait", lambda *a, **k: signal.raise_signal(signal.SIGINT) or ([], [])
    )
    with pytest.raises(Interrupted):
        Crew(engine, {"CPU": 1}).run([order()])
    assert stuck.killed


def test_an_actor_that_died_too_often_ends_with_its_error():
    ends = Crew(FakeRay(FakeActor(OSError("node lost"), False)), {"CPU": 1}).run([order()])
    assert ends == [Ended(-9, "OSError: node lost")]


def test_how_workers_ended_is_told(caplog: pytest.LogCaptureFixture):
    with pytest.raises(UserError, match="every worker ended: no suite; see /logs"):
        check_ends([Ended(2, "no suite"), Ended(2, "no suite")], Path("/logs"))
    check_ends([Ended(0), Ended(2, "other jax"), Ended(2, "other jax")], None)
    assert caplog.record_tuples == [
        (ray.__name__, logging.WARNING, "a worker ended early: other jax")
    ]


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (lambda **given: (_ for _ in ()).throw(ConnectionError("none found")), "none found"),
        (lambda **given: __import__("time").sleep(2), "got none in 0.1 s"),
    ],
)
def test_a_cluster_that_does_not_answer_is_refused_in_time(init, message: str, monkeypatch):
    fake = types.SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setitem(sys.modules, "ray", fake)
    settings = RaySettings(connect_seconds=0.1)
    with pytest.raises(UserError, match=message), connected(settings, prints=False):
        raise AssertionError("connected to nothing")
    closed = RaySettings(address="127.0.0.1:1")
    with pytest.raises(UserError, match="expected the answer of a Ray cluster"):
        connected(closed, prints=False).__enter__()


def test_a_running_connection_is_used_and_kept(monkeypatch: pytest.MonkeyPatch):
    fake = types.SimpleNamespace(is_initialized=lambda: True)
    monkeypatch.setitem(sys.modules, "ray", fake)
    with connected(RaySettings(), prints=True) as engine:
        assert engine is fake
    assert ray_crew.ABSENT_SECONDS < 60
