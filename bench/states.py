"""The state of what was begun: races, studies and single runs, by the status of their runs.

Boundary: pure; ``begun`` has the commands, ``tracking.read.glance`` the runs.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from timetrial.bench.begun import Begun, What, run_key
from timetrial.framework.types import Status
from timetrial.tracking.read.glance import Glance
from timetrial.tracking.record import schema

_WORDS: Final = {
    Status.FINISHED: "finished",
    Status.RUNNING: "running",
    Status.FAILED: "failed",
    Status.KILLED: "interrupted",
}
"""States in words; of several runs of one configuration the first of these counts."""

_ALL_RUNS: Final = "single runs"


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of the runs of one command.

    Attributes:
        begun: the command; without words where no note tells it.
        counts: number of runs that are finished, running, failed, interrupted; 0 of the others.
        unfinished: names of the runs that have not finished; their keys where none has begun.
        last_ms: end of the last run of its race, study or experiment, in ms since 1970; 0 without
            one.
    """

    begun: Begun
    counts: Mapping[str, int]
    unfinished: tuple[str, ...]
    last_ms: int

    @property
    def complete(self) -> bool:
        """Whether every run has finished."""
        return not self.unfinished

    @property
    def latest_ms(self) -> int:
        """When it was last worked on, in ms since 1970."""
        return max(self.last_ms, self.begun.begun_ms)

    @property
    def text(self) -> str:
        """The state in one line."""
        begun, total = self.begun, len(self.begun.runs)
        if begun.what == "run" and total == 1 and begun.words:
            state = next((word for word in _WORDS.values() if self.counts[word]), "not finished")
            return f"run {begun.name}: {state}"
        kind = "trials" if begun.what == "study" else "runs"
        kind = kind if begun.words else f"recorded {kind}"
        title = begun.name if begun.what == "run" else f"{begun.what} {begun.name}"
        if self.complete:
            all_of_them = f"all {total} {kind}" if total > 1 else f"its {kind.rstrip('s')}"
            return f"{title}: {all_of_them} finished"
        done = f"{self.counts['finished']} of {total} {kind} finished"
        others = [f"{self.counts[w]} {w}" for w in list(_WORDS.values())[1:] if self.counts[w]]
        return f"{title}: {', '.join([done, *others])}"


def progress(found: Sequence[Glance], begun: Sequence[Begun]) -> list[Progress]:
    """The state of every command that was begun, and of the runs that no note tells of.

    A later command with the same name and experiment replaces an earlier one that has finished.
    """
    runs = [run for run in found if not any(tag in run.tags for tag in schema.ABOUT_RUNS)]
    by_experiment: dict[str, list[Glance]] = collections.defaultdict(list)
    for run in runs:
        by_experiment[run.experiment].append(run)
    states: list[Progress] = []
    told: set[tuple[str, str, str]] = set()
    single: set[tuple[str, str]] = set()
    for one in begun:
        state = _progress(one, by_experiment[one.experiment])
        if one.what == "run":
            states += [] if state.complete else [state]
            single |= {(one.experiment, key) for key in one.runs}
        elif _identity(one) not in told or not state.complete:
            states.append(state)
        told.add(_identity(one))
    others = [run for run in runs if (run.experiment, _key("run", run)) not in single]
    return states + [s for s in _without_note(others) if _identity(s.begun) not in told]


def _identity(begun: Begun) -> tuple[str, str, str]:
    return begun.what, begun.experiment, begun.name


def _without_note(runs: Sequence[Glance]) -> list[Progress]:
    """The state of the runs by race and study, as far as they are recorded."""
    groups: dict[tuple[What, str, str], list[Glance]] = collections.defaultdict(list)
    for run in runs:
        what, name = _group(run)
        groups[what, run.experiment, name].append(run)
    return [
        _progress(Begun(what, name, experiment, (), _keys(what, members)), members)
        for (what, experiment, name), members in groups.items()
    ]


def _group(run: Glance) -> tuple[What, str]:
    """What a run belongs to, and its name."""
    if schema.STUDY in run.tags:
        return "study", run.tags[schema.STUDY]
    if schema.SUITE in run.tags:
        return "race", run.tags[schema.SUITE]
    return "run", f"{_ALL_RUNS} in {run.experiment}"


def _keys(what: What, runs: Sequence[Glance]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_key(what, run) for run in runs))


def _key(what: What, run: Glance) -> str:
    if what == "study":
        return run.tags.get(schema.POINT, "")
    if what == "run" and schema.CONFIG_HASH in run.tags:  # any setting may differ
        return run.tags[schema.CONFIG_HASH]
    return run_key(run.name, run.tags.get(schema.CONDITION, ""))


def _progress(begun: Begun, runs: Sequence[Glance]) -> Progress:
    """The state of a command, from the runs of its experiment."""
    order, expected = list(_WORDS), set(begun.runs)
    best: dict[str, Status] = {}
    if begun.what == "study":
        runs = [run for run in runs if run.tags.get(schema.STUDY) == begun.name]
    for run in runs:
        if (key := _key(begun.what, run)) in expected:
            best[key] = min(best.get(key, run.status), run.status, key=order.index)
    counts = collections.Counter(_WORDS[status] for status in best.values())
    names = {_key(begun.what, run): run.name for run in runs}
    left = [key for key in begun.runs if best.get(key) is not Status.FINISHED]
    unfinished = tuple(names.get(key, key) for key in left)
    return Progress(begun, counts, unfinished, max((run.ended_ms for run in runs), default=0))
