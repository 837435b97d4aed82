"""Writes the contents of a journal by idempotent MLflow calls.

Boundary: raises MLflow's errors; ``tracking.store.mirror`` decides when to send. Artifacts are sent
apart, because a store may refuse only these.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from timetrial.framework.records import Row
from timetrial.framework.secrets import masked
from timetrial.framework.types import Status
from timetrial.tracking.record import evaluations_file, schema
from timetrial.tracking.record.journal import End, JournalContents
from timetrial.tracking.store.client import once
from timetrial.tracking.store.errors import OutageError
from timetrial.tracking.store.opening import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

METRICS_PER_REQUEST = 1000  # MLflow's limits per request and per value
PARAMS_PER_REQUEST = 100
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
KEY_CHARACTERS = 230  # MLflow's 250, less room for a suffix
DIGEST_CHARACTERS = 36


class RunWriter:
    """Writes the run of one journal to a store; each call may be repeated after a failure.

    Args:
        store: destination of the run.
        contents: contents of the journal at its start, or later.
        journal: file name of the journal.
        id_tag: tag of the journal's identity in MLflow.

    Attributes:
        run_id: id of the run in the store; None before its creation there.
    """

    def __init__(
        self,
        store: Store,
        contents: JournalContents,
        journal: str,
        id_tag: str = schema.JOURNAL_ID,
    ) -> None:
        self.run_id: str | None = None
        self._store = store
        self._header = contents.header
        self._started_ms = contents.started_ms
        self._mark = (id_tag, contents.journal_id)
        own = {id_tag: contents.journal_id, schema.JOURNAL: journal}
        tags = {**contents.tags, **own, **_source_tags(contents.tags)}
        self._tags = _fitting_tags(dict(sorted(tags.items())))
        self._resumed = bool(contents.resumed) and contents.end is None
        self._described = False
        self._configured = False

    @property
    def _client(self) -> MlflowClient:
        return self._store.client

    def status(self) -> str | None:
        """Status of the run in the store; None without the run."""
        experiment = self._store.experiment(self._header.experiment)
        if experiment is None:
            return None
        run = sole_run(self._store, str(experiment.experiment_id), *self._mark)
        return None if run is None else str(run.info.status)

    def metrics(self, points: Sequence[Metric]) -> None:
        """Sends points; creates and describes the run first where that is missing."""
        run_id = self._ensure_run()
        for start in range(0, len(points), METRICS_PER_REQUEST):
            self._client.log_batch(run_id, metrics=points[start : start + METRICS_PER_REQUEST])

    def configuration(self) -> None:
        """Sends the configuration as an artifact, once."""
        run_id = self._ensure_run()
        if not self._configured:
            self._client.log_text(run_id, masked(self._header.config_yaml), schema.CONFIG_ARTIFACT)
            self._client.set_tag(run_id, schema.DESCRIBED, "true")
            self._configured = True

    def end(self, end: End, last_step: int) -> None:
        """Sends the summary and ends the run."""
        from mlflow.entities import RunTag

        run_id = self._ensure_run()
        tags = _fitting_tags(end.tags)
        if tags:
            tags[schema.END_TAGS] = json.dumps(sorted(tags))
        self._client.log_batch(
            run_id,
            metrics=_finite_points(end.summary, last_step, end.timestamp_ms),
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        self._client.set_terminated(run_id, end.status, end.timestamp_ms)
        self._remove_others(run_id)

    def files(self, end: End, evaluations: Sequence[Row]) -> None:
        """Sends all artifacts of an ended run."""
        self.configuration()
        run_id = self._ensure_run()
        if evaluations:
            text = evaluations_file.encode(evaluations)
            self._client.log_text(run_id, masked(text), schema.EVALUATIONS_ARTIFACT)
        for name, text in end.files.items():
            self._client.log_text(run_id, masked(text), _legal_key(name))

    def pause(self, end: End) -> None:
        """Ends a resumable run in MLflow, without a summary; a failed one has its error."""
        from mlflow.entities import RunTag

        run_id = self._ensure_run()
        for name, text in end.files.items():
            self._client.log_text(run_id, masked(text), _legal_key(name))
        tags = [RunTag(key, value) for key, value in _fitting_tags(end.tags).items()]
        self._client.log_batch(run_id, tags=tags)
        self._client.set_terminated(run_id, end.status, end.timestamp_ms)

    def _ensure_run(self) -> str:
        if self.run_id is None:
            experiment_id = self._store.experiment_id(self._header.experiment)
            run = sole_run(self._store, experiment_id, *self._mark)
            if run is None:
                name = self._header.run_name
                with once(self._store.uri):
                    self._client.create_run(experiment_id, self._started_ms, self._tags, name)
                run = sole_run(self._store, experiment_id, *self._mark)
            elif self._resumed:
                self._reopen(run)
            if run is None:
                raise OutageError(f"tracking store {self._store.name}: a new run is missing in it")
            self._described = self._configured = schema.DESCRIBED in run.data.tags
            self.run_id = str(run.info.run_id)
        if not self._described:
            self._describe(self.run_id)
            self._described = True
        return self.run_id

    def _reopen(self, run: Run) -> None:
        """Marks a resumed run as running, with the tags of its new process and without an end."""
        from mlflow.entities import RunTag

        run_id = str(run.info.run_id)
        self._client.update_run(run_id, status=Status.RUNNING)
        names = _names_in(run.data.tags.get(schema.END_TAGS, "[]"))
        for name in {*names, schema.STOP_REASON, schema.ERROR, schema.END_TAGS}:
            if name in run.data.tags and name not in self._tags:
                self._client.delete_tag(run_id, name)
        tags = [RunTag(key, value) for key, value in self._tags.items()]
        self._client.log_batch(run_id, tags=tags)

    def _describe(self, run_id: str) -> None:
        """Sends the parameters and the data sets."""
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in _fitting_params(self._header.params).items()]
        for start in range(0, len(params), PARAMS_PER_REQUEST):
            self._client.log_batch(run_id, params=params[start : start + PARAMS_PER_REQUEST])
        if self._header.datasets and not self._client.get_run(run_id).inputs.dataset_inputs:
            self._client.log_inputs(run_id, _dataset_inputs(self._header.datasets))

    def _remove_others(self, run_id: str) -> None:
        """Removes runs that the store made late, from requests that had seemed lost."""
        experiment_id = self._store.experiment_id(self._header.experiment)
        sole_run(self._store, experiment_id, *self._mark, kept=run_id)


def sole_run(store: Store, experiment_id: str, tag: str, value: str, kept: str = "") -> Run | None:
    """The run with a tag, None without one; further ones are deleted.

    A request whose reply was lost may have made a run. The one with contents is kept, so that
    repeated calls keep the same one.

    Args:
        store: store of the run.
        experiment_id: id of its experiment.
        tag: name of the tag.
        value: value of the tag.
        kept: id of the run to keep; "" leaves the choice.
    """
    found = list(store.client.search_runs([experiment_id], f"tags.{tag} = '{value}'"))
    found.sort(
        key=lambda run: (
            run.info.run_id != kept,
            schema.DESCRIBED not in run.data.tags,
            -len(run.data.metrics),
            run.info.run_id,
        )
    )
    for run in found[1:]:
        store.client.delete_run(run.info.run_id)
    return found[0] if found else None


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


def _names_in(text: str) -> list[str]:
    """The names in a JSON list; empty when it was changed by hand."""
    try:
        return [str(name) for name in json.loads(text)]
    except (ValueError, TypeError, RecursionError):
        return []


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
