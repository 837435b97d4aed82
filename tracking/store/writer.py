"""Writes the contents of a journal by idempotent MLflow calls.

Boundary: raises MLflow's errors, except about artifacts; ``tracking.store.mirror`` decides when to
send.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from timetrial.framework.records import Row
from timetrial.framework.secrets import masked
from timetrial.framework.types import Status
from timetrial.tracking.record import evaluations_file, schema
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.journal import End, JournalContents
from timetrial.tracking.store.opening import Store, store_errors

if TYPE_CHECKING:
    from mlflow.entities import Metric

_log = logging.getLogger(__name__)

METRICS_PER_REQUEST = 1000  # MLflow's limits per request and per value
PARAMS_PER_REQUEST = 100
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
KEY_CHARACTERS = 230  # MLflow's 250, less room for a suffix
DIGEST_CHARACTERS = 36


class RunWriter:
    """Writes the run of one journal to a store.

    Args:
        store: destination of the run.
        contents: contents of the journal at its start, or later.
        journal: file name of the journal.
        id_tag: tag of the journal's identity in MLflow.

    Attributes:
        run_id: id of the run in the store; None before its creation there.
        complete: False when an artifact of the run is missing in the store.
    """

    def __init__(
        self,
        store: Store,
        contents: JournalContents,
        journal: str,
        id_tag: str = schema.JOURNAL_ID,
    ) -> None:
        self.run_id: str | None = None
        self.complete = True
        self._store = store
        self._client = store.client
        self._header = contents.header
        self._started_ms = contents.started_ms
        self._identity = f"tags.{id_tag} = '{contents.journal_id}'"
        own = {id_tag: contents.journal_id, schema.JOURNAL: journal}
        tags = {**contents.tags, **own, **_source_tags(contents.tags)}
        self._tags = _fitting_tags(dict(sorted(tags.items())))
        self._resumed = bool(contents.resumed) and contents.end is None
        self._described = False

    def metrics(self, points: Sequence[Metric]) -> None:
        """Sends points; creates the run first if it is missing in the store."""
        run_id = self._ensure_run()
        for start in range(0, len(points), METRICS_PER_REQUEST):
            self._client.log_batch(run_id, metrics=points[start : start + METRICS_PER_REQUEST])

    def end(self, end: End, last_step: int, evaluations: Sequence[Row]) -> None:
        """Sends the summary and the file of evaluations, then ends the run."""
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

    def pause(self, end: End) -> None:
        """Ends a resumable run in MLflow, without a summary."""
        self._client.set_terminated(self._ensure_run(), end.status, end.timestamp_ms)

    def _ensure_run(self) -> str:
        if self.run_id is None:
            experiment_id = self._store.experiment_id(self._header.experiment)
            found = self._client.search_runs([experiment_id], self._identity, max_results=1)
            name = self._header.run_name
            run = (
                found[0]
                if found
                else self._client.create_run(experiment_id, self._started_ms, self._tags, name)
            )
            self.run_id = str(run.info.run_id)
            self._described = schema.DESCRIBED in run.data.tags
            if found and self._resumed:
                self._reopen(self.run_id)
        if not self._described:
            self._describe(self.run_id)
            self._described = True
        return self.run_id

    def _reopen(self, run_id: str) -> None:
        """Marks a resumed run as running, with the tags of its new process."""
        from mlflow.entities import RunTag

        self._client.update_run(run_id, status=Status.RUNNING)
        tags = [RunTag(key, value) for key, value in self._tags.items()]
        self._client.log_batch(run_id, tags=tags)

    def _describe(self, run_id: str) -> None:
        """Sends the configuration and the data sets."""
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in _fitting_params(self._header.params).items()]
        for start in range(0, len(params), PARAMS_PER_REQUEST):
            self._client.log_batch(run_id, params=params[start : start + PARAMS_PER_REQUEST])
        if self._header.datasets and not self._client.get_run(run_id).inputs.dataset_inputs:
            self._client.log_inputs(run_id, _dataset_inputs(self._header.datasets))
        if self._upload(run_id, self._header.config_yaml, schema.CONFIG_ARTIFACT):
            self._client.set_tag(run_id, schema.DESCRIBED, "true")

    def _upload(self, run_id: str, text: str, name: str) -> bool:
        """Uploads a text as an artifact; a failure gives a warning and False."""
        try:
            with store_errors(self._store.uri):
                self._client.log_text(run_id, masked(text), name)
        except TrackingError as error:
            _log.warning("%s: artifact %s of run %s is missing", error, name, run_id)
            self.complete = False
            return False
        return True


def points_of(rows: Iterable[Row], previous_step: int | None) -> list[Metric]:
    """Finite MLflow points for rows that follow a row of ``previous_step``.

    The charged seconds occur once per step, and once more at steps with an evaluation.
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
    """One point per metric; non-finite values are logged as ``KEY_nonfinite`` = 1."""
    from mlflow.entities import Metric

    return [
        Metric(_legal_key(key), value, timestamp_ms, step)
        if math.isfinite(value)
        else Metric(_legal_key(key) + schema.NONFINITE_SUFFIX, 1.0, timestamp_ms, step)
        for key, value in metrics.items()
    ]


def _source_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of the source of a run, as MLflow shows it."""
    found = {"mlflow.source.name": "timetrial", "mlflow.source.type": "LOCAL"}
    commit = tags.get(schema.GIT_COMMIT, "unknown")
    return found if commit == "unknown" else {**found, "mlflow.source.git.commit": commit}


def _fitting_params(params: Mapping[str, str]) -> dict[str, str]:
    """Params with legal, distinct names and values truncated to MLflow's limit."""
    fitting: dict[str, str] = {}
    for key, value in zip(params, map(masked, params.values()), strict=True):
        legal = name = _legal_key(key)
        count = 1
        while legal in fitting:
            count += 1
            legal = f"{name}_{count}"
        cut = len(value) > PARAM_CHARACTERS  # config.yaml has the full value
        fitting[legal] = value[: PARAM_CHARACTERS - 3] + "..." if cut else value
    return fitting


def _fitting_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {_legal_key(key): masked(value)[:TAG_CHARACTERS] for key, value in tags.items()}


def _legal_key(key: str) -> str:
    """A legal MLflow name: letters, digits and ``_-. /``, a normal relative path."""
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
