"""Finds the journals whose runs a store lacks, from their first and last lines.

Boundary: reads journals and asks the store; sends nothing.

A ``sent`` line names the store and the identity of the experiment: its id and the time of its
creation. A store that was lost, replaced or set aside has no experiment with this identity, so the
line does not count there. Lines of earlier versions have no identity; they count for runs that
ended after the experiment was made. An older copy of a store has the experiment but lacks the last
runs, so the store is asked for the run that was sent last.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from timetrial.framework.types import Status
from timetrial.tracking.record.errors import DamagedJournalError, TrackingError
from timetrial.tracking.record.journal import Journal
from timetrial.tracking.store.errors import store_errors
from timetrial.tracking.store.opening import Store

if TYPE_CHECKING:
    from mlflow.entities import Experiment

LOST: Final = "lost"
"""Takes the place of the experiment's identity where a store was found to lack a sent run."""

_TAIL_BYTES: Final = 16384
_UNKNOWN_STORE: Final = ""
_MALFORMED: Final = (
    *(ValueError, TypeError, KeyError, AttributeError),
    *(OverflowError, RecursionError),
)


@dataclasses.dataclass(frozen=True)
class Sent:
    """A ``sent`` line.

    Attributes:
        run_id: id of the run in the store; "" when unknown (version 0.1).
        experiment: identity of its experiment; None in lines of earlier versions.
    """

    run_id: str
    experiment: str | None


@dataclasses.dataclass(frozen=True)
class Outline:
    """What the first and the last lines of a journal say.

    Attributes:
        path: the journal.
        experiment: name of its experiment.
        ended_ms: end of the run, in ms since 1970; None before.
        sent: the run in each store that has it, by ``Store.name``.
    """

    path: Path
    experiment: str
    ended_ms: int | None
    sent: Mapping[str, Sent]


def outline(path: Path) -> Outline:
    """The outline of a journal; reads no rows.

    Raises:
        TrackingError: the file is unreadable, or its first or last line damaged.
    """
    try:
        with path.open("rb") as file:
            head = json.loads(file.readline())
        lines = _last_lines(path)
        sent = dict(_sent(line) for line in lines if line["kind"] == "sent")
        ends = [int(line["timestamp_ms"]) for line in lines if line["kind"] == "end"]
        return Outline(path, str(head["experiment"]), ends[0] if ends else None, sent)
    except OSError as error:
        raise TrackingError(f"journal {path}: cannot be read ({error.strerror})") from error
    except _MALFORMED as error:
        raise DamagedJournalError(
            f"journal {path}: expected a whole first and last line, got damaged ones "
            f"({type(error).__name__})"
        ) from error


class Experiments:
    """Identities of the experiments of a store; each is looked up once.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Experiment | None] = {}

    def knows(self, name: str) -> bool:
        """True when an experiment was looked up."""
        return name in self._known

    def have(self, journal: Outline) -> bool:
        """True when the store has the whole run of a journal.

        Raises:
            OutageError: the store fails.
        """
        name = self._store.name
        if name not in journal.sent and _UNKNOWN_STORE not in journal.sent:
            return False
        if journal.experiment not in self._known:
            self._known[journal.experiment] = self._store.experiment(journal.experiment)
        found = self._known[journal.experiment]
        if found is None or journal.ended_ms is None:
            return False
        said = journal.sent.get(name)
        if said is None or said.experiment is None:
            return journal.ended_ms >= int(found.creation_time or 0)
        return said.experiment == identity_of(found)


def without_run(store: Store, journals: Sequence[Outline]) -> list[Outline]:
    """Those of the sent journals whose runs an older copy of the store lacks.

    Asks for the runs in the order of sending, the last one first, until the store has one. Notes in
    the other journals that they are not sent, so that an interruption forgets none.

    Raises:
        OutageError: the store fails.
    """
    missing: list[Outline] = []
    for journal in sorted(journals, key=lambda each: each.path.stat().st_mtime_ns, reverse=True):
        run_id = journal.sent[store.name].run_id if store.name in journal.sent else ""
        if run_id == "" or _has_ended_run(store, run_id):
            break
        file = Journal(journal.path)
        try:
            file.sent(store.name, run_id, LOST)
        finally:
            file.close()
        missing.append(journal)
    return missing


def _has_ended_run(store: Store, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    with store_errors(store.uri):
        try:
            return bool(store.client.get_run(run_id).info.status != Status.RUNNING)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise


def identity_of(experiment: Experiment) -> str:
    """Identity of an experiment: its id and the time of its creation in ms since 1970."""
    return f"{experiment.experiment_id}@{experiment.creation_time or 0}"


def _sent(line: Mapping[str, Any]) -> tuple[str, Sent]:
    """Name of the store, and what a ``sent`` line says; lines of version 0.1 know no name."""
    run_id, experiment = str(line.get("run_id", "")), line.get("experiment")
    name = str(line.get("store", line.get("uri", ""))) if run_id else _UNKNOWN_STORE
    return name, Sent(run_id, None if experiment is None else str(experiment))


def _last_lines(path: Path) -> list[dict[str, Any]]:
    """The last whole line of a journal, after ``sent`` lines all of them and the line above."""
    with path.open("rb") as file:
        size, block = file.seek(0, os.SEEK_END), _TAIL_BYTES
        while True:
            start = max(0, size - block)
            file.seek(start)
            lines = file.read(size - start).split(b"\n")[:-1]
            found: list[dict[str, Any]] = []
            for line in reversed(lines if start == 0 else lines[1:]):
                found.insert(0, dict(json.loads(line)))
                if found[0]["kind"] != "sent":
                    return found
            if start == 0:
                return found
            block *= 4  # a longer line
