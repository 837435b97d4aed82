"""Two processes make one run: the same losses as one process with two devices, and one end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from timetrial.bench import hosts
from timetrial.bench.hosts import split
from timetrial.framework.errors import ConfigError, InterruptedAgain, UserError
from timetrial.framework.hosts import Hosts
from timetrial.framework.signals import noted

TESTS = Path(__file__).parents[1]
Seen = Mapping[str, Any]


def start(index: int, port: int, root: Path, devices: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(TESTS / "two_hosts.py"), str(index), str(port), str(root)],
        env={
            **os.environ,
            "PYTHONPATH": f"{TESTS.parent}:{TESTS}",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def seen(process: subprocess.Popen[str]) -> Seen:
    """The lines of one process by name; with its exit code and messages."""
    out, messages = process.communicate(timeout=600)
    found: dict[str, Any] = {"code": process.returncode, "messages": messages}
    for line in out.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    return found


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Seen]]:
    """The two processes together, then one by itself."""
    root = tmp_path_factory.mktemp("hosts")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    together = [start(index, port, root, 1) for index in (0, 1)]
    try:
        found = [seen(process) for process in together]
        alone = start(2, port, root, 2)
        together.append(alone)
        yield [*found, seen(alone)]
    finally:
        for process in together:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_with_two_devices(three: list[Seen]) -> None:
    first, second, alone = (one["steps"] for one in three)
    assert first["evaluations"] == second["evaluations"] == alone["evaluations"]
    assert [step for step, _ in alone["evaluations"]] == [0, 5, 10, 12, 15, 16]
    assert first["losses"] == second["losses"] == alone["losses"]
    assert len(alone["losses"]) == 16


@pytest.mark.slow
def test_under_a_time_budget_all_decide_by_the_first_ones_clock(three: list[Seen]) -> None:
    """The second clock runs 1.5 times as fast; each deciding by its own, they would part."""
    first, second = (one["seconds"] for one in three[:2])
    assert first["evaluations"] == second["evaluations"]
    assert first["seconds"] == second["seconds"]
    assert 0.25 <= first["seconds"][-1] < 5
    assert first["losses"] == second["losses"]
    assert len(first["losses"]) > 2
    alone = three[2]["steps"]["losses"]
    common = set(alone) & set(first["losses"])
    assert all(alone[step] == first["losses"][step] for step in common)


@pytest.mark.slow
def test_a_signal_to_one_ends_all_after_the_same_update(three: list[Seen]) -> None:
    first, second, alone = (one["interrupted"] for one in three)
    assert first["code"] == second["code"] == 143
    assert first["losses"] == second["losses"]
    assert 12 <= len(first["losses"]) < 20
    resumed = three[0]["resumed"]
    assert resumed["code"] == three[1]["resumed"]["code"] == 0
    # A signal is seen with one more update under way: that is the last one saved.
    last = max(map(int, first["losses"]))
    assert min(map(int, resumed["losses"])) == last + 1
    assert resumed["evaluations"] == three[1]["resumed"]["evaluations"]
    assert resumed["evaluations"] == alone["evaluations"], "as never interrupted"


@pytest.mark.slow
def test_a_lost_host_ends_the_run_in_one_line_and_the_command_continues(
    three: list[Seen],
) -> None:
    first, second, alone = three
    assert second["code"] == -9
    assert (first["code"], first["lost"]["code"]) == (1, 1)
    lines = first["messages"].splitlines()
    assert sum("another host of this run is lost" in line for line in lines) == 1
    assert "same command continues" in lines[-1]
    continued = alone["continued"]
    assert continued["code"] == 0
    assert min(map(int, continued["losses"])) == 11
    assert [step for step, _ in continued["evaluations"]] == [0, 5, 10, 15, 20]


@pytest.mark.slow
def test_an_array_divided_between_hosts_is_saved_and_restored(three: list[Seen]) -> None:
    for one in three[:2]:
        assert one["divided"] == {"same": True, "parts": 3}  # the table, and Adam's two averages


@pytest.mark.slow
def test_hosts_that_were_started_differently_are_refused_in_one_line(three: list[Seen]) -> None:
    for index, one in enumerate(three[:2]):
        assert one["refused"] == (
            "hosts: expected the data to be the same on all hosts, got another on host 1 than on "
            f"host 0; on this host, {index}: of host {index}"
        )


@pytest.mark.slow
def test_the_first_host_alone_records_and_shows_the_run(three: list[Seen]) -> None:
    assert three[1]["messages"].count("tiny adam") == 0
    assert "tiny adam seed 0: 16 steps" in three[0]["messages"]


def test_words_about_hosts_are_no_part_of_the_run() -> None:
    given, words = split(["seed=1", "hosts.count=4", "hosts.coordinator=a:1", "hosts.index=3"])
    assert (given.coordinator, given.count, given.index) == ("a:1", 4, 3)
    assert words == ["seed=1"]
    assert split([])[0].coordinator is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hosts.count=2"], "expected coordinator=HOST:PORT with count=2, got None"),
        (["hosts.coordinator=auto", "hosts.count=2"], "expected coordinator=HOST:PORT"),
        (["hosts.coordinator=a:1", "hosts.count=2", "hosts.index=2"], "index 2, count 2"),
        (["hosts.coordinator=a"], "expected HOST:PORT or auto, got 'a'"),
        (["hosts.port=1"], "port"),
    ],
)
def test_wrong_words_about_hosts_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split(words)


def test_a_first_host_that_does_not_listen_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "PATIENCE_SECONDS", 0)
    with socket.socket() as closed:  # bound, not listening
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(
            UserError, match=rf"hosts.coordinator={address}.*hosts.index=0 to listen"
        ):
            hosts.join(Hosts(address, 2, 1))


def test_the_first_signal_is_noted_and_the_second_ends_the_program() -> None:
    with noted() as ending:
        assert ending() == 0
        signal.raise_signal(signal.SIGTERM)
        assert ending() == signal.SIGTERM
        with pytest.raises(InterruptedAgain) as stop:
            signal.raise_signal(signal.SIGINT)
    assert stop.value.number == signal.SIGINT
