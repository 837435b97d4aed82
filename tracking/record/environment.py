"""Environment of a run as tags: code, versions, devices, host and process.

Boundary: reads this machine and this process; sends nothing.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from timetrial.tracking.record import schema

PACKAGES = ("timetrial", "jax", "jaxlib", "flax", "optax", "numpy", "mlflow")
_SOURCE = Path(__file__).resolve().parents[2]


def environment_tags() -> dict[str, str]:
    """All tags of the environment that may affect a result or a timing."""
    return {
        **git_tags(_SOURCE),
        **version_tags(),
        **device_tags(),
        **host_tags(),
        **process_tags(),
    }


def git_tags(source: Path) -> dict[str, str]:
    """Commit of the code in ``source`` and whether files differ; ``unknown`` without git.

    Untracked Python and YAML files count as a difference, such as a new optimizer.
    """
    unknown = {schema.GIT_COMMIT: "unknown", schema.GIT_DIRTY: "unknown"}
    # An installed copy may lie inside another repository.
    if (
        _git(source, "ls-files", "--error-unmatch", Path(__file__).name, cwd="tracking/record")
        is None
    ):
        return unknown
    commit = _git(source, "rev-parse", "HEAD")
    changes = _git(source, "status", "--porcelain", "--untracked-files=all")
    if commit is None or changes is None:
        return unknown
    lines = changes.splitlines()
    dirty = any(not line.startswith("??") or line.endswith((".py", ".yaml")) for line in lines)
    return {schema.GIT_COMMIT: commit.strip(), schema.GIT_DIRTY: str(dirty).lower()}


def version_tags() -> dict[str, str]:
    """Versions of Python and of the relevant packages."""
    tags = {schema.VERSION_PREFIX + "python": platform.python_version()}
    for package in PACKAGES:
        tags[schema.VERSION_PREFIX + package] = _version(package)
    return tags


def device_tags() -> dict[str, str]:
    """Kind and number of the JAX devices."""
    import jax

    devices = jax.devices()
    return {
        schema.DEVICE_PLATFORM: devices[0].platform,
        schema.DEVICE_KIND: ", ".join(sorted({device.device_kind for device in devices})),
        schema.DEVICE_COUNT: str(len(devices)),
    }


def host_tags() -> dict[str, str]:
    """Name, operating system, processor and usable cores of this machine."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return {
        schema.HOST: socket.gethostname(),
        schema.HOST_CORES: str(cores),
        schema.HOST_CPU: _processor(),
        schema.PLATFORM: platform.platform(),
    }


def process_tags() -> dict[str, str]:
    """Identity of this process on this host: id and start."""
    pid = os.getpid()
    return {schema.PID: str(pid), schema.PROCESS_START: process_start(pid) or ""}


def process_start(pid: int) -> str | None:
    """Start of the process ``pid`` as an opaque text; ``None`` when it is not alive.

    Process ids are reused: equal processes have equal ids and equal starts.
    """
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():  # not Linux
        return _output(["ps", "-o", "lstart=", "-p", str(pid)])
    try:
        fields = stat.read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return None
    state, start_ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot}-{start_ticks}"


def process_is_gone(tags: Mapping[str, str]) -> bool:
    """True when the process of a run ran on this host and is dead."""
    if tags.get(schema.HOST) != socket.gethostname() or schema.PID not in tags:
        return False
    pid = tags[schema.PID]
    if not (pid.isascii() and pid.isdigit() and len(pid) <= 10):
        return True  # never the id of a process
    return process_start(int(pid)) != tags.get(schema.PROCESS_START)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    for name in (package, f"{package}-skinny"):  # mlflow is installed under either name
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _git(source: Path, *arguments: str, cwd: str = ".") -> str | None:
    return _output(["git", "-C", str(source / cwd), "--no-optional-locks", *arguments])


def _output(command: list[str]) -> str | None:
    """Output of a command; ``None`` when it is missing, fails or takes over 10 seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
