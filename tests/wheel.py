"""The wheel of this checkout, installed into a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("bench", "framework", "optimizers", "tracking", "workloads")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "timetrial", *ROOMS)
BUILD = "import sys, setuptools.build_meta as b; b.build_{0}(sys.argv[1])"


def environment(home: Path, path: Path | None = None) -> dict[str, str]:
    """Variables that know no checkout."""
    found = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}
    return found | {"HOME": str(home)} | ({"PYTHONPATH": str(path)} if path else {})


def run(command: list[str], cwd: Path, path: Path | None = None) -> str:
    """What a command prints, in an environment that knows no checkout."""
    done = subprocess.run(
        command, cwd=cwd, env=environment(cwd, path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_sources(copy: Path) -> Path:
    """Copies the sources, so that nothing is built in the checkout."""
    junk = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=junk)
        else:
            shutil.copy(ROOT / name, copy)
    return copy


def built(kind: str, source: Path, into: Path) -> Path:
    """Builds a ``wheel`` or an ``sdist``."""
    into.mkdir()
    run([sys.executable, "-c", BUILD.format(kind), str(into)], source)
    (made,) = into.iterdir()
    return made


def install(wheel: Path, target: Path) -> Path:
    """A folder with nothing but the installed wheel; dependencies come from this Python."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    run([*pip, "--no-index", "--target", str(target), str(wheel)], target.parent)
    return target
