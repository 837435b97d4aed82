"""Notes of the commands that were begun: which runs they make, and how to continue them.

Boundary: one small file per command in ``begun/`` below the tracking root. ``timetrial`` without a
command reads them; nothing else does, so a race does not depend on them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from timetrial.framework.errors import reason_of
from timetrial.framework.files import PRIVATE, make_private_directory, write_atomically
from timetrial.framework.secrets import masked_tree

DIRECTORY: Final = "begun"
"""Directory of the notes below a tracking root."""

_MOST_BYTES: Final = 4 << 20

_log = logging.getLogger(__name__)

What = Literal["race", "study", "run"]


@dataclasses.dataclass(frozen=True)
class Begun:
    """A command that makes runs.

    Attributes:
        what: what it makes.
        name: name of its suite, study or run.
        experiment: experiment of the runs.
        words: what was typed after ``timetrial``; credentials are masked.
        runs: a key for each run: in a race ``run_key``, of a study the numbers of its points, of a
            single run the digest of its configuration.
        begun_ms: when it was last begun, in ms since 1970.
    """

    what: What
    name: str
    experiment: str
    words: tuple[str, ...]
    runs: tuple[str, ...]
    begun_ms: int = 0

    @property
    def file(self) -> str:
        """Name of its note: the same for the same command."""
        text = json.dumps([self.what, self.experiment, self.name, masked_tree(self.words)])
        return f"{self.what}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def run_key(name: str, condition: str) -> str:
    """Identity of a run in a note; time budgets, which are measured later, do not change it.

    Args:
        name: workload, optimizer and seed in words.
        condition: kind of its budget.
    """
    return f"{name}, {condition}"


def note(root: Path, begun: Begun) -> None:
    """Writes the note of a command that begins; nothing without words, as from Python.

    A failure is logged: the command goes on without.
    """
    if not begun.words:
        return
    tree = {**dataclasses.asdict(begun), "begun_ms": time.time_ns() // 1_000_000}
    try:
        make_private_directory(root / DIRECTORY)
        data = json.dumps(masked_tree(tree)).encode()
        write_atomically(root / DIRECTORY / begun.file, data, PRIVATE)
    except OSError as error:
        _log.warning("timetrial without a command will not know of this one: %s", reason_of(error))


def forget(root: Path, begun: Begun) -> None:
    """Removes the note of a command that has ended; there need not be one."""
    (root / DIRECTORY / begun.file).unlink(missing_ok=True)


def notes(root: Path) -> list[Begun]:
    """The notes below a tracking root, the last begun first; unreadable ones are left out."""
    return sorted(_notes(root), key=lambda begun: -begun.begun_ms)


def _notes(root: Path) -> Iterator[Begun]:
    for path in sorted((root / DIRECTORY).glob("*.json")):
        try:
            if path.stat().st_size <= _MOST_BYTES:
                yield _begun(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue


def _begun(tree: Any) -> Begun:
    """A note from JSON; raises a KeyError, TypeError or ValueError for anything else."""
    if tree["what"] not in ("race", "study", "run"):
        raise ValueError(f"what: expected race, study or run, got {tree['what']!r:.40}")
    return Begun(
        tree["what"],
        _text(tree["name"]),
        _text(tree["experiment"]),
        tuple(map(_text, tree["words"])),
        tuple(map(_text, tree["runs"])),
        int(tree["begun_ms"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"expected a printable text, got {value!r:.40}")
    return value
