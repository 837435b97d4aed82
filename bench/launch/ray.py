"""Workers on a Ray cluster: one actor per share of a node, restarted where there is room.

Boundary: starts and ends actors; ``ray_seat`` is the actor, the queue says what is finished.
Ray (https://docs.ray.io) is imported only when workers are started.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import math
import os
import socket
import sysconfig
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from timetrial.bench.launch.ray_crew import Crew
from timetrial.bench.launch.ray_seat import Ended, Order, versions
from timetrial.framework.errors import UserError, reason_of

PROBE_SECONDS: Final = 5.0
"""Time for the first answer of a given address."""

SHARE_OF_POOL: Final = 0.001
"""Part of a node's pool that a worker with GPUs takes; one without takes the whole node."""

TAKEN: Final = ("MLFLOW_", "TIMETRIAL_", "JAX_", "XLA_", "PG")
"""Beginnings of the variables that workers take from the command."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RaySettings:
    """Settings of the launcher ``ray``.

    Attributes:
        address: HOST:PORT of the cluster, or auto for the one that this machine belongs to.
        workers: number of workers; 0 takes one per free share of the cluster.
        gpus: GPUs of each worker, which no other worker sees; 0 hides all.
        cpus: cores that Ray sets apart for each worker; 0 is one core for Ray, and divides the
            cores of a node among workers with GPUs.
        pool: name or file of the pool of identical machines. Workers run on nodes with the
            resource pool:NAME only, without GPUs one on each.
        directory: working directory on every node; empty takes that of this command.
        connect_seconds: longest wait for the cluster, > 0.
    """

    address: str = "auto"
    workers: int = 0
    gpus: int = 0
    cpus: int = 0
    pool: str = ""
    directory: str = ""
    connect_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("workers", "gpus", "cpus"):
            if getattr(self, name) < 0:
                value = getattr(self, name)
                raise ValueError(f"{name}: expected a whole number >= 0, got {value}")
        if not 0 < self.connect_seconds < math.inf:
            raise ValueError(
                f"connect_seconds: expected a finite number > 0, got {self.connect_seconds}"
            )

    @property
    def share(self) -> dict[str, float]:
        """What a worker takes of a node, as resources of Ray."""
        found: dict[str, float] = {"CPU": max(1, self.cpus)}
        if self.gpus:
            found["GPU"] = self.gpus
        if self.pool:
            found[f"pool:{Path(self.pool).stem}"] = SHARE_OF_POOL if self.gpus else 1
        return found


class Ray:
    """Starts workers on a Ray cluster.

    A worker whose process or node dies is started again where there is room. A first Ctrl-C or
    SIGTERM ends the workers, with their runs saved; a second one kills them. When this process is
    killed, Ray kills the workers, and the same command continues.

    Args:
        settings: address, number and share of the workers.

    Raises:
        UserError: Ray is not installed.
    """

    leaves_machine = True

    def __init__(self, settings: RaySettings) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UserError('launcher=ray: expected the package ray; pip install "timetrial[ray]"')
        self.settings = settings
        self.workers = settings.workers

    def launch(self, command: Sequence[str], logs: Path | None) -> None:
        """Runs ``timetrial COMMAND`` in every worker; see ``Launcher``."""
        settings = self.settings
        order = Order(
            list(command),
            0,
            str(logs or ""),
            settings.directory or os.getcwd(),
            taken_along(os.environ, settings.gpus),
            versions(),
            settings.gpus,
            settings.cpus,
        )
        with connected(settings, prints=logs is None) as ray:
            workers = seats(ray.nodes(), ray.available_resources(), settings)
            crew = Crew(ray, settings.share)
            ends = crew.run([dataclasses.replace(order, index=n) for n in range(workers)])
        check_ends(ends, logs)


def check_ends(ends: Sequence[Ended], logs: Path | None) -> None:
    """Tells why workers ended early.

    Raises:
        UserError: every worker ended with bad input.
    """
    errors = dict.fromkeys(end.error for end in ends if end.code not in (0, 1) and end.error)
    if ends and all(end.code == 2 for end in ends):
        more = "; ".join(errors) or "its node's log has the reason"
        raise UserError(f"every worker ended: {more}" + (f"; see {logs}" if logs else ""))
    for error in errors:
        _log.warning("a worker ended early: %s", error)


def seats(
    nodes: Sequence[Mapping[str, Any]], free: Mapping[str, float], settings: RaySettings
) -> int:
    """Number of workers to start.

    Args:
        nodes: the nodes, as ``ray.nodes()`` lists them.
        free: resources of the whole cluster that are free.
        settings: number and share of the workers.

    Raises:
        UserError: no node has room for one worker.
    """
    share = settings.share
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    room = sum(_fitting(own, share) for own in resources)
    wanted = " and ".join(_resource(name, amount) for name, amount in share.items())
    if not room:
        raise UserError(
            f"launcher=ray: expected a node with {wanted}, got a cluster of {_described(resources)}"
        )
    if settings.workers > room:
        _log.warning(
            "launcher.workers=%d: the cluster has room for %d now; the others start when there is",
            settings.workers,
            room,
        )
    if not settings.gpus and any(own.get("GPU") for own in resources):
        _log.warning("launcher.gpus=0: the cluster has GPUs, and these workers use none")
    if settings.workers:
        return settings.workers
    count = min(room, _fitting(free, share))
    if not count:
        raise UserError(
            f"launcher.workers=0: expected a free share with {wanted}, got a cluster whose {room} "
            "shares are all taken; launcher.workers=N waits for them"
        )
    return count


def _fitting(resources: Mapping[str, float], share: Mapping[str, float]) -> int:
    """How often a share fits into resources."""
    return min(int(resources.get(name, 0) / amount) for name, amount in share.items())


def _resource(name: str, amount: float) -> str:
    return name if name.startswith("pool:") else f"{amount:g} {name}"


def _described(resources: Sequence[Mapping[str, float]]) -> str:
    """The nodes of a cluster in words."""
    shown: dict[str, int] = {}
    for own in resources:
        names = ["CPU", *sorted(n for n in own if n == "GPU" or n.startswith("pool:"))]
        text = ", ".join(_resource(name, own.get(name, 0)) for name in names)
        shown[text] = shown.get(text, 0) + 1
    return " and ".join(f"{count} x ({text})" for text, count in shown.items()) or "no nodes"


def taken_along(environment: Mapping[str, str], gpus: int) -> dict[str, str]:
    """The variables of this process that workers need: store, data, JAX.

    Args:
        environment: variables of this process.
        gpus: GPUs of each worker; with GPUs, JAX's platform is left to the node.
    """
    found = {name: value for name, value in environment.items() if name.startswith(TAKEN)}
    if gpus:
        found.pop("JAX_PLATFORMS", None)
    return found


def python_path(environment: Mapping[str, str]) -> str:
    """Where nodes find the modules of this process: PYTHONPATH, and a copy not installed."""
    root = str(Path(__file__).absolute().parents[3])
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    given = environment.get("PYTHONPATH", "")
    parts = [part for part in given.split(os.pathsep) if part]
    if root not in installed and root not in parts:
        parts.append(root)
    return os.pathsep.join(parts)


@contextlib.contextmanager
def connected(settings: RaySettings, *, prints: bool) -> Iterator[Any]:
    """Yields the module ``ray``, connected to the cluster inside.

    Args:
        settings: the address.
        prints: show here what the workers print.

    Raises:
        UserError: there is no cluster at the address, or it does not answer.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # Ray would leave lines of workers out
    import ray

    if ray.is_initialized():
        yield ray
        return
    _probe(settings.address)
    failures: list[BaseException] = []

    def connect() -> None:
        try:
            ray.init(
                address=settings.address,
                runtime_env={"env_vars": {"PYTHONPATH": python_path(os.environ)}},
                log_to_driver=prints,
                logging_level=logging.ERROR,
            )
        except BaseException as error:  # Ray exits, too
            failures.append(error)

    thread = threading.Thread(target=connect, daemon=True)  # Ray waits for minutes, unstoppably
    thread.start()
    thread.join(settings.connect_seconds)
    if thread.is_alive() or failures:
        got = reason_of(failures[0]) if failures else f"none in {settings.connect_seconds:g} s"
        raise UserError(_no_answer(settings.address, got))
    try:
        yield ray
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """Refuses an address HOST:PORT at which nothing answers.

    Raises:
        UserError: nothing answers.
    """
    host, _, port = address.rpartition("://")[2].partition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=PROBE_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(_no_answer(address, str(error))) from error


def _no_answer(address: str, got: str) -> str:
    return (
        f"launcher.address={address}: expected the answer of a Ray cluster (ray start), got {got}; "
        "all nodes need the same versions of Ray and Python, and the same token"
    )
