"""Finds the journals whose runs a store lacks, from their first and last lines.

Boundary: reads journals and experiments; sends nothing.

A ``sent`` line names the store and the identity of the experiment: its id and the time of its
creation. A store that was lost, replaced or set aside has no experiment with this identity, so the
line does not count there. Lines of earlier versions have no identity; they count for runs that
ended after the experiment was made.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.store.opening import Store

if TYPE_CHECKING:
    from mlflow.entities import Experiment

_TAIL_BYTES: Final = 16384
_UNKNOWN_STORE: Final = ""
_MALFORMED: Final = (
    *(ValueError, TypeError, KeyError, AttributeError),
    *(OverflowError, RecursionError),
)


@dataclasses.dataclass(frozen=True)
class Outline:
    """What the first and the last lines of a journal say.

    Attributes:
        path: the journal.
        experiment: name of its experiment.
        ended_ms: end of the run, in ms since 1970; None before.
        sent: identity of the experiment in each store with the run, by ``Store.name``; None in
            lines of earlier versions.
    """

    path: Path
    experiment: str
    ended_ms: int | None
    sent: Mapping[str, str | None]


def outline(path: Path) -> Outline:
    """The outline of a journal; reads no rows.

    Raises:
        TrackingError: the file is unreadable, or its first or last line damaged.
    """
    try:
        with path.open("rb") as file:
            head = json.loads(file.readline())
        lines = _last_lines(path)
        sent = {
            str(_UNKNOWN_STORE if line.get("run_id", "") == "" else line["store"]): _text(line)
            for line in lines
            if line["kind"] == "sent"
        }
        ends = [int(line["timestamp_ms"]) for line in lines if line["kind"] == "end"]
        return Outline(path, str(head["experiment"]), ends[0] if ends else None, sent)
    except OSError as error:
        raise TrackingError(f"journal {path}: cannot be read ({error.strerror})") from error
    except _MALFORMED as error:
        raise TrackingError(
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
        if said is None:
            return journal.ended_ms >= int(found.creation_time or 0)
        return said == identity_of(found)


def identity_of(experiment: Experiment) -> str:
    """Identity of an experiment: its id and the time of its creation in ms since 1970."""
    return f"{experiment.experiment_id}@{experiment.creation_time or 0}"


def _text(line: Mapping[str, Any]) -> str | None:
    found = line.get("experiment")
    return None if found is None else str(found)


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
