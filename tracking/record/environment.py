"""Environment of a run as tags: code, versions, devices, host and process.

Boundary: reads this machine and this process; sends nothing.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from timetrial.framework.machine import (
    HOST_NAMESPACE,
    boot,
    cores_text,
    pid_namespace,
    usable_cores,
)
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
    """Name, operating system and processor of this machine, and what this process may use of it.

    Cores, and GPUs where there are any.
    """
    from timetrial.framework.gpus import gpus_of_process

    cores, gpus = usable_cores(), gpus_of_process()
    found = {
        schema.HOST: socket.gethostname(),
        schema.HOST_CORES: str(len(cores)),
        schema.HOST_CPU: _processor(),
        schema.PLATFORM: platform.platform(),
        schema.CPU_AFFINITY: cores_text(cores) if hasattr(os, "sched_getaffinity") else "",
        schema.GPU_UUID: ",".join(gpu.uuid for gpu in gpus if gpu.uuid),
        schema.DRIVER: gpus[0].driver if gpus else "",
    }
    return {key: text for key, text in found.items() if text}


def process_tags() -> dict[str, str]:
    """Identity of this process on this host, and the time now, when its run starts."""
    pid = os.getpid()
    found = {
        schema.BOOT: boot(),
        schema.PID_NAMESPACE: pid_namespace(),
        schema.PID: str(pid),
        schema.PROCESS_START: process_start(pid) or "",
        schema.STARTED_MS: str(time.time_ns() // 1_000_000),
    }
    known = (schema.BOOT, schema.PID_NAMESPACE)
    return {key: text for key, text in found.items() if text or key not in known}


def process_start(pid: int) -> str | None:
    """Start of the process ``pid`` as an opaque text; ``None`` when it is not alive.

    Process ids are reused: equal processes have equal ids and equal starts.
    """
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():  # not Linux
        return _output(["ps", "-o", "lstart=", "-p", str(pid)])
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, start_ticks = fields[0], fields[19]
    return None if state in "ZX" or not boot() else f"{boot()[:8]}-{start_ticks}"


def process_is_gone(tags: Mapping[str, str]) -> bool:
    """True when the process of a run ran on this host and is dead.

    Containers may share the name of a host. A process id is a number of its own namespace: of
    another namespace, or of another boot of a container's machine, nothing is known here, so its
    process counts as alive.
    """
    if tags.get(schema.HOST) != socket.gethostname() or schema.PID not in tags:
        return False
    namespace = tags.get(schema.PID_NAMESPACE)  # absent from runs of earlier versions
    if namespace is not None and namespace != pid_namespace():
        return False
    if namespace is not None and tags.get(schema.BOOT) != boot():
        return namespace == HOST_NAMESPACE  # restarted; or another machine of a container's name
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
