"""Turns what was recorded about a run into MLflow calls, each of which may be repeated.

Boundary: raises whatever MLflow raises, except about artifacts, which a run can do without; what
to do about it is for ``tracking.store.tracker`` (live) and ``tracking.store.mirror`` (afterwards).
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timetrial.framework.records import Row
from timetrial.tracking.record import evaluations_file, schema
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.journal import End, RunHeader
from timetrial.tracking.store.opening import Store, store_errors

if TYPE_CHECKING:
    from mlflow.entities import Metric

_log = logging.getLogger(__name__)

METRICS_PER_REQUEST = 1000  # MLflow's limits, per request and per value
PARAMS_PER_REQUEST = 100
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
KEY_CHARACTERS = 230  # MLflow's 250, less room for a suffix
DIGEST_CHARACTERS = 36


class RunWriter:
    """Turns a run into MLflow calls, each of which may be repeated without effect."""

    def __init__(
        self,
        store: Store,
        spool_path: Path,
        spool_id: str,
        started_ms: int,
        identity: RunHeader,
    ) -> None:
        self.started_ms = started_ms
        self.identity = identity
        self.run_id: str | None = None
        self._store = store
        self._client = store.client
        self._spool_id = spool_id
        self._tags = {
            **identity.tags,
            schema.SPOOL_ID: spool_id,
            schema.SPOOL: str(spool_path.absolute()),
        }
        self._described = False

    def metrics(self, points: list[Metric]) -> None:
        """Sends points and takes those off the list that arrived; tells of the run first."""
        run_id = self._ensure_run()
        while points:
            self._client.log_batch(run_id, metrics=points[:METRICS_PER_REQUEST])
            del points[:METRICS_PER_REQUEST]

    def end(self, end: End, last_step: int, evaluations: Sequence[Row]) -> None:
        """Sends the summary, and all evaluations once more in one file, and ends the run."""
        from mlflow.entities import RunTag

        run_id = self._ensure_run()
        self._client.log_batch(
            run_id,
            metrics=_finite_points(end.summary, last_step, end.timestamp_ms),
            tags=[RunTag(key, value) for key, value in _fitting_tags(end.tags).items()],
        )
        if evaluations:
            text = evaluations_file.encode(evaluations)
            self._upload(run_id, text, schema.EVALUATIONS_ARTIFACT)
        self._client.set_terminated(run_id, end.status, end.timestamp_ms)

    def _ensure_run(self) -> str:
        if self.run_id is None:
            experiment_id = self._store.experiment_id(self.identity.experiment)
            found = self._client.search_runs(
                [experiment_id], f"tags.{schema.SPOOL_ID} = '{self._spool_id}'", max_results=1
            )
            run = (
                found[0]
                if found
                else self._client.create_run(
                    experiment_id,
                    self.started_ms,
                    _fitting_tags(self._tags),
                    self.identity.run_name,
                )
            )
            self.run_id = str(run.info.run_id)
            self._described = schema.DESCRIBED in run.data.tags
        if not self._described:
            self._describe(self.run_id)
            self._described = True
        return self.run_id

    def _describe(self, run_id: str) -> None:
        """Sends the configuration and the data sets."""
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in _fitting_params(self.identity.params).items()]
        for start in range(0, len(params), PARAMS_PER_REQUEST):
            self._client.log_batch(run_id, params=params[start : start + PARAMS_PER_REQUEST])
        if self.identity.datasets and not self._client.get_run(run_id).inputs.dataset_inputs:
            self._client.log_inputs(run_id, _dataset_inputs(self.identity.datasets))
        if self._upload(run_id, self.identity.config_yaml, schema.CONFIG_ARTIFACT):
            self._client.set_tag(run_id, schema.DESCRIBED, "true")

    def _upload(self, run_id: str, text: str, name: str) -> bool:
        """Keeps a text as an artifact; without an artifact store a run loses nothing but that."""
        try:
            with store_errors(self._store.uri):
                self._client.log_text(run_id, text, name)
        except TrackingError as error:
            _log.warning("%s: artifact %s of run %s is missing", error, name, run_id)
            return False
        return True


def points_of(rows: Iterable[Row], previous_step: int | None) -> list[Metric]:
    """MLflow's points for rows that follow a row of ``previous_step``; all are finite.

    The charged seconds are given once per step, and once more at the steps with an evaluation.
    """
    points = []
    for row in rows:
        metrics = dict(row.metrics)
        if row.step != previous_step:
            metrics[schema.TRAIN_SECONDS] = row.train_seconds
        if any(key.startswith(schema.EVAL_PREFIXES) for key in row.metrics):
            metrics[schema.EVAL_SECONDS] = row.train_seconds
        points += _finite_points(metrics, row.step, row.timestamp_ms)
        previous_step = row.step
    return points


def _finite_points(metrics: Mapping[str, float], step: int, timestamp_ms: int) -> list[Metric]:
    """One point per metric; for nan and inf, which MLflow would garble, a mark instead."""
    from mlflow.entities import Metric

    return [
        Metric(_legal_key(key), value, timestamp_ms, step)
        if math.isfinite(value)
        else Metric(_legal_key(key) + schema.NONFINITE_SUFFIX, 1.0, timestamp_ms, step)
        for key, value in metrics.items()
    ]


def _fitting_params(params: Mapping[str, str]) -> dict[str, str]:
    """Params as MLflow takes them: legal names, kept apart, and values cut at its limit."""
    fitting: dict[str, str] = {}
    for key, value in params.items():
        legal = name = _legal_key(key)
        count = 1
        while legal in fitting:
            count += 1
            legal = f"{name}_{count}"
        cut = len(value) > PARAM_CHARACTERS  # config.yaml has it in full
        fitting[legal] = value[: PARAM_CHARACTERS - 3] + "..." if cut else value
    return fitting


def _fitting_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {_legal_key(key): value[:TAG_CHARACTERS] for key, value in tags.items()}


def _legal_key(key: str) -> str:
    """A name as MLflow allows it: letters, digits and ``_-. /``, and a normal relative path."""
    parts = re.sub(r"[^\w\-. /]", "_", key).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:KEY_CHARACTERS] or "_"


def _dataset_inputs(datasets: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(
                name=name,
                digest=digest[:DIGEST_CHARACTERS],
                source_type="code",
                source=json.dumps({"name": name, "sha256": digest}),
            ),
            [InputTag("mlflow.data.context", "training")],
        )
        for name, digest in datasets.items()
    ]
