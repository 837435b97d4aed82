"""Makes the README's pictures, and says what they show: ``make pictures``.

Boundary: build time only; races the quick suite with this code and with the embedded weights, runs
``timetrial`` and Chromium, and writes into one directory::

    python tools/pictures.py docs                    # a race of its own: about ten minutes
    python tools/pictures.py docs --root runs        # the race recorded there, completed if need be

``pictures.json`` beside the pictures holds digests of the weights and presets that they show, and
of the code that draws them. A test compares it with those of today.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from browser import Page, browser

from timetrial.bench import suite as suites
from timetrial.framework.yaml_files import read_yaml
from timetrial.optimizers.velo.weights import embedded_weights

SUITE: Final = "quick"
PICTURES: Final = ("report.png", "curves.png", "mlflow.png")
RECORD: Final = "pictures.json"
DRAWN_BY: Final = (
    "report/page.html",
    "report/page.css",
    "report/page.js",
    "report/style.py",
    "report/colors.py",
    "report/plots.py",
    "report/sections/overview.py",
    "report/sections/curves.py",
    "store/views.py",
)
"""Code below ``tracking/`` that decides how the pictures look."""

_TRACKING: Final = Path(__file__).parents[1] / "tracking"

_VIEW: Final = "fashion_mnist_resnet"  # the saved view of MLflow in the picture
_PANEL: Final = "mlflow.assistant.panelOpen_v1"  # keys of MLflow 3.17 for a panel that
_OPENED_ONCE: Final = "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1"  # opens by itself, once
_NO_ASSISTANT: Final = (
    f"localStorage.setItem('{_PANEL}', 'false'), localStorage.setItem('{_OPENED_ONCE}', 'true')"
)
_DRAWN: Final = "document.querySelector('.main-svg .scatterlayer .trace') !== null"  # a chart


def shown() -> dict[str, Any]:
    """Digests of the embedded weights, the quick suite, its presets and the drawing code (hex).

    Comments and layout of YAML files do not count, nor comments, docstrings and blank lines of
    Python.
    """
    suite, _ = suites.load_suite([f"suite={SUITE}"])
    presets = {f"{suite.presets}/{name}": suite.preset(name) for name in suite.workloads}
    return {
        "weights": embedded_weights().sha256,
        "suite": _digest(read_yaml(suites.suites()[SUITE])),
        "presets": {_short(name): _digest(read_yaml(path)) for name, path in presets.items()},
        "code": _digest([_code(_TRACKING / name) for name in DRAWN_BY]),
    }


def _code(path: Path) -> str:
    """A file as text; of Python without docstrings, blank lines and lines of comments.

    Text, since syntax trees print differently in every version of Python.
    """
    text = path.read_text()
    if path.suffix != ".py":
        return text
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            told = node.body[0]
            left_out |= {*range(told.lineno, (told.end_lineno or told.lineno) + 1)}
    lines = [line for n, line in enumerate(text.splitlines(), 1) if n not in left_out]
    return "\n".join(line for line in lines if line.strip() and not line.strip().startswith("#"))


def made(directory: Path) -> dict[str, str]:
    """Digests of the pictures themselves (hex), so that none is replaced alone."""
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in PICTURES}


def main() -> None:
    """Races, draws, photographs, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where the pictures go")
    parser.add_argument("--root", type=Path, help="tracking.root of a race to complete and use")
    options = parser.parse_args()
    browser()  # exits at once if there is none
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["TIMETRIAL_CACHE"] = temporary  # the race finds no fetched weights there
        root = (options.root or Path(temporary)).absolute()
        words = [f"suite={SUITE}", f"tracking.root={root}"]
        subprocess.run([sys.executable, "-m", "timetrial", "bench", *words], check=True)
        report = root / "reports" / SUITE
        _photograph_report(report / "report.html", options.directory / "report.png")
        shutil.copyfile(report / "plots" / "overview.png", options.directory / "curves.png")
        _photograph_mlflow(words, options.directory / "mlflow.png")
    record = {**shown(), "pictures": made(options.directory)}
    (options.directory / RECORD).write_text(json.dumps(record, indent=1) + "\n")


def _short(name: str) -> str:
    """A preset's name without the directory of this installation."""
    return "/".join(Path(name).parts[-2:])


def _digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _photograph_report(report: Path, picture: Path) -> None:
    """The first screen of a report."""
    with Page((1280, 670)) as page:
        page.open(report.as_uri())
        picture.write_bytes(page.picture())


def _photograph_mlflow(words: Sequence[str], picture: Path) -> None:
    """One of the saved views, without the panel of MLflow's assistant."""
    with _mlflow(words) as address, Page((1280, 800)) as page:
        page.open(address)
        page.run(_NO_ASSISTANT)
        page.open("about:blank#", until="true")
        page.open(address, until=_DRAWN)
        time.sleep(3.0)  # the charts fade in
        picture.write_bytes(page.picture())


@contextmanager
def _mlflow(words: Sequence[str]) -> Iterator[str]:
    """Serves MLflow's web interface; yields the address of the saved view."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "timetrial", "ui", *words, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            lines = (line.split() for line in server.stdout)
            yield next(line[1] for line in lines if line[:1] == [_VIEW])
        finally:
            server.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
