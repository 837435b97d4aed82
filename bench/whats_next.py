"""What to do next, from what is recorded: the command ``timetrial`` without words.

Boundary: reads journals, notes of begun commands and the dates of reports. Asks no store, so it
answers at once, and also while MLflow is out of reach.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from timetrial.bench.begun import Begun, notes
from timetrial.bench.invocation import program
from timetrial.bench.states import Progress, progress
from timetrial.bench.terminal import say
from timetrial.framework import config as configuration
from timetrial.framework.config import Tracking
from timetrial.framework.errors import UserError
from timetrial.framework.types import Status
from timetrial.tracking.read.glance import Glance, glances

MOST_SHOWN: Final = 3
"""Races, studies and single runs that are shown, unfinished ones first."""

NOTHING: Final = """\
Nothing is recorded in {root} yet. The first command:

  {program} bench

It races VeLO and hand-made optimizers on 4 small workloads, in under 10 minutes
on 2 CPU cores, and ends with a report. After an interruption the same
command continues.

Or, before that:
  {program} bench --plan      its runs and their costs
  {program} report --paper    the paper's own tables, in seconds
  {program} list              workloads, optimizers, suites
"""

HELP: Final = """
`{program} --help` lists all commands,
`{program} COMMAND --help` shows examples."""


@dataclasses.dataclass(frozen=True)
class _Words:
    """What may be said of the place of the record."""

    tracking: Tracking = dataclasses.field(default_factory=Tracking)


def tracking_of(words: Sequence[str]) -> Tracking:
    """The place of the record in ``tracking.KEY=VALUE`` words.

    Raises:
        ConfigError: another key, or a value of a wrong type.
    """
    given: _Words = configuration.convert(configuration.parse(words), _Words, "")
    return given.tracking


def show_next(tracking: Tracking) -> int:
    """Prints what to do next; commands stay on one line, so that they can be copied.

    Names in records may be a stranger's: control characters in them are not printed.
    """
    for found in whats_next(tracking).split("\n"):
        line = "".join(character if character.isprintable() else "?" for character in found)
        if line.startswith("  "):
            print(line)
        else:
            say(line)
    return 0


def whats_next(tracking: Tracking) -> str:
    """What to do next, in words.

    Args:
        tracking: place of the record; commands repeat its root where it is not the default.

    Raises:
        UserError: the root is no readable directory.
    """
    root, shown = Path(tracking.root), os.path.join(tracking.root, "")
    found, damaged = _recorded(root)
    begun, help_text = notes(root), HELP.format(program=program())
    other = _reports(root)
    if not found and not begun and not damaged:
        parts = [NOTHING.format(root=shown, program=program()).rstrip(), *_others(other)]
        if os.environ.get("MLFLOW_TRACKING_URI"):
            parts.append(
                f"runs in the store of $MLFLOW_TRACKING_URI\n  see       {_command(['ui'])}"
            )
        return "\n\n".join(parts) + "\n" + help_text
    states = sorted(progress(found, begun), key=lambda state: (state.complete, -state.latest_ms))
    count = f"{len(found):,} run{'' if len(found) == 1 else 's'} recorded in {shown}"
    parts = [count, *(_advice(state, tracking, other) for state in states[:MOST_SHOWN])]
    if len(states) > MOST_SHOWN:
        parts.append(f"and {len(states) - MOST_SHOWN} more races, studies or experiments")
    else:
        parts += _others(other)
    return "\n\n".join([*parts, *_troubles(found, damaged, begun, tracking)]) + "\n" + help_text


def _recorded(root: Path) -> tuple[list[Glance], list[Path]]:
    """The runs below a root and the damaged journals; none without a directory.

    Raises:
        UserError: it cannot be read.
    """
    try:
        for path in (root, root / "journals"):  # glob hides errors
            if os.path.lexists(path):
                os.listdir(path)
        return glances(root)
    except OSError as error:
        raise UserError(f"tracking.root: cannot read {root}: {error.strerror}") from error


def _reports(root: Path) -> dict[str, Path]:
    """The reports below a root, by name of their suite."""
    return {path.parent.name: path for path in sorted((root / "reports").glob("*/report.html"))}


def _others(reports: Mapping[str, Path]) -> list[str]:
    if not reports:
        return []
    return ["\n".join(["reports", *(f"  {path}" for path in reports.values())])]


def _advice(state: Progress, tracking: Tracking, reports: dict[str, Path]) -> str:
    """The state of one command and what to do next; takes its report out of ``reports``."""
    lines = [state.text]
    if not state.complete:
        if state.counts["running"]:
            lines.append("  another process makes it now; after an interruption:")
        lines.append(f"  continue  {_continue(state, tracking)}")
    if state.begun.what == "race":
        lines += _about_report(state, tracking, reports)
    if state.complete:
        lines.append(f"  see       {_command(('ui', *_place(state.begun, tracking)))}")
    return "\n".join(lines)


def _about_report(state: Progress, tracking: Tracking, reports: dict[str, Path]) -> list[str]:
    """The report of a race, and how to write a newer one."""
    page = reports.pop(state.begun.name, None)
    lines = [] if page is None else [f"  report    {page}"]
    newer = page is not None and state.last_ms > page.stat().st_mtime * 1000
    if newer:
        lines.append("  newer runs are not in it")
    if state.counts["finished"] and (newer or (page is None and state.complete)):
        lines.append(f"  score     {_command(('report', *_suite(state.begun, tracking)))}")
    return lines


def _command(words: Sequence[str]) -> str:
    return f"{program()} {shlex.join(words)}"


def _continue(state: Progress, tracking: Tracking) -> str:
    """The command that continues; where it is not known, the runs that it would make."""
    if words := _continued(state.begun, tracking):
        return _command(words)
    more = ", ..." if len(state.unfinished) > MOST_SHOWN else ""
    return f"the same command ({'; '.join(state.unfinished[:MOST_SHOWN])}{more})"


def _continued(begun: Begun, tracking: Tracking) -> tuple[str, ...]:
    """What to type to continue; empty where it is not known."""
    if begun.words or begun.what != "race":
        return begun.words
    return ("bench", *_suite(begun, tracking))


def _suite(begun: Begun, tracking: Tracking) -> tuple[str, ...]:
    """The words of a race that say what was raced, without those that say by whom."""
    if not begun.words:
        return (f"suite={begun.name}", *_place(begun, tracking, with_suite=False))
    others = ("-", "launcher", "worker", "tracking.queue")
    return tuple(w for w in begun.words[1:] if "=" in w and not w.startswith(others))


def _place(begun: Begun, tracking: Tracking, *, with_suite: bool = True) -> tuple[str, ...]:
    """The words that say where the runs of a command are recorded."""
    given = [word for word in begun.words if word.startswith("tracking.")]
    if begun.what == "race" and with_suite:
        given = [word for word in begun.words if word.startswith("suite=")] + given
        if not begun.words:
            given = [f"suite={begun.name}"]
    named = any(word.startswith("tracking.experiment=") for word in given)
    if not named and begun.experiment != f"timetrial-{begun.name}":
        given.append(f"tracking.experiment={begun.experiment}")
    rooted = any(word.startswith("tracking.root=") for word in given)
    if not rooted and tracking.root != Tracking().root:
        given.append(f"tracking.root={tracking.root}")
    return tuple(given)


def _troubles(
    found: Sequence[Glance], damaged: Sequence[Path], begun: Sequence[Begun], tracking: Tracking
) -> list[str]:
    """What is wrong with the record, each with its remedy."""
    words = [word for word in (begun[0].words if begun else ()) if word.startswith("tracking.uri=")]
    if tracking.root != Tracking().root:
        words.append(f"tracking.root={tracking.root}")
    sync = _command(["sync", *words])
    parts = []
    if damaged:
        names = ", ".join(path.name for path in damaged[:MOST_SHOWN])
        more = ", ..." if len(damaged) > MOST_SHOWN else ""
        parts.append(f"damaged journals: {len(damaged)} ({names}{more})\n  details   {sync}")
    ended = (Status.FINISHED, Status.FAILED)  # others continue, and are sent then
    if unsent := sum(run.status in ended and not run.sent for run in found):
        parts.append(f"runs that MLflow has not: {unsent}\n  send      {sync}")
    return parts
