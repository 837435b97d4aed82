"""Reads recorded runs back from a tracking store, through MLflow's public interface only.

Boundary: reads only, any tracking URI; what the numbers mean is for ``tracking.scores.scoring``.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Condition, Direction, Status
from timetrial.tracking.record import evaluations_file, schema
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.store.listing import all_runs, metric_history, timed_history
from timetrial.tracking.store.opening import Store, store_errors

if TYPE_CHECKING:
    from mlflow.entities import Run

_log = logging.getLogger(__name__)


def load_runs(
    store: Store, experiment: str, *, tags: Mapping[str, str] | None = None
) -> list[RunRecord]:
    """Reads the runs of an experiment, whatever their status, in order of their start.

    A value that was not finite is nan. Where a step was logged twice, the later one counts.

    Args:
        store: where to read.
        experiment: name of the experiment.
        tags: only runs that have all of these, for example ``{"suite": "quick"}``.

    Raises:
        TrackingError: no such experiment, the store fails, or a run's tags cannot be read.
    """
    with store_errors(store.uri):
        experiment_id = store.experiment_id(experiment, create=False)
        runs = list(all_runs(store, experiment_id, _filter(tags or {})))
        ours = [run for run in runs if _is_ours(run)]
        return [read_run(store, run) for run in ours]


def finished_configs(store: Store, experiment: str) -> dict[str, str]:
    """Maps the ``config_hash`` of every finished run to its id; empty without the experiment."""
    with store_errors(store.uri):
        if store.client.get_experiment_by_name(experiment) is None:
            return {}
        experiment_id = store.experiment_id(experiment, create=False)
        runs = all_runs(store, experiment_id, "attributes.status = 'FINISHED'")
        return {
            run.data.tags[schema.CONFIG_HASH]: str(run.info.run_id)
            for run in runs
            if schema.CONFIG_HASH in run.data.tags
        }


def _filter(tags: Mapping[str, str]) -> str:
    for value in tags.values():
        if "'" in value:
            raise TrackingError(f"tag to filter by: expected a value without quotes, got {value!r}")
    return " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())


def missing_tags(run: Run) -> list[str]:
    """The required tags that a run lacks; a run of ours lacks none."""
    return [tag for tag in schema.REQUIRED_TAGS if tag not in run.data.tags]


def is_about_runs(run: Run) -> bool:
    """True for a run that is about other runs: the summary of a study, the report of a suite."""
    return any(tag in run.data.tags for tag in schema.ABOUT_RUNS)


def _is_ours(run: Run) -> bool:
    if is_about_runs(run):
        return False
    missing = missing_tags(run)
    if missing:
        _log.warning(
            "run %s was not recorded by timetrial and is left out: it has no tag %s",
            run.info.run_id,
            ", ".join(missing),
        )
    return not missing


def read_run(store: Store, run: Run) -> RunRecord:
    """One run with its evaluations.

    Raises:
        TrackingError: its tags cannot be read.
    """
    tags = run.data.tags
    evaluations = _evaluations_from_file(store, run)
    if evaluations:
        step, train_seconds = evaluations[-1].step, evaluations[-1].train_seconds
    else:
        seconds = metric_history(store, run.info.run_id, schema.TRAIN_SECONDS)
        seconds |= metric_history(store, run.info.run_id, schema.EVAL_SECONDS)
        evaluations = _evaluations_from_histories(store, run, seconds)
        step = max(seconds, default=0)
        train_seconds = seconds.get(step, 0.0)
    try:
        return RunRecord(
            run_id=str(run.info.run_id),
            workload=tags[schema.WORKLOAD],
            optimizer=tags[schema.OPTIMIZER],
            seed=int(tags[schema.SEED]),
            condition=Condition(tags[schema.CONDITION]),
            budget=float(tags[schema.BUDGET]),
            metric=tags[schema.METRIC],
            direction=Direction(tags[schema.DIRECTION]),
            status=Status(run.info.status),
            reason=tags.get(schema.STOP_REASON, ""),
            step=step,
            train_seconds=train_seconds,
            evaluations=evaluations,
            config=dict(run.data.params),
            tags=dict(tags),
        )
    except ValueError as error:
        raise TrackingError(f"run {run.info.run_id}: its tags cannot be read: {error}") from error


def _evaluations_from_file(store: Store, run: Run) -> list[Row]:
    """The evaluations of a finished run; empty where its file cannot be had.

    Only finished runs end with an evaluation: all others may have gone on after their last one,
    and only the histories say how far.
    """
    from mlflow.exceptions import MlflowException

    if run.info.status != Status.FINISHED:
        return []
    where = urlsplit(run.info.artifact_uri)
    try:
        if where.scheme == "file":
            path = Path(url2pathname(where.path)) / schema.EVALUATIONS_ARTIFACT
            return evaluations_file.decode(path.read_text())
        with tempfile.TemporaryDirectory() as directory:
            name = schema.EVALUATIONS_ARTIFACT
            path = Path(store.client.download_artifacts(run.info.run_id, name, directory))
            return evaluations_file.decode(path.read_text())
    except (MlflowException, OSError, ValueError):
        return []


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
