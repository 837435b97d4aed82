"""HPO studies in MLflow: the summary run of a study, and runs of dead trials.

Boundary: writes to MLflow; independent of the study's storage. The tracker records trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from timetrial.framework.secrets import masked
from timetrial.framework.types import Status
from timetrial.tracking.record import schema
from timetrial.tracking.record.tracker import now_ms
from timetrial.tracking.store.errors import store_errors
from timetrial.tracking.store.listing import all_runs, marked_run
from timetrial.tracking.store.opening import Store

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
    """Writes or updates the summary run of a study.

    Trials are separate runs, not nested ones: MLflow compares flat runs only.

    Args:
        store: store of the study's runs.
        experiment: name of their experiment.
        study: name of the study.
        tags: tags of the summary run.
        metrics: finite metrics of the summary run.
        texts: artifacts by path.
        figures: artifacts by path, ending in ``.png``.

    Returns:
        The id of the run; "" after an outage of the store, which gives a warning.

    Raises:
        TrackingError: the experiment was deleted.
    """
    written: list[str] = []

    def write() -> None:
        with store_errors(store.uri):
            mark = (schema.STUDY_SUMMARY, study)
            run_id = marked_run(store, experiment, mark, {}, f"study {study}")
            for key, tag in tags.items():
                store.client.set_tag(run_id, key, masked(tag))
            known = store.client.get_run(run_id).data.metrics
            for key, number in metrics.items():
                if known.get(key) != number:  # else every repeated command would add a point
                    store.client.log_metric(run_id, key, number)
            for path, text in texts.items():
                store.client.log_text(run_id, masked(text), path)
            for path, figure in figures.items():
                tight = {"bbox_inches": "tight"}  # keeps long parameter names inside
                store.client.log_figure(run_id, figure, path, save_kwargs=tight)
            store.client.set_terminated(run_id, Status.FINISHED)
            written.append(run_id)

    store.connection.attempt(write, urgent=True)
    return written[0] if written else ""


def close_trial_runs(store: Store, experiment: str, study: str, trials: Sequence[int]) -> None:
    """Marks RUNNING runs of trials with a dead worker as KILLED; an outage gives a warning.

    Raises:
        TrackingError: the experiment was deleted.
    """

    def close() -> None:
        with store_errors(store.uri):
            experiment_id = store.experiment_id(experiment)
            running = f"tags.`{schema.STUDY}` = '{study}' and attributes.status = 'RUNNING'"
            for run in list(all_runs(store, experiment_id, running)):
                if run.data.tags.get(schema.TRIAL) in map(str, trials):
                    store.client.set_terminated(run.info.run_id, Status.KILLED, now_ms())

    store.connection.attempt(close, urgent=True)
