"""Command line and location of this installation.

Boundary: reads the process and PATH; prints nothing.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
from pathlib import Path

import timetrial


def program() -> str:
    """The program's name on the command line, from the current folder.

    ``timetrial`` if PATH finds this installation, else the path of its script (relative if it lies
    under the current folder), else ``PYTHON -m timetrial``.
    """
    script = _script()
    if script is None:
        return f"{shlex.quote(sys.executable)} -m timetrial"
    found = shutil.which("timetrial")
    if found is not None and Path(found).resolve() == script.resolve():
        return "timetrial"
    relative = os.path.relpath(script)
    return shlex.quote(str(script) if relative.startswith("..") else relative)


def _script() -> Path | None:
    """The installed script: the started one, else the one beside this Python."""
    started = Path(sys.argv[0])
    beside = Path(sys.executable).with_name("timetrial")
    for path in (started, beside):
        if path.name == "timetrial" and path.is_file():
            return path.absolute()
    return None


def version() -> str:
    """Version and directory of this installation, in one line."""
    place = Path(timetrial.__file__).parent
    return f"timetrial {timetrial.__version__} from {place} (Python {platform.python_version()})"
