"""The report in MLflow: one run per suite with the page and its files.

Boundary: writes to MLflow; readers of runs skip this run (``schema.ABOUT_RUNS``).
"""

from __future__ import annotations

from pathlib import Path

from timetrial.framework.types import Status
from timetrial.tracking.record import schema
from timetrial.tracking.record.tracker import now_ms
from timetrial.tracking.store.errors import store_errors
from timetrial.tracking.store.listing import marked_run
from timetrial.tracking.store.opening import Store


def log_report(store: Store, experiment: str, suite: str, directory: Path) -> str:
    """Logs the files of a report to the run ``report`` of a suite; replaces earlier ones.

    Args:
        store: store of the suite's runs.
        experiment: name of their experiment.
        suite: name of the suite.
        directory: directory of the report; all its files are logged.

    Returns:
        The id of the run.

    Raises:
        TrackingError: the store fails.
    """
    with store_errors(store.uri):
        mark, tags = (schema.REPORT, suite), {schema.SUITE: suite}
        run_id = marked_run(store, experiment, mark, tags, "report")
        store.client.log_artifacts(run_id, str(directory))
        store.client.set_terminated(run_id, Status.FINISHED, now_ms())
        return run_id
