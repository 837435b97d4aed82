"""Reads recorded runs back from a tracking store, through MLflow's public interface only.

Boundary: reads only, any tracking URI; what the numbers mean is for ``tracking.scoring``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from framework.types import Direction, Evaluation, RunRecord
from tracking import schema
from tracking.spool import TrackingError
from tracking.store import Store, store_errors

if TYPE_CHECKING:
    from mlflow.entities import Run

_log = logging.getLogger(__name__)

PAGE = 500


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
        return [_record(store, run) for run in ours]


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


def all_runs(store: Store, experiment_id: str, filter_string: str = "") -> Iterator[Run]:
    """Every run that MLflow's filter lets through, in order of start, however many there are."""
    token = None
    while True:
        page = store.client.search_runs(
            [experiment_id],
            filter_string,
            max_results=PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _filter(tags: Mapping[str, str]) -> str:
    for value in tags.values():
        if "'" in value:
            raise TrackingError(f"tag to filter by: expected a value without quotes, got {value!r}")
    return " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())


def _is_ours(run: Run) -> bool:
    missing = [tag for tag in schema.REQUIRED_TAGS if tag not in run.data.tags]
    if missing:
        _log.warning(
            "run %s was not recorded by timetrial and is left out: it has no tag %s",
            run.info.run_id,
            ", ".join(missing),
        )
    return not missing


def _record(store: Store, run: Run) -> RunRecord:
    tags = run.data.tags
    seconds = _seconds(store, run)
    last_step = max(seconds, default=0)
    try:
        return RunRecord(
            run_id=str(run.info.run_id),
            workload=tags[schema.WORKLOAD],
            optimizer=tags[schema.OPTIMIZER],
            seed=int(tags[schema.SEED]),
            condition=tags[schema.CONDITION],
            budget=float(tags[schema.BUDGET]),
            metric=tags[schema.METRIC],
            direction=Direction(tags[schema.DIRECTION]),
            status=str(run.info.status),
            reason=tags.get(schema.STOP_REASON, ""),
            step=last_step,
            train_seconds=seconds.get(last_step, 0.0),
            evaluations=_evaluations(store, run, seconds),
            config=dict(run.data.params),
            tags=dict(tags),
        )
    except ValueError as error:
        raise TrackingError(f"run {run.info.run_id}: its tags cannot be read: {error}") from error


def _evaluations(store: Store, run: Run, seconds: Mapping[int, float]) -> list[Evaluation]:
    """The evaluations of a run in order of step, put together from one history per metric."""
    by_step: dict[int, dict[str, float]] = {}
    for key in sorted(run.data.metrics):
        if not key.startswith(schema.EVAL_PREFIXES):
            continue
        name = key.removesuffix(schema.NONFINITE_SUFFIX)
        for step, value in history(store, run.info.run_id, key).items():
            by_step.setdefault(step, {})[name] = math.nan if name != key else value
    return [
        Evaluation(step, seconds.get(step, math.nan), by_step[step]) for step in sorted(by_step)
    ]


def _seconds(store: Store, run: Run) -> dict[int, float]:
    """Charged seconds by step, at least at every evaluation and at the last step.

    A finished run ends with an evaluation, so the few points at evaluations will do; every other
    run may have gone on after its last one.
    """
    brief = run.info.status == "FINISHED" and schema.EVAL_SECONDS in run.data.metrics
    return history(store, run.info.run_id, schema.EVAL_SECONDS if brief else schema.TRAIN_SECONDS)


def history(store: Store, run_id: str, key: str) -> dict[int, float]:
    """Values of one metric by step; the last one logged where a step occurs more than once."""
    points: list[Any] = store.client.get_metric_history(run_id, key)
    return {p.step: p.value for p in sorted(points, key=lambda p: p.timestamp)}
