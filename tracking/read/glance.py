"""Runs at a glance: experiment, name and status, from the first line and the end of each journal.

Boundary: local files only. Checksums are checked in the first line alone; every other reader checks
all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timetrial.framework.types import Status
from timetrial.tracking.record.environment import process_is_gone
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.journal import journals_in, read_without_rows
from timetrial.tracking.record.lines import first_line, last_lines, parse


@dataclasses.dataclass(frozen=True)
class Glance:
    """What is seen of a run at a glance.

    Attributes:
        experiment, name: names of its experiment and of the run.
        tags: its tags at the start.
        status: its status; KILLED where its process ended without a word.
        ended_ms: end of the run, in ms since 1970; 0 without an end.
        sent: whether a store has the whole run.
    """

    experiment: str
    name: str
    tags: Mapping[str, str]
    status: Status
    ended_ms: int = 0
    sent: bool = False


def glances(root: Path) -> tuple[list[Glance], list[Path]]:
    """The runs below a tracking root, by name of the journal, and the damaged journals.

    Raises:
        OSError: a directory cannot be read.
    """
    found: list[Glance] = []
    damaged: list[Path] = []
    for path in journals_in(root):
        try:
            found.append(_glance(path))
        except (TrackingError, KeyError, TypeError, ValueError, AttributeError):
            damaged.append(path)
    return found, damaged


def _glance(path: Path) -> Glance:
    """The run of a journal.

    Raises:
        TrackingError, KeyError, TypeError, ValueError, AttributeError: it is damaged.
    """
    head = first_line(path)
    if head is None:
        raise ValueError(f"{path}: expected a first line of kind 'run'")
    experiment, name = str(head["experiment"]), str(head["run_name"])
    tags = {str(key): str(value) for key, value in head["tags"].items()}
    last = [parse(path, 0, line) for line in last_lines(path, ("end", "sent"))]
    ends = [line for line in last if line["kind"] == "end"]
    if not ends:
        return Glance(experiment, name, tags, _status_now(path))
    return Glance(
        experiment,
        name,
        tags,
        Status(ends[-1]["status"]),
        _milliseconds(ends[-1]["timestamp_ms"]),
        sent=len(last) > len(ends),
    )


def _milliseconds(value: Any) -> int:
    return max(0, int(value))


def _status_now(path: Path) -> Status:
    """The status of a run without an end; whoever resumed it last is asked for."""
    gone = process_is_gone(read_without_rows(path).tags)
    return Status.KILLED if gone else Status.RUNNING
