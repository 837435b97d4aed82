"""Directory of JAX's cache of compiled programs: where it lies, and how large it may grow.

Boundary: environment variables and files; imports no JAX, which reads the variables when imported.

XLA compiles for the instruction set of a CPU, and divides loops by the number of cores. JAX's own
key of an entry has neither. So each kind of machine has a directory of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import stat
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Final

from timetrial.framework.machine import usable_cores
from timetrial.framework.paths import PathError, user_path

JAX_DIRECTORY: Final = "JAX_COMPILATION_CACHE_DIR"
OWN_DIRECTORY: Final = "TIMETRIAL_COMPILED"
OFF: Final = "off"
"""Value of ``TIMETRIAL_COMPILED`` that switches the cache off."""

MOST_BYTES: Final = 2**30
"""Size above which the entries used longest ago are removed, when a command starts."""

_SHORTEST: Final = ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
"""Programs that compile faster are not kept; JAX's default is a second."""

_CPUINFO: Final = Path("/proc/cpuinfo")
_THREADS: Final = ("NPROC", "PJRT_NPROC")
"""Variables that change among how many threads XLA divides the work."""


def use_compiled_files(environment: MutableMapping[str, str]) -> None:
    """Sets JAX's variables to this package's cache, unless the user has set or disabled it.

    Call it before JAX is imported. Without a writable place nothing is set.
    """
    for name in ("JAX_ENABLE_COMPILATION_CACHE", JAX_DIRECTORY):
        if environment.get(name, "").lower() in ("0", "false", "no", "off"):
            return
    root = compiled_root(environment)
    given = environment.get(JAX_DIRECTORY, "")
    if given and (root is None or Path(given).parent != root):
        return
    environment.pop(JAX_DIRECTORY, None)  # of a parent process, which may have other cores
    if root is None or not _can_write(root):
        return
    prune(root)
    environment[JAX_DIRECTORY] = str(root / kind_of_machine(environment))
    environment.setdefault(*_SHORTEST)


def compiled_root(environment: Mapping[str, str]) -> Path | None:
    """Directory of this package's compiled programs; None if they are not kept.

    ``$TIMETRIAL_COMPILED`` (``off``: none), else ``compiled`` in ``$TIMETRIAL_CACHE``, in
    ``$XDG_CACHE_HOME/timetrial`` or in ``~/.cache/timetrial``. An empty variable counts as unset.
    """
    own = environment.get(OWN_DIRECTORY, "")
    if own.lower() == OFF:
        return None
    with contextlib.suppress(PathError):
        if own:
            return user_path(own).absolute()
        if cache := environment.get("TIMETRIAL_CACHE"):
            return user_path(cache).absolute() / "compiled"
        if shared := environment.get("XDG_CACHE_HOME"):
            return user_path(shared).absolute() / "timetrial" / "compiled"
        return user_path("~/.cache/timetrial/compiled").absolute()
    return None


def kind_of_machine(environment: Mapping[str, str]) -> str:
    """Name of a directory for programs compiled on machines like this one: 12 hex digits."""
    facts = [platform.machine(), str(len(usable_cores())), *map(environment.get, _THREADS)]
    with contextlib.suppress(OSError):
        text = _CPUINFO.read_text(errors="replace")
        found = re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", text, re.MULTILINE)
        facts += sorted(set(found))
    return hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()[:12]


def prune(root: Path, most_bytes: int = MOST_BYTES) -> None:
    """Removes the entries read or written longest ago until the rest fits; never raises."""
    entries = [
        (max(about.st_atime, about.st_mtime), about.st_size, path) for path, about in _files(root)
    ]
    size = sum(entry[1] for entry in entries)
    for _, own_size, path in sorted(entries):
        if size <= most_bytes:
            return
        with contextlib.suppress(OSError):  # another process may remove it, too
            path.unlink()
        size -= own_size


def size_of(root: Path) -> tuple[int, int]:
    """Number of files below a directory, and their bytes."""
    sizes = [about.st_size for _, about in _files(root)]
    return len(sizes), sum(sizes)


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in root.rglob("*"):
        with contextlib.suppress(OSError):
            about = path.lstat()
            if stat.S_ISREG(about.st_mode):
                yield path, about


def _can_write(root: Path) -> bool:
    """Whether a directory is writable, or can be made."""
    existing = next((part for part in (root, *root.parents) if os.path.exists(part)), root)
    return os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK)
