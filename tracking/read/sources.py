"""Where recorded runs come from: a tracking store or a directory of spool files, told complete.

Boundary: reads only. AlgoPerf's log directories are read by ``tracking.read.algoperf_logs``, plain
tables of times by ``tracking.read.times_csv``; all of them answer with a ``Source``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from timetrial.framework.records import Row, RunRecord
from timetrial.framework.types import Condition, Direction, Status
from timetrial.tracking.read.mlflow import is_about_runs, missing_tags, read_run
from timetrial.tracking.record import schema
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.evaluations_file import Evaluations
from timetrial.tracking.record.journal import SpoolContents, read_spool
from timetrial.tracking.scores.targets import UNITS
from timetrial.tracking.store.listing import all_runs
from timetrial.tracking.store.opening import Store, store_errors


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is missing or wrong with one run of a source.

    Attributes:
        run: how the source calls the run: an id or a path.
        text: what is the matter, in one line.
        lost: True when the run could not be read and is not among the records.
    """

    run: str
    text: str
    lost: bool = False

    def __str__(self) -> str:
        return f"{self.run}: {self.text}{' (left out)' if self.lost else ''}"


@dataclasses.dataclass(frozen=True)
class Source:
    """Runs read from somewhere, and everything about them that is not as it should be.

    Attributes:
        records: the runs that could be read, complete or not.
        problems: run by run, in the order of the runs; empty when all is well.
    """

    records: Sequence[RunRecord]
    problems: Sequence[Problem]


def from_mlflow(
    store: Store,
    experiment: str,
    *,
    tags: Mapping[str, str] | None = None,
    filter_string: str = "",
) -> Source:
    """The runs of an MLflow experiment, whatever their status, in order of their start.

    Args:
        store: where to read, from ``tracking.store.opening.open_store``: any tracking URI.
        experiment: name of the experiment.
        tags: only runs that have all of these.
        filter_string: only runs that MLflow's own filter lets through as well, for example
            ``"attributes.status = 'FINISHED' and params.seed = '0'"``.

    Raises:
        TrackingError: no such experiment, or the store fails.
    """
    records: list[RunRecord] = []
    problems: list[Problem] = []
    with store_errors(store.uri):
        experiment_id = store.experiment_id(experiment, create=False)
        for run in all_runs(store, experiment_id, _both(tags or {}, filter_string)):
            name = str(run.info.run_id)
            missing = missing_tags(run)
            if is_about_runs(run):
                continue
            if missing:
                text = f"not recorded by timetrial: no tag {', '.join(missing)}"
                problems.append(Problem(name, text, lost=True))
                continue
            try:
                record = read_run(store, run)
            except TrackingError as error:
                problems.append(Problem(name, str(error), lost=True))
                continue
            records.append(record)
            problems += check(record)
    return Source(records, problems)


def from_spools(directory: Path) -> Source:
    """The runs of all spool files (``*.jsonl``) in a directory, in order of their start.

    A file without an end belongs to a run that goes on or was killed: its status is ``RUNNING``.
    As from MLflow, an evaluated value that was not finite is nan.

    Raises:
        TrackingError: there is no such directory, or no spool file in it.
    """
    paths = sorted(directory.glob("*.jsonl"))
    if not paths:
        raise TrackingError(f"{directory}: expected a directory with spool files (*.jsonl)")
    found: list[tuple[int, str, RunRecord]] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            contents = read_spool(path)
            found.append((contents.started_ms, path.name, _of_spool(contents)))
        except TrackingError as error:
            problems.append(Problem(path.name, str(error), lost=True))
        except (KeyError, TypeError, ValueError) as error:
            text = f"no record of a run: {type(error).__name__} {error}"
            problems.append(Problem(path.name, text, lost=True))
    for _, name, record in sorted(found, key=lambda item: item[:2]):
        problems += [dataclasses.replace(problem, run=name) for problem in check(record)]
    return Source([record for *_, record in sorted(found, key=lambda item: item[:2])], problems)


def check(record: RunRecord) -> list[Problem]:
    """What is not as a whole run should be; a run that diverged is whole."""
    return [Problem(record.run_id, text) for text in _complaints(record)]


def _complaints(record: RunRecord) -> Iterator[str]:
    ended_by_itself = record.reason in ("COMPLETE", "TARGET", "DIVERGED")
    if record.status != Status.FINISHED:
        yield f"status {record.status}, after {record.step} steps"
    if not record.evaluations:
        yield "no evaluations"
        return
    keys = {key for row in record.evaluations for key in row.metrics}
    if not any(key.endswith(f"/{record.metric}") for key in keys):
        yield f"the deciding metric {record.metric} was never evaluated"
    steps = [row.step for row in record.evaluations]
    if any(late <= early for early, late in itertools.pairwise(steps)):
        yield "evaluations out of order or repeated, as after a resume"
    if any(not math.isfinite(row.train_seconds) for row in record.evaluations):
        yield "evaluations without a time"
    used = record.train_seconds if record.condition == Condition.TIME else record.step
    if record.status == Status.FINISHED and not ended_by_itself and used < record.budget:
        unit = UNITS.get(record.condition, "units")
        yield f"ended after {used:g} of {record.budget:g} {unit}"


def _both(tags: Mapping[str, str], filter_string: str) -> str:
    for value in tags.values():
        if "'" in value:
            raise TrackingError(f"tag to filter by: expected a value without quotes, got {value!r}")
    parts = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    return " and ".join([*parts, filter_string] if filter_string else parts)


def _of_spool(contents: SpoolContents) -> RunRecord:
    end = contents.end
    tags = {**contents.identity.tags, **(end.tags if end else {})}
    missing = [tag for tag in schema.REQUIRED_TAGS if tag not in tags]
    if missing:
        raise ValueError(f"no tag {', '.join(missing)}")
    evaluations = Evaluations()
    evaluations.add(contents.rows)
    last = max(contents.rows, key=lambda row: row.step, default=None)
    return RunRecord(
        run_id=contents.spool_id,
        workload=tags[schema.WORKLOAD],
        optimizer=tags[schema.OPTIMIZER],
        seed=int(tags[schema.SEED]),
        condition=Condition(tags[schema.CONDITION]),
        budget=float(tags[schema.BUDGET]),
        metric=tags[schema.METRIC],
        direction=Direction(tags[schema.DIRECTION]),
        status=Status(end.status) if end else Status.RUNNING,
        reason=tags.get(schema.STOP_REASON, ""),
        step=last.step if last else 0,
        train_seconds=last.train_seconds if last else 0.0,
        evaluations=finite_or_nan(evaluations.in_order()),
        config=dict(contents.identity.params),
        tags=tags,
    )


def finite_or_nan(evaluations: Iterable[Row]) -> list[Row]:
    """The evaluations with nan for every value that is not finite, as MLflow gives them back."""
    return [
        dataclasses.replace(
            row, metrics={k: v if math.isfinite(v) else math.nan for k, v in row.metrics.items()}
        )
        for row in evaluations
    ]
