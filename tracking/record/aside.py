"""Sets damaged journals aside, so that no later command reads them again.

Boundary: renames files, never removes one.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Final

from timetrial.framework.errors import UserError
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import process_is_gone
from timetrial.tracking.record.errors import DamagedJournalError
from timetrial.tracking.record.lines import first_line, last_line

SUFFIX: Final = ".damaged"
"""Added to the name of a damaged journal; no command reads such files."""


def set_aside(path: Path, error: UserError) -> str:
    """Renames a damaged journal, unless its process may still write it.

    Args:
        path: the journal.
        error: why it is unreadable; only a ``DamagedJournalError`` moves it.

    Returns:
        What happened to it, as the end of a sentence.
    """
    if not isinstance(error, DamagedJournalError):
        return "it is skipped"
    if _may_run(path):
        return "it is skipped, because its process may still run"
    names = itertools.chain([SUFFIX], (f"{SUFFIX}-{number}" for number in itertools.count(2)))
    target = next(p for p in (path.with_name(path.name + end) for end in names) if not p.exists())
    try:
        path.rename(target)
    except OSError as failure:
        return f"it is skipped, because it cannot be renamed ({failure.strerror})"
    return f"it is set aside as {target.name}"


def _may_run(path: Path) -> bool:
    """True when the run has no end, and its first line names a process that may be alive."""
    tags = (first_line(path) or {}).get("tags")
    if not isinstance(tags, dict) or not isinstance(tags.get(schema.PID), str):
        return False
    return not _has_end(path) and not process_is_gone(tags)


def _has_end(path: Path) -> bool:
    return last_line(path).startswith((b'{"kind": "end"', b'{"kind": "sent"'))
