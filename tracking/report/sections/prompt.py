"""Question 1 of the paper: how sensitive VeLO is to its prompt.

Pure: the answer is computed from scores and their intervals.

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
    name_cell,
    signed,
)
from timetrial.tracking.report.comparison import (
    cannot_answer,
    capital,
    difference,
    difference_text,
    fully_prompted,
)
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, Text, captioned
from timetrial.tracking.report.sections.times import time_table
from timetrial.tracking.report.standings import CONTROL, Standing, headline

QUESTION: Final = "1. How sensitive is VeLO to its prompt, the number of steps it expects?"
_SHORT: Final = 0.75  # the prompt of the paper's VeLO Short
_FED: Final = "fed the remaining share of the budget"


def section(results: Results) -> Section:
    """The question, its answer, and times and score differences by prompt."""
    full, variants = fully_prompted(results), _variants(results)
    found = [s for s in results.standings if full in s.scores.index]
    standing = headline(found, Condition.TIME) or headline(found, Condition.STEP)
    present = [name for name in variants.values() if standing and name in standing.scores.index]
    if full is None or standing is None or not present:
        lacking = "VeLO" if full is None else "VeLO with another prompt"
        answer, tables = cannot_answer(results, f"scored runs of {lacking}"), []
    else:
        answer = _answer(results, standing, full, variants)
        tables = _tables(results, standing, [full, *(name for name in variants.values() if name)])
    return Section(
        name="question-1",
        title=QUESTION,
        menu="Three questions",
        blocks=[Text(answer, "answer"), *captioned(tables)],
    )


def _variants(results: Results) -> dict[str, str | None]:
    """The first optimizer for each way to prompt VeLO, by the way in words; None without one.

    The paper's prompt of 75 % and the feed are always listed.
    """
    known = [results.entrants[name] for name in sorted(results.optimizers)]
    found: dict[str, str | None] = {_prompted(_SHORT): None}
    for one in known:
        if one.learned and one.is_variant and not one.fed:
            found[_prompted(one.prompt)] = found.get(_prompted(one.prompt)) or one.label
    fed = next((one.label for one in known if one.learned and one.fed), None)
    return {**found, _FED: fed}


def _prompted(share: float) -> str:
    return f"prompted with {100 * share:g} % of its steps"


def _answer(
    results: Results, standing: Standing, full: str, variants: Mapping[str, str | None]
) -> str:
    parts, signs = [], []
    for words, name in variants.items():
        if name is None or name not in standing.scores.index:
            parts.append(f"no runs of VeLO {words} have a score")
            continue
        gap = difference(standing, name, full, results.level)
        signs.append(gap.sign)
        parts.append(
            f"{words}, it scores {standing.scores[name]:.2f} ({difference_text(gap, results)})"
        )
    verdict = "" if standing.intervals is None else "Yes: " if any(signs) else "Not shown: "
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
    """Score difference of every variant to the fully prompted one, in every standing."""
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
    title = f"Score difference to {full}"
    return Table("prompt_differences", title, header("optimizer", *heads), body)
