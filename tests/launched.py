"""Races by workers of launchers: a tiny suite for their processes, and what they recorded."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from plugins import package
from soak.plugin import PRESET, SUITE

from timetrial.bench.launch.identity import worker_text
from timetrial.bench.launch.places import open_queue
from timetrial.bench.launch.queue import Queue
from timetrial.bench.launch.tables import FINISHED, RUNNING
from timetrial.framework.config import Tracking
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.store.opening import open_store

ROOT = Path(__file__).parents[1]
EXPERIMENT = "launched"
RUNS = 4
STEP_SECONDS = 0.15


def install(site: Path) -> None:
    """Lays the workload ``soaked`` and a suite of four runs into a directory for PYTHONPATH."""
    (site / "soaked").mkdir(parents=True)
    package(site, "soaked", {}, "[timetrial.workloads]\nsoaked = soak.plugin:make\n")
    (site / "soaked" / "soaked.yaml").write_text(PRESET)
    (site / "race.yaml").write_text(SUITE)


def environment(site: Path, step_seconds: float = STEP_SECONDS) -> dict[str, str]:
    """Variables of a command that knows the workload."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "RAY_"))}
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", site)))
    return {**kept, "PYTHONPATH": path, "SOAK_STEP_SECONDS": str(step_seconds)}


def words(site: Path, root: Path, *more: str, experiment: str = EXPERIMENT) -> list[str]:
    """Words of the suite; checkpoints are written at every evaluation."""
    return [
        f"suite={site}/race.yaml",
        f"tracking.root={root}",
        f"tracking.experiment={experiment}",
        "tracking.checkpoint_minutes=0.001",
        *more,
    ]


def start(command: list[str], variables: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Starts ``timetrial COMMAND``."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "timetrial", *command],
            env=variables,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def evaluations(
    root: Path, uri: str | None = None, experiment: str = EXPERIMENT
) -> dict[str, list[dict[str, Any]]]:
    """Metrics of every evaluation of the finished runs by configuration; none is there twice."""
    records = load_runs(open_store(uri, root=root, create=False), experiment)
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        digest = record.tags[schema.CONFIG_HASH]
        assert digest not in found
        found[digest] = [{"step": row.step, **row.metrics} for row in record.evaluations]
    return found


@contextlib.contextmanager
def queue(root: Path, uri: str | None = None, experiment: str = EXPERIMENT) -> Iterator[Queue]:
    tracking = Tracking(root=str(root), experiment=experiment, uri=uri)
    with open_queue(tracking) as opened:
        yield opened


def running(opened: Queue) -> dict[int, str]:
    """Processes that make a run now, and its digest."""
    entries = opened.entries(RUNNING)
    return {int(worker_text(entry.worker).rpartition(" ")[2]): entry.digest for entry in entries}


def finished(opened: Queue) -> int:
    return opened.counts()[FINISHED]


def wait_until(condition: Callable[[], Any], *processes: subprocess.Popen[bytes]) -> Any:
    """Waits until a condition is true; fails when a process ends before."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if found := condition():
            return found
        assert all(process.poll() is None for process in processes), "a process ended"
        time.sleep(0.05)
    raise AssertionError("what was waited for did not happen")


def parent(process: int) -> int:
    """The process that started another one."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
