"""Lists the runs of an MLflow store and reads metric histories.

Boundary: MLflow calls only; what a run means is for ``tracking.read``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from timetrial.tracking.store.opening import Store, store_errors

if TYPE_CHECKING:
    from mlflow.entities import Run

PAGE = 500


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


def has_experiment(store: Store, name: str) -> bool:
    """Whether the store has an active experiment of that name."""
    with store_errors(store.uri):
        found = store.client.get_experiment_by_name(name)
    return found is not None and found.lifecycle_stage == "active"


def metric_history(store: Store, run_id: str, key: str) -> dict[int, float]:
    """Values of one metric by step; the last one logged where a step occurs more than once."""
    return {step: value for step, (_, value) in timed_history(store, run_id, key).items()}


def timed_history(store: Store, run_id: str, key: str) -> dict[int, tuple[int, float]]:
    """Time and value of one metric by step; the last one logged at each step."""
    points: list[Any] = store.client.get_metric_history(run_id, key)
    return {p.step: (p.timestamp, p.value) for p in sorted(points, key=lambda p: p.timestamp)}
