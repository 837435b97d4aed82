"""Runs recorded in a real MLflow store, for the tests of tracking."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from timetrial.framework.records import Row
from timetrial.framework.types import Status
from timetrial.tracking.record.journal import RunHeader
from timetrial.tracking.store.opening import Store
from timetrial.tracking.store.recording import start_recording

TAGS = {
    "workload": "tiny",
    "optimizer": "adam",
    "seed": "1",
    "condition": "step",
    "budget": "20",
    "metric": "accuracy",
    "direction": "maximize",
}
ROWS = [
    Row(0, 0.0, {"train/loss": 2.0, "validation/accuracy": 0.1}),
    Row(1, 0.5, {"batch/loss": 1.9}),
    Row(2, 1.0, {"batch/loss": 1.8}),
    Row(2, 1.0, {"train/loss": 1.7, "validation/accuracy": 0.4}),
    Row(3, 1.5, {"batch/loss": 1.6}),
    Row(4, 2.0, {"batch/loss": 1.5}),
    Row(4, 2.0, {"train/loss": 1.4, "validation/accuracy": 0.6}),
]


class Recording:
    """A run that is recorded and mirrored as ``bench.experiment.run`` does it."""

    def __init__(self, store: Store, header: RunHeader, *, flush_seconds: float = 5.0) -> None:
        self._recording = start_recording(store, header, flush_seconds=flush_seconds)
        self.path = self._recording.path

    @property
    def run_id(self) -> str | None:
        return self._recording.mirror.run_id

    def log(self, rows: Sequence[Row]) -> None:
        self._recording.log(rows)
        self._recording.mirror.flush()

    def finish(self, status: str, tags: Mapping[str, str], summary: Mapping[str, float]) -> None:
        self._recording.finish(Status(status), tags, summary)


def identity(experiment: str = "tests", **tags: str) -> RunHeader:
    """Identity of a run with all required tags; ``tags`` replace or add."""
    return RunHeader(
        experiment=experiment,
        run_name="tiny-adam-1",
        tags={**TAGS, **tags},
        params={"optimizer.name": "adam", "optimizer.learning_rate": "0.001"},
        config_yaml="optimizer:\n  name: adam\n",
        datasets={"tiny": "0123456789abcdef" * 4},
    )


def record(
    store: Store,
    *,
    experiment: str = "tests",
    status: str = "FINISHED",
    rows: list[Any] | None = None,
    summary: Mapping[str, float] | None = None,
    **tags: str,
) -> Recording:
    """Records a whole run."""
    tracker = Recording(store, identity(experiment, **tags))
    tracker.log(ROWS if rows is None else rows)
    tracker.finish(status, {"stop_reason": "BUDGET", "diverged": "false"}, summary or {})
    return tracker


def points(store: Store, run_id: str | None) -> set[tuple[str, float, int, int]]:
    """Every point that MLflow has of a run: (key, value, step, timestamp in ms)."""
    assert run_id is not None
    return {
        (p.key, p.value, p.step, p.timestamp)
        for key in store.client.get_run(run_id).data.metrics
        for p in store.client.get_metric_history(run_id, key)
    }


def of_version_0_2(content: bytes) -> bytes:
    """A journal as versions 0.1 and 0.2 wrote it: no format, no checksums."""
    bare = re.sub(rb', "crc32": "[0-9a-f]{8}"', b"", content)
    return bare.replace(b'"format": 2, ', b"")
