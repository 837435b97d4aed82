"""A worker on a Ray cluster: the actor, its share of the node, and its check of versions.

Boundary: runs on the node, in a process of Ray; ``ray`` starts it. The worker is a process of its
own below the actor: the variables of CUDA, JAX and OpenMP, and the cores, are set before it starts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from timetrial.bench.launch.child import Child, start
from timetrial.framework.errors import UserError
from timetrial.framework.files import make_directory
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import git_tags, version_tags

CHECKED: Final = ("timetrial", "jax", "jaxlib", "flax", "optax", "numpy")
"""Packages whose versions change results."""

_SOURCE: Final = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Order:
    """What a worker is to do.

    Attributes:
        command: the command and its words.
        index: number of the worker, from 0.
        logs: directory for what it prints; "" prints it in the log of Ray.
        directory: its working directory.
        environment: variables of the command that workers take.
        versions: versions that must be installed.
        gpus: GPUs that it has.
        cpus: cores that it may use; 0 leaves it to the node.
    """

    command: Sequence[str]
    index: int
    logs: str
    directory: str
    environment: Mapping[str, str]
    versions: Mapping[str, str]
    gpus: int = 0
    cpus: int = 0


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a worker ended.

    Attributes:
        code: its exit code, negative when it was killed; 2 for a node that cannot be used.
        error: its last line of error; "" if unknown.
    """

    code: int
    error: str = ""


class Seat:
    """The actor: one worker on one share of a node.

    Args:
        order: what the worker is to do.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._output: IO[bytes] | None = None
        self._child = Child(self._begin)

    def run(self) -> Ended:
        """Runs the worker to its end."""
        order = self._order
        if wrong := _obstacle(order):
            return Ended(2, wrong)
        if not order.logs:
            return Ended(self._child.run())
        path = Path(order.directory, order.logs, f"worker-{order.index}.log")
        try:
            make_directory(path.parent)
            output = path.open("ab")
        except (UserError, OSError) as error:
            return Ended(2, f"node {socket.gethostname()}: {error}")
        with output:
            self._output = output
            code = self._child.run()
        return Ended(code, _last_error(path) if code not in (0, 1) else "")

    def send(self, number: int) -> None:
        """Sends a signal to the worker; 0 sends none, and only shows that it is there."""
        if number:
            self._child.send(number)

    def _begin(self) -> subprocess.Popen[bytes]:
        order = self._order
        node_gpus, gpus = _gpus_of_node()
        environment, cores = share(order, node_gpus, gpus, sorted(os.sched_getaffinity(0)))
        return start(
            order.command,
            self._output,
            environment={**order.environment, **environment},
            cores=cores,
            directory=order.directory,
            ends_with_parent=True,
        )


def share(
    order: Order, node_gpus: int, gpus: Sequence[str], cores: Sequence[int]
) -> tuple[dict[str, str], tuple[int, ...]]:
    """The variables and the cores of a worker.

    Only workers with GPUs are bound to cores, each GPU to its own ones: without GPUs, fewer cores
    change the last bits of results.

    Args:
        order: what the worker is to do.
        node_gpus: GPUs of the node.
        gpus: the worker's GPUs, as Ray names them.
        cores: numbers of the node's cores.

    Returns:
        Variables, and numbers of cores; empty for all.
    """
    own = _own_cores(node_gpus, gpus, cores, order.cpus) if order.gpus else ()
    environment = {"OMP_NUM_THREADS": str(len(own) or order.cpus or len(cores))}
    if node_gpus and not order.gpus:  # Ray hides no GPUs from it
        environment["JAX_PLATFORMS"] = "cpu"
    return environment, own


def _own_cores(
    node_gpus: int, gpus: Sequence[str], cores: Sequence[int], cpus: int
) -> tuple[int, ...]:
    numbers = [int(gpu) for gpu in gpus if gpu.isdecimal()]
    each = len(cores) // max(1, node_gpus)
    if len(numbers) != len(gpus) or not each or max(numbers, default=node_gpus) >= node_gpus:
        return ()  # GPUs by UUID, or a part of the machine's: who owns which cores is unknown
    used = min(each, max(1, cpus // len(numbers))) if cpus else each
    return tuple(core for number in numbers for core in cores[number * each :][:used])


def _gpus_of_node() -> tuple[int, list[str]]:
    """Number of GPUs of this node, and the names of this actor's."""
    import ray

    context = ray.get_runtime_context()
    here = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]
    total = int(here[0]["Resources"].get("GPU", 0)) if here else 0
    return total, list(context.get_accelerator_ids().get("GPU", []))


def versions() -> dict[str, str]:
    """Versions of this installation that change results, and its commit."""
    found = version_tags()
    packages = {name: found.get(schema.VERSION_PREFIX + name, "unknown") for name in CHECKED}
    return {**packages, "commit": git_tags(_SOURCE)[schema.GIT_COMMIT]}


def _obstacle(order: Order) -> str:
    """Why this node cannot be used, in one line; "" if it can."""
    here = socket.gethostname()
    found = versions()
    for name, expected in order.versions.items():
        if "unknown" not in (expected, found[name]) and found[name] != expected:
            return f"node {here}: expected {name} {expected} as here, got {found[name]}"
    if not Path(order.directory).is_dir():
        return (
            f"node {here}: expected the directory {order.directory}; launcher.directory names one "
            "that all nodes have"
        )
    return ""


def _last_error(path: Path) -> str:
    """The last line of error that a worker has printed; "" without one."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        text = file.read().decode(errors="replace")
        found = re.findall(r"^timetrial: (.*)$", text, re.MULTILINE)
        return str(found[-1]) if found else ""
    return ""
