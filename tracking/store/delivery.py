"""Sends the journals that a store lacks, without duplicates.

Boundary: chooses journals; ``mirror`` sends one. Damaged journals and a failing store stop nothing.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from timetrial.framework.errors import UserError
from timetrial.tracking.record.aside import set_aside
from timetrial.tracking.record.environment import process_is_gone
from timetrial.tracking.record.journal import journals_in, read_journal
from timetrial.tracking.store.errors import store_errors
from timetrial.tracking.store.mirror import (
    Mirror,
    close_running,
    end_dead,
    ending_of,
    may_resume,
)
from timetrial.tracking.store.opening import Store
from timetrial.tracking.store.pending import Experiments, Outline, outline, without_run

_log = logging.getLogger(__name__)

Checkpoint = Callable[[Path, Mapping[str, str]], int | None]
"""From a journal and the tags of its killed run: offset of the checkpoint that will resume it."""


@dataclasses.dataclass(frozen=True)
class Delivery:
    """Outcome of a delivery.

    Attributes:
        sent: ids of the runs that the store has now.
        paused: journals of killed runs that will be resumed; the store has the rows before their
            checkpoints.
        left: journals of runs that are not in the store, with the reasons.
        damaged: journals that cannot be read, with the reasons.
        closed: ids of runs without a local journal, marked as killed.
    """

    sent: list[str] = dataclasses.field(default_factory=list)
    paused: list[Path] = dataclasses.field(default_factory=list)
    left: dict[Path, str] = dataclasses.field(default_factory=dict)
    damaged: dict[Path, str] = dataclasses.field(default_factory=dict)
    closed: list[str] = dataclasses.field(default_factory=list)


def _no_checkpoint(path: Path, tags: Mapping[str, str]) -> None:
    """No killed run will be resumed."""


def deliver_unsent(
    store: Store, experiment: str | None = None, *, checkpoint: Checkpoint = _no_checkpoint
) -> Delivery:
    """Sends every run below the store's root that the store lacks, and closes dead ones.

    Journals of living processes are left alone. A run of a dead process on this host is ended as
    KILLED. Unless a checkpoint will resume it: then its journal stays open, and the store gets the
    rows before the checkpoint. Of journals that the store has, the first and last lines are read.
    Call it before anything is planned.

    Args:
        store: destination of the runs.
        experiment: experiment of the runs; None takes all.
        checkpoint: says which killed runs will be resumed.

    Returns:
        What was sent and what was not. Damaged journals and failures of the store are in it; a
        warning names each damaged journal.
    """
    delivery = Delivery()
    for path in _unsent(store, experiment, delivery):
        try:
            contents = read_journal(path, evaluations_only=True)
            if contents.end is not None or process_is_gone(contents.tags):
                _deliver(store, path, checkpoint, delivery)
        except (UserError, OSError) as error:
            _note_damage(delivery, path, error)
    store.connection.attempt(lambda: delivery.closed.extend(_close(store, experiment)), urgent=True)
    return delivery


def deliver_files(
    store: Store, files: Sequence[Path], *, checkpoint: Checkpoint = _no_checkpoint
) -> Delivery:
    """Sends given journals, also those that the store has.

    Args:
        store: destination of the runs.
        files: the journals.
        checkpoint: as for ``deliver_unsent``.
    """
    delivery = Delivery()
    for path in files:
        try:
            if _deliver(store, path, checkpoint, delivery) == "claimed":
                delivery.left[path] = "the process of the run, or another one, is sending it"
        except (UserError, OSError) as error:
            delivery.damaged[path] = str(error)
    return delivery


def _unsent(store: Store, experiment: str | None, delivery: Delivery) -> list[Path]:
    """Journals whose runs the store lacks, and those of runs that have not ended."""
    experiments, unsent, sent = Experiments(store), list[Path](), list[Outline]()
    for path in journals_in(store.root):
        try:
            journal = outline(path)
        except (UserError, OSError) as error:
            _note_damage(delivery, path, error)
            continue
        if experiment in (None, journal.experiment):
            if _has(store, experiments, journal):
                sent.append(journal)
            else:
                unsent.append(path)
    if store.connection.outage is None:
        missing: list[Outline] = []
        look = lambda: missing.extend(without_run(store, sent))  # noqa: E731
        store.connection.attempt(look, part="lists", urgent=True)
        unsent += [journal.path for journal in missing]
    return unsent


def _note_damage(delivery: Delivery, path: Path, error: Exception) -> None:
    what = set_aside(path, error) if isinstance(error, UserError) else "it is skipped"
    _log.warning("%s; %s", error, what)
    delivery.damaged[path] = str(error)


def _has(store: Store, experiments: Experiments, journal: Outline) -> bool:
    """True when the store has a run; during an outage, when its journal says so."""
    if journal.ended_ms is None or not journal.sent:
        return False
    if experiments.knows(journal.experiment):
        return experiments.have(journal)
    if store.connection.outage is not None:
        return store.name in journal.sent
    found: list[bool] = []
    look = lambda: found.append(experiments.have(journal))  # noqa: E731
    error = store.connection.attempt(look, part="lists", urgent=True)
    return store.name in journal.sent if error is not None else found[0]


def _deliver(
    store: Store, path: Path, checkpoint: Checkpoint, delivery: Delivery
) -> Literal["claimed", "done"]:
    """Sends one journal; notes what came of it."""
    mirror = Mirror(store, path)
    try:
        if not mirror.is_claimed:
            return "claimed"
        contents = read_journal(path, evaluations_only=True)  # nobody changes it any more
        offset = checkpoint(path, contents.tags) if may_resume(contents) else None
        if offset is not None:
            error = mirror.pause(ending_of(contents), offset)
        else:
            if contents.end is None and process_is_gone(contents.tags):
                end_dead(path)
            error = mirror.send()
    finally:
        mirror.release()
    if error is not None:
        delivery.left[path] = str(error)
    elif offset is not None:
        delivery.paused.append(path)
    else:
        delivery.sent.append(str(mirror.run_id))
    return "done"


def _close(store: Store, experiment: str | None) -> list[str]:
    """Marks runs of dead processes as killed in one experiment, or in all."""
    with store_errors(store.uri):
        found = (
            store.client.search_experiments()
            if experiment is None
            else [made for made in [store.experiment(experiment)] if made is not None]
        )
        ids = [str(made.experiment_id) for made in found if made.lifecycle_stage == "active"]
        return close_running(store, ids) if ids else []
