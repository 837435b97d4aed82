"""Writes saved chart views of an MLflow experiment and returns links.

Boundary: the format of saved views is undocumented (taken from MLflow's web interface, 3.10 to
3.17). In other versions the link leads to the plain list of runs.
"""

from __future__ import annotations

import base64
import json
import math
import re
import statistics
import urllib.request
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Status
from timetrial.tracking.record import schema
from timetrial.tracking.record.tracker import now_ms
from timetrial.tracking.store.errors import store_errors
from timetrial.tracking.store.groups import (
    BY_OPTIMIZER,
    BY_OPTIMIZER_AND_WORKLOAD,
    group_id,
    write_groups,
)
from timetrial.tracking.store.listing import all_runs, metric_history
from timetrial.tracking.store.opening import Store
from timetrial.tracking.store.writer import METRICS_PER_REQUEST

OVERVIEW = "all workloads"
TAG_PREFIX = "mlflow.sharedViewState."
_FIRST_WITH_VIEWS = (3, 10)
_FIRST_WITH_ENVELOPE = (3, 15)  # earlier, the tag holds the state only
_TAG_CHARACTERS = 5000  # limit before 3.16
_KIND = "mlflow.experimentKind"  # without it the web interface asks for the kind
_TRAINING = "custom_model_development"


def write_views(store: Store, experiment: str, runs: Sequence[RunRecord]) -> dict[str, str]:
    """Writes one saved view per workload and one of all; replaces earlier ones.

    Line charts show the deciding metric and the losses over charged seconds and over steps: mean
    and range over seeds per optimizer. Bar charts show final values and seconds by account:
    training, evaluation, logging, compilation. The web interface averages only values at exactly
    the same x, but charged seconds differ between seeds. Runs therefore get the metric
    ``time/mean_train_seconds``: the mean over seeds of the charged seconds at the k-th evaluation.

    Args:
        store: store of the runs.
        experiment: name of their experiment.
        runs: runs to show; those unfinished or not in the store are skipped.

    Returns:
        Path of the view on the MLflow server, by workload and for ``OVERVIEW``, for example
        ``/#/experiments/1/runs?...``.

    Raises:
        TrackingError: the store fails.
    """
    with store_errors(store.uri):
        experiment_id = store.experiment_id(experiment, create=False)
        tags = {run.info.run_id: run.data.tags for run in all_runs(store, experiment_id)}
        finished = [r for r in runs if r.status == Status.FINISHED and r.run_id in tags]
        names = [OVERVIEW, *sorted({run.workload for run in finished})]
        version = _server_version(store)
        if version < _FIRST_WITH_VIEWS:
            return {name: _link(experiment_id, None) for name in names}
        _write_mean_seconds(store, finished)
        groups = write_groups(store, finished, tags)
        store.client.set_experiment_tag(experiment_id, _KIND, _TRAINING)
        links = {}
        for name in names:
            shown = [run for run in finished if name in (OVERVIEW, run.workload)]
            state = _state(name, shown, [groups[run.run_id] for run in shown])
            links[name] = _write_view(store, experiment_id, name, state, version)
    return links


def _write_view(
    store: Store, experiment_id: str, name: str, state: Mapping[str, Any], version: tuple[int, int]
) -> str:
    """Saves one view; returns its path, or that of all runs if the view is too long."""
    view_id = "timetrial-" + name.replace(" ", "-")
    value = _encode(f"timetrial: {name}", state, version)
    if version < _FIRST_WITH_ENVELOPE and len(value) > _TAG_CHARACTERS:
        return _link(experiment_id, None)
    store.client.set_experiment_tag(experiment_id, TAG_PREFIX + view_id, value)
    return _link(experiment_id, view_id)


def _link(experiment_id: str, view_id: str | None) -> str:
    """Path of the chart page; ``workflowType`` skips the start page for generative AI."""
    path = f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    path += "&compareRunsMode=CHART"
    return path if view_id is None else f"{path}&viewStateShareKey={view_id}"


def _write_mean_seconds(store: Store, runs: Iterable[RunRecord]) -> None:
    """Writes to each run the mean over seeds of the charged seconds at each evaluation.

    Evaluations are matched by their number, because some workloads evaluate by seconds. Existing
    points are not written again.
    """
    from mlflow.entities import Metric

    groups: dict[tuple[str, str, str], list[RunRecord]] = defaultdict(list)
    for run in runs:
        groups[run.workload, run.optimizer, run.condition].append(run)
    for group in groups.values():
        longest = max(len(run.evaluations) for run in group)
        means = [
            statistics.fmean(
                run.evaluations[k].train_seconds for run in group if k < len(run.evaluations)
            )
            for k in range(longest)
        ]
        for run in group:
            wanted = {
                e.step: means[k] for k, e in enumerate(run.evaluations) if math.isfinite(means[k])
            }
            known = metric_history(store, run.run_id, schema.MEAN_SECONDS)
            now = now_ms()
            points = [
                Metric(schema.MEAN_SECONDS, value, now, step)
                for step, value in wanted.items()
                if known.get(step) != value
            ]
            for start in range(0, len(points), METRICS_PER_REQUEST):
                store.client.log_batch(run.run_id, points[start : start + METRICS_PER_REQUEST])


