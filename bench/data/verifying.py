"""``timetrial data verify``: checks a prepared data set, one line per check.

Boundary: prints findings; ``workloads.data.checks`` makes those that need no workload.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from timetrial.bench.data.untrained import CHECK, judged, untrained
from timetrial.workloads import WORKLOADS
from timetrial.workloads.data.catalogue import DataSet
from timetrial.workloads.data.checks import Finding, findings, made
from timetrial.workloads.data.libraries import require_libraries


def verify(data: DataSet, root: Path, *, model: bool = False) -> int:
    """Checks a prepared data set; returns the exit code, 1 if a check failed.

    Args:
        data: the data set.
        root: root of the prepared data sets.
        model: check the untrained model also without an accelerator.

    Raises:
        UserError: the extra ``[data]`` is missing, or the data set is not prepared.
    """
    require_libraries(f"data verify {data.workload}")
    failed = 0
    for finding in _all(data, root, model):
        print(finding, flush=True)
        failed += finding.passed is False
    print(f"\n{data.workload}: " + (f"{failed} checks failed" if failed else "no check failed"))
    return 1 if failed else 0


def _all(data: DataSet, root: Path, model: bool) -> Iterator[Finding]:
    yield from findings(data, root, _show_start)
    with _data_directory(root):
        last = model_finding(data.workload, model)
    yield last


def _show_start(name: str) -> None:
    """Says on a terminal what is being checked; the finding overwrites it."""
    if sys.stderr.isatty():
        print(f"{name} ...", end="\r", file=sys.stderr, flush=True)


@contextmanager
def _data_directory(root: Path) -> Iterator[None]:
    """Inside, workloads read their data below ``root``."""
    before = os.environ.get("TIMETRIAL_DATA")
    os.environ["TIMETRIAL_DATA"] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TIMETRIAL_DATA"]
        else:
            os.environ["TIMETRIAL_DATA"] = before


def model_finding(name: str, wanted: bool) -> Finding:
    """The check of the untrained model of a workload with its default settings.

    It is made if wanted, or on an accelerator: a full-size batch takes minutes and tens of GB
    of memory on a CPU.
    """
    if name not in WORKLOADS:
        return Finding(CHECK, None, f"there is no workload {name} here")
    if not wanted and jax.default_backend() == "cpu":
        return Finding(CHECK, None, "no accelerator; --untrained makes it on the CPU")
    found: list[Finding] = []

    def check() -> str:
        entry = WORKLOADS[name]
        found.append(judged(name, *untrained(entry.make(entry.settings()))))
        return ""

    crashed = made(CHECK, check)
    return found[0] if found else crashed
