"""Question 1 of the paper: how sensitive VeLO is to its prompt, with the answer and evidence.

Pure: the sentence is computed from the scores, and says where an interval leaves it open.

Source: Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023,
https://arxiv.org/abs/2310.18191 (section 1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from timetrial.framework.types import Condition
from timetrial.tracking.report.cells import (
    NOTHING,
    Cell,
    Table,
    header,
    joined_names,
    name_cell,
    signed,
)
from timetrial.tracking.report.comparison import (
    FULL,
    cannot_answer,
    capital,
    difference,
    difference_text,
    find,
)
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, Text, captioned
from timetrial.tracking.report.sections.times import time_table
from timetrial.tracking.report.standings import CONTROL, Standing, headline

QUESTION: Final = "1. How sensitive is VeLO to its prompt, the number of steps it is told of?"
_VARIANTS: Final = {
    "velo_short": "prompted with 75 % of its steps",
    "velo_feed": "fed the remaining share of the budget while it runs",
}


def section(results: Results) -> Section:
    """The question, its answer, and times and score differences by prompt."""
    full, others = find(results, FULL), {key: find(results, key) for key in _VARIANTS}
    found = [s for s in results.standings if full in s.scores.index]
    standing = headline(found, Condition.TIME) or headline(found, Condition.STEP)
    present = [name for name in others.values() if standing and name in standing.scores.index]
    if full is None or standing is None or not present:
        lacking = "VeLO" if full is None else joined_names(list(_VARIANTS))
        answer, tables = cannot_answer(results, f"scored runs of {lacking}"), []
    else:
        answer = _answer(results, standing, full, others)
        tables = _tables(results, standing, [full, *(name for name in others.values() if name)])
    return Section(
        name="question-1",
        title=QUESTION,
        menu="Three questions",
        blocks=[Text(answer, "answer"), *captioned(tables)],
    )


def _answer(
    results: Results, standing: Standing, full: str, others: Mapping[str, str | None]
) -> str:
    parts, signs = [], []
    for key, name in others.items():
        if name is None or name not in standing.scores.index:
            parts.append(f"there are no scored runs of it {_VARIANTS[key]}")
            continue
        gap = difference(standing, name, full, results.level)
        signs.append(gap.sign)
        parts.append(
            f"{_VARIANTS[key]} it scores {standing.scores[name]:.2f} "
            f"({difference_text(gap, results)})"
        )
    verdict = "" if standing.intervals is None else "Yes, it is: " if any(signs) else "Not shown: "
    return capital(
        f"{verdict}under {CONTROL[standing.condition]}, VeLO prompted with all its steps scores "
        f"{standing.scores[full]:.2f} on {standing.split}; {'; '.join(parts)}."
    )


def _tables(results: Results, standing: Standing, variants: Sequence[str]) -> list[Table]:
    """Times to target of one condition by prompt, and the differences of the scores."""
    times = [
        dataclasses.replace(
            time_table(one, variants),
            name=f"prompt_{one.condition}_{one.split}",
            title=f"Table 1: {one.unit.capitalize()} to the {one.split} target, by prompt",
        )
        for one in results.standings
        if one.condition == standing.condition
    ]
    return [*times, _differences(results, variants)]


def _differences(results: Results, variants: Sequence[str]) -> Table:
    """Score of every variant minus that of the fully prompted one, in every standing."""
    full = variants[0]
    found = [s for s in results.standings if full in s.scores.index]
    body = []
    for name in variants[1:]:
        cells = [name_cell(name)]
        for standing in found:
            if name not in standing.scores.index:
                cells.append(NOTHING)
                continue
            gap = difference(standing, name, full, results.level)
            cells.append(Cell(signed(gap.value), gap.interval))
        body.append(cells)
    heads = [f"{s.split}, {CONTROL[s.condition]}" for s in found]
    title = f"Score minus that of {full}"
    return Table("prompt_differences", title, header("optimizer", *heads), body)
