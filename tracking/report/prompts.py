"""Prompts of VeLO compared: which other prompts were raced, and which targets flip between them.

Pure: from results to values.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from timetrial.tracking.report.answers import SPLIT_WORDS
from timetrial.tracking.report.cells import plain
from timetrial.tracking.report.measures import Kind
from timetrial.tracking.report.pairs import SPLITS, Pair, pairs
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.standings import Standing
from timetrial.tracking.scores.targets import CONDITIONS


class Flip(NamedTuple):
    """A target that one prompt reaches and another one never does."""

    standing: Standing
    workload: str
    reached_by: str

    @property
    def text(self) -> str:
        """``criteo1tb, training (only velo_short, after 6,088 seconds)``."""
        time = float(self.standing.times.loc[self.reached_by, self.workload])  # type: ignore[arg-type]
        number = f"{time:,.0f}" if time == round(time) else plain(time, 3)
        split = SPLIT_WORDS[self.standing.split]
        after = f"{number} {self.standing.unit}"
        return f"{self.workload}, {split} (only {self.reached_by}, after {after})"


def variants(results: Results, full: str) -> list[str]:
    """The learned optimizers with another prompt, with the same weights where there are any."""
    known = [results.entrants[name] for name in sorted(results.optimizers)]
    chosen = [one for one in known if one.learned and one.is_variant]
    alike = [one for one in chosen if one.weights == results.entrants[full].weights]
    return [one.label for one in alike or chosen]


def flips(results: Results, full: str, other: str) -> tuple[list[Flip], int]:
    """Targets that only one of two optimizers reaches, and the number of cells compared.

    A cell is a workload, a split (training or validation) and a condition with runs of both.
    """
    found, number = [], 0
    for standing in standings_with(results, full, other):
        times = standing.times.loc[[full, other]].dropna(axis="columns")
        number += times.shape[1]
        for workload in times.columns:
            reached = [name for name in times.index if math.isfinite(times.loc[name, workload])]
            if len(reached) == 1:
                found.append(Flip(standing, str(workload), str(reached[0])))
    return found, number


def standings_with(results: Results, *names: str) -> list[Standing]:
    """The standings that hold all names, training before validation."""
    found = [
        one
        for one in results.standings
        if one.split in SPLITS and all(name in one.scores.index for name in names)
    ]
    return sorted(found, key=lambda one: (CONDITIONS.index(one.condition), SPLITS.index(one.split)))


def prompt_pairs(results: Results, full: str | None) -> list[Pair]:
    """VeLO with all its steps against every other prompt, by all measures, for any difference."""
    names = [(full, name) for name in variants(results, full)] if full else []
    return pairs(results, names, tuple(Kind), any_difference=True)