def _state(
    name: str, runs: Sequence[RunRecord], groups: Iterable[Mapping[str, str]]
) -> dict[str, Any]:
    """State of the chart page: runs, groups and charts."""
    tag = BY_OPTIMIZER_AND_WORKLOAD if name == OVERVIEW else BY_OPTIMIZER
    return {
        "searchFilter": _filter(name),
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": _columns(name, runs),
        "runsHiddenMode": "SHOW_ALL",
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": tag}],
        },
        "groupsExpanded": {group_id(tag, value[tag]): False for value in groups},
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "autoRefreshEnabled": False,
        "isAccordionReordered": True,
        "compareRunSections": [
            _section("seconds", "Over charged seconds", columns=1),
            _section("steps", "Over steps", columns=1),
            _section("final", "Final quality"),
            _section("split", "Where the seconds went"),
        ],
        "compareRunCharts": _charts(_metrics_to_draw(name, runs)),
    }


def _filter(name: str) -> str:
    """MLflow's filter for the runs of a view."""
    finished = "attributes.status = 'FINISHED'"
    if name == OVERVIEW:  # excludes reports and summaries of studies
        return f"{finished} and tags.{schema.SEED} LIKE '%'"
    return f"{finished} and tags.{schema.WORKLOAD} = '{name}'"


def _columns(name: str, runs: Iterable[RunRecord]) -> list[str]:
    """Columns of the list of runs, in order: identity, final metrics, charged seconds."""
    tags = [schema.OPTIMIZER, *([schema.WORKLOAD] if name == OVERVIEW else [])]
    tags += [schema.CONDITION, schema.SEED, schema.STOP_REASON]
    metrics = [f"{schema.FINAL_PREFIX}{metric}" for metric in _metrics_to_draw(OVERVIEW, runs)]
    metrics += [schema.TRAIN_SECONDS]
    return [*(f"tags.`{tag}`" for tag in tags), *(f"metrics.`{metric}`" for metric in metrics)]


def _charts(metrics: Sequence[str]) -> list[dict[str, Any]]:
    return [
        *(_chart(metric, "seconds") for metric in metrics),
        *(_chart(metric, "steps") for metric in metrics),
        *(_bars(f"{schema.FINAL_PREFIX}{metric}", "final") for metric in metrics),
        *(_bars(metric, "split") for metric in schema.TIME_SPLIT),
    ]


def _metrics_to_draw(name: str, runs: Iterable[RunRecord]) -> list[str]:
    deciding = sorted({f"validation/{run.metric}" for run in runs})
    if name == OVERVIEW:
        return deciding
    training = [metric.replace("validation/", "train/") for metric in deciding]
    return list(dict.fromkeys([*deciding, *training, "validation/loss", "train/loss"]))


def _section(uuid: str, title: str, *, columns: int = 2) -> dict[str, Any]:
    """A section of charts; legends are cut off when two charts share a line."""
    return {
        "uuid": uuid,
        "name": title,
        "display": True,
        "columns": columns,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
    }


def _chart(metric: str, section: str) -> dict[str, Any]:
    """A line chart of one metric, over charged seconds or steps by section."""
    over_seconds = section == "seconds"
    return {
        "uuid": f"{section}-{metric}",
        "type": "LINE",
        "metricSectionId": section,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "metric" if over_seconds else "step",
        "selectedXAxisMetricKey": schema.MEAN_SECONDS if over_seconds else "",
        "useGlobalXaxisKey": False,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": False,
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }


def _bars(metric: str, section: str) -> dict[str, Any]:
    """A bar chart of the last values of one metric."""
    return {
        "uuid": f"{section}-{metric}",
        "type": "BAR",
        "metricSectionId": section,
        "metricKey": metric,
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }


def _encode(title: str, state: Mapping[str, Any], version: tuple[int, int]) -> str:
    packed = zlib.compress(json.dumps(state).encode(), 9)
    text = "deflate;" + base64.b64encode(packed).decode()
    if version < _FIRST_WITH_ENVELOPE:
        return text
    now = now_ms()
    return json.dumps({"name": title, "createdAt": now, "updatedAt": now, "state": text})


def _server_version(store: Store) -> tuple[int, int]:
    """MLflow version of the web interface, as (major, minor)."""
    import mlflow

    version = mlflow.__version__
    if store.uri.startswith(("http://", "https://")):
        try:
            with urllib.request.urlopen(f"{store.uri.rstrip('/')}/version", timeout=5) as answer:
                version = answer.read(100).decode()
        except (OSError, ValueError):
            pass  # behind a gateway: assumes the version of the client
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
