"""Answer to one of the paper's three questions: a verdict, and the numbers that carry it.

Boundary: wording that the three answers share; each is computed in its own section.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from typing import Final

from timetrial.framework.types import Split
from timetrial.tracking.report.cells import FEW, NOTHING, Cell, Table, below, count, header
from timetrial.tracking.report.cells import interval_text, joined_names, name_cell
from timetrial.tracking.report.measures import Kind, Measure
from timetrial.tracking.report.pairs import MOST_SEEDS, Pair, seeds_needed, smallest_shown
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Block, Bullets, Text
from timetrial.tracking.report.standings import CONTROL
from timetrial.tracking.scores.uncertainty import ENOUGH_TRIALS

SPLIT_WORDS: Final = {Split.TRAIN: "training", Split.VALIDATION: "validation"}
"""Names of the splits in sentences."""

_KIND_WORDS: Final = {Kind.LOSS: "loss", Kind.METRIC: "metric", Kind.TIME: "target"}


class Verdict(enum.StrEnum):
    """The plain answer to a question."""

    YES = "Yes"
    NO = "No"
    OPEN = "The data cannot tell"


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes:
        verdict: the plain answer.
        reason: what it rests on, a sentence without a capital letter at its beginning.
        points: sentences with the numbers that carry it.
        needed: sentence on what would settle the question; empty unless the verdict is ``OPEN``.
    """

    verdict: Verdict
    reason: str
    points: Sequence[str] = ()
    needed: str = ""

    @property
    def lead(self) -> str:
        """Verdict, reason and what is needed: the answer without its numbers."""
        return " ".join(filter(None, (f"{self.verdict}: {self.reason}", self.needed)))

    def blocks(self) -> list[Block]:
        """The answer on the page."""
        points: list[Block] = [Bullets(self.points)] if self.points else []
        return [Text(self.lead, "answer"), *points]


def overall(signs: Sequence[int]) -> Verdict:
    """Verdict on a claim from its parts: 1 confirmed, -1 refuted, 0 undecided.

    The claim is general: it holds where every part does, and fails where one part does.
    """
    if -1 in signs:
        return Verdict.NO
    return Verdict.YES if signs and 0 not in signs else Verdict.OPEN


def measure_words(measure: Measure) -> str:
    """``training loss, time control``."""
    return (
        f"{SPLIT_WORDS[measure.split]} {_KIND_WORDS[measure.kind]}, {CONTROL[measure.condition]}"
    )


def groups_text(found: Sequence[Pair], better: str, worse: str) -> str:
    """Which others an optimizer is better or worse than, with the probabilities in brackets.

    All pairs share one measure and their first optimizer.
    """
    words = {1: better, -1: worse, 0: "not distinguished from"}
    said = []
    for sign, how in words.items():
        names = [
            f"{pair.other} ({pair.probability:.2f})" if pair.trials else
            f"{pair.other} ({len(pair.ahead)} of {pair.workloads})"
            for pair in found if pair.sign == sign
        ]  # fmt: skip
        said += [f"{how} {joined_names(names)}"] if names else []
    return "; ".join(said)


def resolution_text(results: Results, found: Sequence[Pair]) -> str:
    """How small a difference these pairs can show, and how they were tested."""
    tested = [pair for pair in found if pair.trials]
    if not tested:
        return (
            "Single trials are not published: there are no tests, and more than half of the "
            "workloads decide."
        )
    fewest = min(pair.trials for pair in tested)
    limit = smallest_shown(tested, results.level)
    several = count(len(tested), "comparison")
    size = f"With {count(fewest, 'seed')} and {several} at once"
    seen = (
        f"{size}, not even an optimizer that wins every pair of runs is told apart"
        if math.isnan(limit)
        else f"{size}, the smallest probability that is told from 0.50 is {limit:.2f}"
    )
    return (
        f"{seen} (permutation test, adjusted by Holm to {results.level_text} confidence in all "
        "statements of this answer together)."
    )


def needed_text(results: Results, found: Sequence[Pair]) -> str:
    """How many seeds would decide the clearest of the open pairs."""
    tested = [pair for pair in found if pair.trials]
    number = seeds_needed(tested, results.level)
    if number is None:
        return (
            f"Needed: more than {MOST_SEEDS} seeds, or other workloads; the differences seen here "
            "are too small for fewer."
        )
    clearest = max(
        (pair for pair in tested if not pair.sign), key=lambda pair: abs(pair.probability - 0.5)
    )
    return (
        f"Needed: about {count(number, 'seed')} instead of {clearest.trials}, if the clearest "
        f"difference ({clearest.probability:.2f} against {clearest.other}, "
        f"{measure_words(clearest.measure)}) holds."
    )


def pair_table(name: str, title: str, first: str, found: Sequence[Pair]) -> Table:
    """Probability, interval and adjusted p-value by other optimizer and measure.

    Without trials the number of workloads on which the first optimizer is better.
    """
    columns = list(dict.fromkeys(pair.measure for pair in found))
    cells = {(pair.other, pair.measure): _pair_cell(pair) for pair in found}
    body = [
        [name_cell(other), *(cells.get((other, column), NOTHING) for column in columns)]
        for other in dict.fromkeys(pair.other for pair in found)
    ]
    controls = [CONTROL[measure.condition] for measure in columns]
    spans = [(control, controls.count(control)) for control in dict.fromkeys(controls)]
    heads = (f"{SPLIT_WORDS[m.split]} {_KIND_WORDS[m.kind]}" for m in columns)
    return Table(name, title, header(first, *heads), body, spans)


def p_text(p_value: float) -> str:
    """A p-value: ``p < 0.001`` or ``p = 0.012``."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _pair_cell(pair: Pair) -> Cell:
    kind = {1: "best", -1: "bad", 0: ""}[pair.sign]
    if not pair.trials:
        ties = f"{len(pair.level)} level" if pair.level else ""
        return Cell(f"{len(pair.ahead)} of {pair.workloads}", ties, kind=kind)
    mark = FEW if pair.trials < ENOUGH_TRIALS else ""
    sub = below(interval_text(pair.low, pair.high, 2), p_text(pair.p_value))
    return Cell(f"{pair.probability:.2f}{mark}", sub, kind=kind)
