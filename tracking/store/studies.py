"""HPO studies in MLflow: the one summary run of a study, and the runs of trials that died.

Boundary: writes what it is given; knows no study's storage. Trials are recorded by the tracker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from timetrial.framework.types import Status
from timetrial.tracking.record import schema
from timetrial.tracking.record.tracker import now_ms
from timetrial.tracking.store.listing import all_runs
from timetrial.tracking.store.opening import Store, store_errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_summary(
    store: Store,
    experiment: str,
    study: str,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    texts: Mapping[str, str],
    figures: Mapping[str, Figure],
) -> str:
    """Writes the summary run of a study, or brings the one that is there up to date.

    Trials are runs of their own beside it, not below it: MLflow compares flat runs only.

    Args:
        store: where the study's runs are.
        experiment: name of their experiment.
        study: name of the study.
        tags: of the summary run.
        metrics: of the summary run; finite.
        texts: artifacts by path.
        figures: artifacts by path, ending in ``.png``.

    Returns:
        The id of the run.

    Raises:
        TrackingError: the store fails.
    """
    with store_errors(store.uri):
        experiment_id = store.experiment_id(experiment)
        marked = f"tags.`{schema.STUDY_SUMMARY}` = '{study}'"
        run: Any = next(all_runs(store, experiment_id, marked), None)
        if run is None:
            run = store.client.create_run(
                experiment_id, now_ms(), {schema.STUDY_SUMMARY: study}, f"study {study}"
            )
        run_id = str(run.info.run_id)
        for key, tag in tags.items():
            store.client.set_tag(run_id, key, tag)
        for key, number in metrics.items():
            store.client.log_metric(run_id, key, number)
        for path, text in texts.items():
            store.client.log_text(run_id, text, path)
        for path, figure in figures.items():
            tight = {"bbox_inches": "tight"}  # long names of parameters stay inside
            store.client.log_figure(run_id, figure, path, save_kwargs=tight)
        store.client.set_terminated(run_id, Status.FINISHED)
        return run_id


def close_trial_runs(store: Store, experiment: str, study: str, trials: Sequence[int]) -> None:
    """Marks the runs of trials as KILLED that are RUNNING though their worker is dead.

    Raises:
        TrackingError: the store fails.
    """
    with store_errors(store.uri):
        experiment_id = store.experiment_id(experiment)
        running = f"tags.`{schema.STUDY}` = '{study}' and attributes.status = 'RUNNING'"
        for run in list(all_runs(store, experiment_id, running)):
            if run.data.tags.get(schema.TRIAL) in map(str, trials):
                store.client.set_terminated(run.info.run_id, Status.KILLED, now_ms())
