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
from timetrial.tracking.report.cells import (
    FEW,
    NOTHING,
    Cell,
    Table,
    below,
    count,
    header,
    interval_text,
    joined_names,
    name_cell,
    per_cents,
)
from timetrial.tracking.report.measures import Kind, Measure
from timetrial.tracking.report.pairs import (
    MOST_SEEDS,
    Pair,
    comparisons,
    deciding_open,
    seeds_needed,
    smallest_shown,
)
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
        reason: the sentence it rests on, without a capital letter at its beginning.
        details: further sentences.
        points: sentences with all numbers that carry it.
        needed: sentence on what would settle the question; empty unless the verdict is ``OPEN``.
    """

    verdict: Verdict
    reason: str
    details: Sequence[str] = ()
    points: Sequence[str] = ()
    needed: str = ""

    @property
    def short(self) -> str:
        """Verdict and reason, one sentence."""
        return f"{self.verdict}: {self.reason}"

    @property
    def lead(self) -> str:
        """Verdict, reason, details and what is needed: the answer without all of its numbers."""
        return " ".join(filter(None, (self.short, *self.details, self.needed)))

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


def kind_words(measure: Measure) -> str:
    """``training loss``, ``validation metric``, ``time to the training target``."""
    words = f"{SPLIT_WORDS[measure.split]} {_KIND_WORDS[measure.kind]}"
    return f"time to the {words}" if measure.kind is Kind.TIME else words


def chance_text(pair: Pair) -> str:
    """Probability that the first of a pair is better; without trials workloads won and lost."""
    if pair.trials:
        return f"{pair.probability:.2f}"
    return f"{len(pair.ahead)} won, {len(pair.behind)} lost"


def groups_text(found: Sequence[Pair], better: str, worse: str) -> str:
    """Which others an optimizer is better or worse than, with its chances in brackets.

    All pairs share one measure and their first optimizer.
    """
    tested = any(pair.trials for pair in found)
    words = {1: better, -1: worse, 0: "not distinguished from" if tested else "level with"}
    said = []
    for sign, how in words.items():
        names = [f"{pair.other} ({chance_text(pair)})" for pair in found if pair.sign == sign]
        said += [f"{how} {joined_names(names)}"] if names else []
    return "; ".join(said)


def resolution_text(results: Results, found: Sequence[Pair]) -> str:
    """How small a difference these pairs can show, and how they were tested."""
    if not any(pair.trials for pair in found):
        return (
            "Single trials are not published, so nothing is tested: better is what wins more "
            "workloads than it loses."
        )
    number_of = comparisons(found)
    if not number_of:
        return "All runs are level by every measure: there is nothing to test."
    seeds = sorted({pair.seeds for pair in found})
    number = " to ".join(dict.fromkeys((str(seeds[0]), count(seeds[-1], "seed"))))
    number = count(seeds[0], "seed") if len(seeds) == 1 else number
    size = f"With {number} and {count(number_of, 'comparison')} at once"
    limit = smallest_shown(found, results.level)
    if math.isnan(limit):
        shown = "not even a win in every pair of runs is told from chance"
    elif found[0].any_difference:
        shown = (
            "the smallest effect that is told from chance is a probability of being better of "
            f"{0.5 + limit:.2f} or {0.5 - limit:.2f} on every workload (root mean square)"
        )
    else:
        shown = (
            "the smallest probability of being better that is told from chance is "
            f"{0.5 + limit:.2f} ({0.5 - limit:.2f} on the other side)"
        )
    return (
        f"{size}, {shown}: permutation tests, adjusted by Holm so that all statements of this "
        f"answer hold together with {results.level_text} confidence.{_covered(found)}"
    )


def _covered(found: Sequence[Pair]) -> str:
    """The true coverage of the intervals of these pairs."""
    shares = per_cents(pair.coverage for pair in found)
    return f" Intervals of probabilities hold the true one in {shares} of cases." if shares else ""


def needed_text(results: Results, found: Sequence[Pair]) -> str:
    """How many seeds would settle the question, if the deciding difference stays as it is."""
    if not any(pair.trials for pair in found):
        return "Needed: the single trials, which are not published."
    pair = deciding_open(found)
    if pair is None:
        return "Needed: other targets or workloads; where runs are level, seeds do not help."
    number = seeds_needed(pair, comparisons(found), results.level)
    what = f"{kind_words(pair.measure)} under {CONTROL[pair.measure.condition]}"
    where = f"the difference to {pair.other} in {what}"
    where += "" if pair.any_difference else f" ({chance_text(pair)})"
    if number is None:
        return f"Needed: more than {MOST_SEEDS} seeds, or other workloads: {where} is too small."
    return (
        f"Needed: about {count(number, 'seed')} instead of {pair.seeds}, if {where} stays as it is."
    )


def pair_table(name: str, what: str, first: str, found: Sequence[Pair]) -> Table:
    """Probability, interval, adjusted p-value and workloads won, by other optimizer and measure.

    Without trials the number of workloads won only. ``what`` ends the title, ``first`` heads the
    column of names.
    """
    title = f"Workloads on which {what}"
    if any(pair.trials for pair in found):
        title = f"Probability that {what}; interval, adjusted p-value, workloads won"
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


def measure_table(name: str, what: str, found: Sequence[Pair]) -> Table:
    """As ``pair_table``, with a row for every measure and a column for every other optimizer."""
    turned = pair_table(name, what, "", found)
    measures = list(dict.fromkeys(pair.measure for pair in found))
    body = [
        [name_cell(f"{kind_words(one)}, {CONTROL[one.condition]}")]
        + [row[place] for row in turned.body]
        for place, one in enumerate(measures, 1)
    ]
    others = (row[0].text for row in turned.body)
    return Table(name, turned.title, header("measure", *others), body)


def p_text(p_value: float) -> str:
    """A p-value, ``p < 0.001``, ``p = 0.0125`` or ``p = 0.25``; without one, all runs tie."""
    if math.isnan(p_value):
        return "all level"
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.4f}" if p_value < 0.1 else f"p = {p_value:.2f}"


def _pair_cell(pair: Pair) -> Cell:
    kind = {1: "best", -1: "bad", 0: ""}[pair.sign]
    wins = f"{len(pair.ahead)} of {pair.workloads}"
    if not pair.trials:
        return Cell(wins, f"{len(pair.level)} level" if pair.level else "", kind=kind)
    mark = FEW if pair.trials < ENOUGH_TRIALS else ""
    sub = below(interval_text(pair.low, pair.high, 2), p_text(pair.p_value), wins)
    return Cell(f"{pair.probability:.2f}{mark}", sub, kind=kind)
