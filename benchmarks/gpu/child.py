"""One part of the measurement: ``python -m benchmarks.gpu.child PART FILE``.

Boundary: carries out one part and writes its result; ``run`` decides which and when.

A process of its own makes the peak of the memory that of one measurement, and an error or a lack of
memory ends one part only. It imports everything, then waits for a line on its standard input:
so the next process gets ready while another one measures, without touching the device.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu import agreement, feeding, hardware, repeats, steps

ROOT: Final = Path(__file__).parents[2]

Save = Callable[[Mapping[str, Any]], None]
"""Keeps an intermediate result, should the process be ended."""


def _compare(save: Save, name: str, optimizers: Sequence[str], updates: int) -> dict[str, Any]:
    found = {}
    for optimizer in optimizers:
        found[optimizer] = agreement.compare(name, optimizer, updates)
        save(found)
    return found


def _tests(save: Save, names: Sequence[str], dry: bool) -> dict[str, Any]:
    import pytest

    del dry  # the environment says it, see tests/gpu
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        # The project's options need plug-ins that may be missing here.
        options = ["-o", "addopts=", "-o", "filterwarnings=", "-p", "no:cacheprovider", "-v"]
        chosen = ["-m", "gpu", "-k", " or ".join([*names, "every"]), "tests/gpu"]
        status = pytest.main([*options, f"--junitxml={report}", *chosen])
        return {"status": int(status), **_read_report(report)}


def _read_report(path: Path) -> dict[str, Any]:
    """Numbers of tests, and the names of the failed ones with the first line of the reason."""
    cases = list(ElementTree.parse(path).iter("testcase"))
    failed = {
        case.get("name", ""): (problem.get("message") or "").split("\n")[0]
        for case in cases
        for problem in [*case.iter("failure"), *case.iter("error")]
    }
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - len(failed) - skipped
    return {"passed": passed, "failed": failed, "skipped": skipped}


KINDS: Final[Mapping[str, Callable[..., Mapping[str, Any]]]] = {
    "device": lambda save: hardware.describe(),
    "measure": lambda save, **arguments: steps.measure(**arguments),
    "wait": lambda save, **arguments: feeding.wait(**arguments),
    "repeats": lambda save, **arguments: repeats.repeated(**arguments),
    "again": lambda save, **arguments: repeats.once(**arguments),
    "agreement": _compare,
    "tests": _tests,
}


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Writes a result as a whole: a process that is ended leaves the one before."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result))
    partial.replace(path)


def main(arguments: Sequence[str]) -> None:
    """Entry point: waits, carries out the part, writes its result."""
    part, path = json.loads(arguments[0]), Path(arguments[1])
    if not sys.stdin.readline():
        return  # nobody wants it any more
    os.chdir(ROOT)
    result = KINDS[part["kind"]](lambda found: write(path, found), **part["arguments"])
    write(path, result)


if __name__ == "__main__":
    main(sys.argv[1:])
