"""Lists and finds the runs of an MLflow store and reads metric histories.

Boundary: MLflow calls only; ``tracking.read`` interprets the runs.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from timetrial.tracking.record.tracker import now_ms
from timetrial.tracking.store.errors import store_errors
from timetrial.tracking.store.opening import Store

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run

PAGE = 500

_MOST_LEFT_OUT: Final = 500
"""Ids of runs in one MLflow filter: databases and servers limit its length."""


def all_runs(
    store: Store, experiment_ids: str | Sequence[str], filter_string: str = ""
) -> Iterator[Run]:
    """All runs of an experiment, or of several, that match an MLflow filter, in order of start."""
    ids = [experiment_ids] if isinstance(experiment_ids, str) else list(experiment_ids)
    token = None
    while True:
        with _collection_paused():
            page = store.client.search_runs(
                ids,
                filter_string,
                max_results=PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
        yield from page
        token = page.token
        if not token:
            return


@contextlib.contextmanager
def _collection_paused() -> Iterator[None]:
    """Pauses the search for cycles of objects.

    MLflow makes a hundred objects per run; the search would take two thirds of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def marked_run(
    store: Store, experiment: str, mark: tuple[str, str], tags: Mapping[str, str], name: str
) -> str:
    """Id of the run with a tag of this name and value; made if missing.

    Args:
        store: store of the run.
        experiment: name of its experiment; made if missing.
        mark: name and value of the tag.
        tags: further tags of a new run.
        name: name of a new run.
    """
    tag, value = mark
    experiment_id = store.experiment_id(experiment)
    run = next(all_runs(store, experiment_id, f"tags.`{tag}` = '{value}'"), None)
    if run is None:
        run = store.client.create_run(experiment_id, now_ms(), {tag: value, **tags}, name)
    return str(run.info.run_id)


def has_experiment(store: Store, name: str) -> bool:
    """True when the store has an active experiment of this name.

    False, with a warning, while a store fails that was opened for writing: runs are read from their
    journals.

    Raises:
        OutageError: the store fails, for readers.
    """
    found: list[Experiment | None] = []
    look = lambda: found.append(store.experiment(name))  # noqa: E731
    failure = store.connection.attempt(look, part="lists", urgent=True)
    if failure is not None and not store.for_writing:
        raise failure
    return bool(found and found[0] is not None and found[0].lifecycle_stage == "active")


def listed_runs(
    store: Store,
    experiment: str,
    filter_string: str = "",
    left_out: Iterable[tuple[int, str]] = (),
) -> list[Run]:
    """The runs of an experiment in order of start.

    Empty, with a warning, while a store fails that was opened for writing.

    Args:
        store: the store.
        experiment: name of the experiment.
        filter_string: an MLflow filter.
        left_out: start in ms since 1970 and id of runs that need not be listed; MLflow loads each
            listed run with all its data. Servers without such filters list them all the same.

    Raises:
        TrackingError: the experiment does not exist or was deleted.
        OutageError: the store fails, for readers.
    """
    found: list[Run] = []

    def search() -> None:
        with store_errors(store.uri):
            experiment_id = store.experiment_id(experiment, create=False)
            found.extend(_runs_except(store, experiment_id, filter_string, sorted(left_out)))

    failure = store.connection.attempt(search, part="lists", urgent=True)
    if failure is not None and not store.for_writing:
        raise failure
    return found


def _runs_except(
    store: Store, experiment_id: str, filter_string: str, left_out: Sequence[tuple[int, str]]
) -> list[Run]:
    from mlflow.exceptions import MlflowException

    base = [filter_string] if filter_string else []
    try:
        filters = [" and ".join([*base, *part]) for part in _without(left_out)]
        return [run for each in filters for run in all_runs(store, experiment_id, each)]
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE" or not left_out:
            raise
    return list(all_runs(store, experiment_id, filter_string))


def _without(left_out: Sequence[tuple[int, str]]) -> Iterator[list[str]]:
    """MLflow filters of all runs but those: each of a span of time, with few ids.

    Args:
        left_out: starts and ids of runs, sorted.
    """
    for first in range(0, max(len(left_out), 1), _MOST_LEFT_OUT):
        end = first + _MOST_LEFT_OUT
        ids = ", ".join(f"'{run_id}'" for _, run_id in left_out[first:end])
        parts = [f"attributes.run_id NOT IN ({ids})"] if ids else []
        if first > 0:
            parts.append(f"attributes.start_time >= {left_out[first][0]}")
        if end < len(left_out):
            parts.append(f"attributes.start_time < {left_out[end][0]}")
        yield parts


def check_experiment(store: Store, name: str) -> None:
    """Returns if runs can be recorded under an experiment; makes it. An outage is no obstacle.

    Raises:
        TrackingError: the experiment was deleted.
    """
    store.connection.attempt(lambda: store.experiment_id(name), urgent=True)


def experiment_names(store: Store) -> list[str]:
    """Names of the store's active experiments, sorted; MLflow's empty default one is left out."""
    with store_errors(store.uri):
        found = sorted(str(experiment.name) for experiment in store.client.search_experiments())
    return [name for name in found if name != "Default"] or found


def metric_history(store: Store, run_id: str, key: str) -> dict[int, float]:
    """Values of one metric by step; the last value of a step counts."""
    return {step: value for step, (_, value) in timed_history(store, run_id, key).items()}


def timed_history(store: Store, run_id: str, key: str) -> dict[int, tuple[int, float]]:
    """Time and value of one metric by step; the last value of a step counts."""
    points: list[Any] = store.client.get_metric_history(run_id, key)
    return {p.step: (p.timestamp, p.value) for p in sorted(points, key=lambda p: p.timestamp)}
