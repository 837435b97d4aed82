"""Sends runs to MLflow: the command ``timetrial sync``, and before a command makes runs.

Boundary: prints; ``tracking.store.delivery`` sends.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from timetrial.bench.resuming import resumable_in
from timetrial.bench.sweeping import sweep
from timetrial.framework.config import Tracking
from timetrial.tracking.store.client import patient
from timetrial.tracking.store.delivery import deliver_files, deliver_unsent
from timetrial.tracking.store.listing import check_experiment
from timetrial.tracking.store.opening import Store, open_store


def opened(tracking: Tracking) -> Store:
    """Opens the store for a command that makes runs; tidies up after earlier ones.

    What they could not send is sent, and what killed ones left half done is removed.

    Raises:
        TrackingError: the address or the root is wrong, or the experiment was deleted.
    """
    store = open_store(tracking.uri, root=Path(tracking.root))
    check_experiment(store, tracking.experiment)
    deliver_again(store, tracking)
    sweep(store.root)
    return store


def deliver_again(store: Store, tracking: Tracking) -> None:
    """Sends the runs of an experiment that the store lacks, and closes dead ones."""
    deliver_unsent(store, tracking.experiment, checkpoint=resumable_in(store.root))


def sync(tracking: Tracking, files: Sequence[Path]) -> int:
    """Sends all runs that the store lacks, or the runs of given journals.

    Args:
        tracking: store and root of the runs.
        files: journals to send, also those that the store has; empty sends what it lacks.

    Returns:
        The exit code: 1 when a run is left, or the store fails.
    """
    store = open_store(tracking.uri, root=Path(tracking.root))
    resumable = resumable_in(store.root)
    with patient():
        if files:
            delivery = deliver_files(store, files, checkpoint=resumable)
        else:
            delivery = deliver_unsent(store, checkpoint=resumable)
    print(f"{len(delivery.sent)} runs sent to {store.name}")
    if delivery.closed:
        print(f"{len(delivery.closed)} runs of dead processes marked as KILLED")
    if delivery.paused:
        print(f"{len(delivery.paused)} killed runs can be continued; sent up to their checkpoints")
    left = {**delivery.left, **delivery.damaged}
    for path, reason in left.items():
        print(f"timetrial: not sent: {path}: {reason}", file=sys.stderr)
    if left:
        print(f"{len(left)} runs left; the same command sends them when the cause is gone")
    return 1 if left or store.connection.outage is not None else 0
