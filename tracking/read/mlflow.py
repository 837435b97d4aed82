"""Reads runs from an MLflow store, through MLflow's public interface only.

Boundary: reads only, any tracking URI.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Status
from timetrial.tracking.read.sources import (
    Problem,
    Source,
    check,
    is_about_runs,
    make_record,
    missing_tags,
)
from timetrial.tracking.record import evaluations_file, schema
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.store.errors import store_errors
from timetrial.tracking.store.listing import all_runs, metric_history, timed_history
from timetrial.tracking.store.opening import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

_MAX_BYTES: Final = 64 << 20  # of evaluations.json


def from_mlflow(
    store: Store,
    experiment: str,
    *,
    tags: Mapping[str, str] | None = None,
    filter_string: str = "",
) -> Source:
    """All runs of an MLflow experiment in order of start, with any status.

    Values that are not finite become nan. Later values of a step replace earlier ones.

    Args:
        store: store with any tracking URI.
        experiment: name of the experiment.
        tags: required tags of a run.
        filter_string: additional MLflow filter, for example
            ``"attributes.status = 'FINISHED' and params.seed = '0'"``.

    Raises:
        TrackingError: the experiment does not exist, or the store fails.
    """
    with store_errors(store.uri):
        experiment_id = store.experiment_id(experiment, create=False)
        runs = list(all_runs(store, experiment_id, _filter(tags or {}, filter_string)))
        return records_of(store, runs)


def records_of(store: Store, runs: Iterable[Run]) -> Source:
    """The records of listed runs; skips summaries and reports.

    Raises:
        TrackingError: the store fails.
    """
    records: list[RunRecord] = []
    problems: list[Problem] = []
    for run in runs:
        name = str(run.info.run_id)
        missing = missing_tags(run.data.tags)
        if is_about_runs(run.data.tags):
            continue
        if missing:
            text = f"not recorded by timetrial: no tag {', '.join(missing)}"
            problems.append(Problem(name, text, lost=True))
            continue
        try:
            record = _read_run(store, run)
        except ValueError as error:
            problems.append(Problem(name, f"its tags cannot be read: {error}", lost=True))
            continue
        records.append(record)
        problems += check(record)
    return Source(records, problems)


def _filter(tags: Mapping[str, str], filter_string: str) -> str:
    for value in tags.values():
        if "'" in value:
            raise TrackingError(f"tag to filter by: expected a value without quotes, got {value!r}")
    parts = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    return " and ".join([*parts, filter_string] if filter_string else parts)


def _read_run(store: Store, run: Run) -> RunRecord:
    """One run with its evaluations.

    Raises:
        ValueError: its tags are invalid.
    """
    evaluations = _evaluations_from_file(store, run)
    if evaluations:
        end = evaluations[-1].step, evaluations[-1].train_seconds
    else:
        seconds = metric_history(store, run.info.run_id, schema.TRAIN_SECONDS)
        seconds |= metric_history(store, run.info.run_id, schema.EVAL_SECONDS)
        evaluations = _evaluations_from_histories(store, run, seconds)
        step = max(seconds, default=0)
        end = step, seconds.get(step, 0.0)
    tags, status = run.data.tags, Status(run.info.status)
    return make_record(str(run.info.run_id), tags, run.data.params, status, evaluations, end)


def _evaluations_from_file(store: Store, run: Run) -> list[Row]:
    """The evaluations of a finished run; empty when the file is unavailable.

    Only finished runs end with an evaluation. Other runs may have later updates, recorded in the
    histories only.
    """
    from mlflow.exceptions import MlflowException

    if run.info.status != Status.FINISHED:
        return []
    where = urlsplit(run.info.artifact_uri)
    try:
        if where.scheme == "file":
            path = Path(url2pathname(where.path)) / schema.EVALUATIONS_ARTIFACT
            return evaluations_file.decode(_text(path))
        with tempfile.TemporaryDirectory() as directory:
            name = schema.EVALUATIONS_ARTIFACT
            path = Path(store.client.download_artifacts(run.info.run_id, name, directory))
            return evaluations_file.decode(_text(path))
    except (MlflowException, OSError, ValueError):
        return []


def _text(path: Path) -> str:
    """The text of a file of at most ``_MAX_BYTES``."""
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"{path}: expected at most {_MAX_BYTES:,} bytes")
    return data.decode()


def _evaluations_from_histories(store: Store, run: Run, seconds: Mapping[int, float]) -> list[Row]:
    """The evaluations of a run in order of step, from one history per metric."""
    latest: dict[int, dict[str, tuple[int, float]]] = {}
    for key in sorted(run.data.metrics):
        if not key.startswith(schema.EVAL_PREFIXES):
            continue
        name = key.removesuffix(schema.NONFINITE_SUFFIX)
        for step, (timestamp, value) in timed_history(store, run.info.run_id, key).items():
            of_step = latest.setdefault(step, {})
            if name not in of_step or timestamp > of_step[name][0]:
                of_step[name] = timestamp, value if name == key else math.nan
    return [
        Row(
            step=step,
            train_seconds=seconds.get(step, math.nan),
            metrics={name: value for name, (_, value) in latest[step].items()},
        )
        for step in sorted(latest)
    ]
