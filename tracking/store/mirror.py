"""Brings into MLflow what a failed store or a killed process left behind.

Boundary: reads spool files and process ids of this host only; runs of other hosts are left alone.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from timetrial.framework.types import Status
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import process_start
from timetrial.tracking.record.evaluations_file import Evaluations
from timetrial.tracking.record.journal import End, Spool, read_spool, unsent_spools
from timetrial.tracking.store.listing import all_runs
from timetrial.tracking.store.opening import Store, store_errors
from timetrial.tracking.store.tracker import now_ms
from timetrial.tracking.store.writer import RunWriter, points_of


def replay(spool_path: Path, store: Store, *, status: str | None = None) -> str:
    """Brings a run from its spool file into a store; what is there already is not doubled.

    Args:
        spool_path: the spool file.
        store: where the run goes; a run of the same spool file is completed, else one is made.
        status: what to record for a run that never ended; ``None`` leaves it ``RUNNING``.

    Returns:
        The id of the run.

    Raises:
        TrackingError: the file cannot be read, or the store does not take it.
    """
    contents = read_spool(spool_path)
    end = contents.end
    if end is None and status is not None:
        last_ms = contents.rows[-1].timestamp_ms if contents.rows else contents.started_ms
        end = End(status, last_ms + 1, {}, {})
    writer = RunWriter(store, spool_path, contents.spool_id, contents.started_ms, contents.identity)
    with store_errors(store.uri):
        writer.metrics(points_of(contents.rows, None))
        if end is not None:
            evaluations = Evaluations()
            evaluations.add(contents.rows)
            last_step = contents.rows[-1].step if contents.rows else 0
            writer.end(end, last_step, evaluations.in_order())
    assert writer.run_id is not None
    if end is not None and not contents.sent:
        spool = Spool(spool_path)
        if contents.end is None:
            spool.end(end)
        spool.sent(store.uri)
        spool.close()
    return writer.run_id


def replay_unsent(store: Store) -> list[str]:
    """Replays every ended run that the store's spool directory holds and no store has in full."""
    return [replay(path, store) for path in unsent_spools(store.spool_directory)]


def close_stale_runs(store: Store, experiment: str) -> list[str]:
    """Marks ``RUNNING`` runs whose process on this host is gone as ``KILLED``.

    Rows that such a run had in its spool file but not yet in MLflow are brought in first. Call it
    when a suite starts: MLflow itself keeps a killed run ``RUNNING`` for ever.

    Returns:
        Ids of the runs that were marked.

    Raises:
        TrackingError: the store fails.
    """
    closed = []
    with store_errors(store.uri):
        experiment_id = store.experiment_id(experiment)
        for run in all_runs(store, experiment_id, "attributes.status = 'RUNNING'"):
            if not _process_is_gone(run.data.tags):
                continue
            spool = Path(run.data.tags.get(schema.SPOOL, ""))
            if spool.is_file() and read_spool(spool).spool_id == run.data.tags[schema.SPOOL_ID]:
                replay(spool, store, status=Status.KILLED)
            else:
                store.client.set_terminated(run.info.run_id, Status.KILLED, now_ms())
            closed.append(str(run.info.run_id))
    return closed


def _process_is_gone(tags: Mapping[str, str]) -> bool:
    """Whether the process of a run can be known to be dead: only on the host that it ran on."""
    if tags.get(schema.HOST) != socket.gethostname() or schema.PID not in tags:
        return False
    return process_start(int(tags[schema.PID])) != tags.get(schema.PROCESS_START)
