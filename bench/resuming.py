"""Where a run continues: its checkpoint and its journal.

Boundary: reads the directory of a run; ``experiment.run`` continues or starts it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from timetrial.framework.checkpoint import Checkpoints, Loaded, Saved, last_offset
from timetrial.framework.clock import charged
from timetrial.framework.config import RunConfig, digest
from timetrial.framework.files import write_atomically
from timetrial.framework.paths import own_name
from timetrial.framework.records import Row
from timetrial.framework.types import Status
from timetrial.tracking.record import schema
from timetrial.tracking.record.errors import TrackingError
from timetrial.tracking.record.evaluations_file import evaluations_in
from timetrial.tracking.record.journal import DIRECTORIES, End, JournalContents, read_journal

JOURNAL: Final = "journal"
"""File with the name of a run's journal."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Continuation:
    """What is left of an unfinished run.

    Attributes:
        loaded: its last checkpoint; None starts it anew.
        journal: its journal; None begins another one.
        offset: size of the journal to keep, in bytes; the run repeats the rest.
        contents: the whole journal as it is now, without the rows of single updates.
        evaluations: evaluations up to the offset.
    """

    loaded: Loaded | None = None
    journal: Path | None = None
    offset: int = 0
    contents: JournalContents | None = None
    evaluations: Sequence[Row] = ()

    @property
    def saved(self) -> Saved | None:
        """Contents of the checkpoint beside the arrays."""
        return None if self.loaded is None else self.loaded.saved

    @property
    def step(self) -> int:
        """Updates made at the checkpoint."""
        return 0 if self.loaded is None else self.loaded.saved.step

    @property
    def note(self) -> str:
        """What the run repeats, in words; "" for a new run."""
        if self.journal is None:
            return ""
        rows = self.contents.rows if self.contents is not None else ()
        reached = rows[-1].train_seconds if rows else 0.0
        lost = max(0.0, reached - (charged(self.saved.seconds) if self.saved else 0.0))
        where = f"continues at update {self.step}" if self.loaded else "starts again"
        return f"{where}; {lost:.1f} charged seconds since its last checkpoint are repeated"

    @property
    def end(self) -> End | None:
        """The end of the run in its journal."""
        return None if self.contents is None else self.contents.end

    @property
    def over(self) -> bool:
        """True when the run is over and recorded: it was not interrupted and did not fail."""
        return self.end is not None and schema.STOP_REASON in self.end.tags


NEW: Final = Continuation()
"""A new run."""


def run_directory(config: RunConfig) -> Path:
    """Directory of a run's checkpoints: one per configuration and experiment."""
    tracking = config.tracking
    return checkpoint_root(tracking.root) / own_name(tracking.experiment) / digest(config)


def checkpoint_root(root: str | Path) -> Path:
    """Absolute directory of all checkpoints below a tracking root."""
    return Path(root).absolute() / "checkpoints"


def continuation(root: Path, directory: Path, identity: str) -> Continuation:
    """The state of a run at which it continues; nothing for a new one.

    A checkpoint counts only with its journal: without, the run starts anew, with a warning.

    Args:
        root: the tracking root.
        directory: directory of the run.
        identity: digest of the configuration.

    Raises:
        UserError: the checkpoint is of another configuration or format.
    """
    loaded = Checkpoints(directory, identity).latest()
    name = loaded.saved.journal if loaded is not None else named_journal(directory)
    if not name:
        return NEW
    path = root / DIRECTORIES[0] / Path(name).name
    if loaded is None and not path.exists():
        return NEW  # killed before its journal was there
    try:
        with path.open("rb") as file:
            first_line = len(file.readline())
        offset = first_line if loaded is None else loaded.saved.offset
        if path.stat().st_size < offset:
            raise TrackingError(f"journal {path}: expected at least {offset} bytes")
        kept = read_journal(path, until=offset, evaluations_only=True)
    except (TrackingError, OSError) as error:
        _log.warning("%s: the run starts anew", error)
        return NEW
    evaluations = evaluations_in(kept.rows)
    found = Continuation(loaded, path, offset, _readable(path), evaluations)
    failed = found.end is not None and found.end.status == Status.FAILED
    return NEW if failed and loaded is None else found


def _readable(path: Path) -> JournalContents | None:
    """A journal; None when it is damaged in the part that the run repeats."""
    try:
        return read_journal(path, evaluations_only=True)
    except TrackingError:
        return None


def place_tag(root: Path, directory: Path | None) -> dict[str, str]:
    """The tag with the place of a run's checkpoints, relative to the tracking root."""
    if directory is None or not directory.absolute().is_relative_to(root.absolute()):
        return {}
    return {schema.CHECKPOINTS: directory.absolute().relative_to(root.absolute()).as_posix()}


def resumable_in(root: Path) -> Callable[[Path, Mapping[str, str]], int | None]:
    """Returns the function that says where a run whose process ended will continue.

    From a journal and its tags it returns the offset of the last checkpoint, 0 before the first,
    None if the run cannot continue. A store gets only the rows before; the run repeats the others.

    Args:
        root: the tracking root; directories outside are never looked at.
    """
    inside = root.resolve()

    def resumable_at(path: Path, tags: Mapping[str, str]) -> int | None:
        directory = (root / tags.get(schema.CHECKPOINTS, "..")).resolve()
        if not directory.is_relative_to(inside):
            return None
        journal, offset = last_offset(directory) or (named_journal(directory), 0)
        return offset if journal == path.name else None

    return resumable_at


def note_journal(directory: Path, journal: Path) -> None:
    """Notes the journal of a run that has no checkpoint yet."""
    write_atomically(directory / JOURNAL, f"{journal.name}\n".encode())


def is_over(root: Path, directory: Path) -> bool:
    """True when the run of a directory is over and recorded, by its journal."""
    name = named_journal(directory)
    contents = _readable(root / DIRECTORIES[0] / Path(name).name) if name else None
    return Continuation(contents=contents).over


def clear(directory: Path) -> None:
    """Removes the checkpoints of a run and the name of its journal."""
    Checkpoints(directory, "").remove_all_but(0)
    (directory / JOURNAL).unlink(missing_ok=True)


def tidy(config: RunConfig, directory: Path) -> None:
    """Removes the last checkpoint of a run that is over, unless it is to be kept."""
    if not config.tracking.final_checkpoint:
        Checkpoints(directory, "").remove_all_but(0)


def named_journal(directory: Path) -> str:
    """File name of the journal of a run's last attempt in a directory; "" without one."""
    try:
        return (directory / JOURNAL).read_text().strip()
    except (OSError, ValueError):
        return ""
