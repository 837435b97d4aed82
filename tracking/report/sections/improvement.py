"""Question 2 of the paper: does the learned optimizer reach better final quality.

Pure: the answer is computed from final losses and metrics of both splits and both conditions.

Source: Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023,
https://arxiv.org/abs/2310.18191 (section 1, Table 2, appendices D and E).
"""

from __future__ import annotations

from collections.abc import Sequence

from timetrial.framework.types import Condition
from timetrial.tracking.report.answers import (
    Answer,
    Verdict,
    chance_text,
    kind_words,
    needed_text,
    overall,
    pair_table,
    resolution_text,
)
from timetrial.tracking.report.cells import Table, count, joined_names
from timetrial.tracking.report.comparison import baselines, capital, contender, lacks
from timetrial.tracking.report.measures import FINAL, Kind, Measure
from timetrial.tracking.report.pairs import SPLITS, Pair, firsts, measures, pairs
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, captioned
from timetrial.tracking.report.sections.quality import quality_table
from timetrial.tracking.report.standings import CONTROL
from timetrial.tracking.scores.targets import CONDITIONS


def section(results: Results) -> Section:
    """The question, its answer, final losses and the probability of improvement."""
    name = contender(results)
    found = _pairs(results, name)
    tables = _losses(results) if name else []
    if found:
        what = f"{name} ends better, by baseline"
        tables.append(pair_table("improvement", what, "baseline", found))
    return Section(
        name="question-2",
        title=f"2. Does {name or 'VeLO'} reach better final quality than each baseline?",
        blocks=[*_answer(results, name, found).blocks(), *captioned(tables)],
        frames={"improvement": results.improvement},
    )


def answer(results: Results) -> Answer:
    """Whether it ends better than each baseline, by loss and metric, on both splits."""
    name = contender(results)
    return _answer(results, name, _pairs(results, name))


def _answer(results: Results, name: str | None, found: Sequence[Pair]) -> Answer:
    others = baselines(results)
    if name is None or not found:
        what = "runs of a learned optimizer" if name is None else "runs of a baseline"
        if name and others:
            what = f"final values of {name} and of a baseline on one workload"
        return Answer(Verdict.OPEN, lacks(results, what), needed="Needed: runs of both.")
    verdict = overall([pair.sign for pair in found])
    points = []
    for condition in _conditions(found):
        here = [pair for pair in found if pair.measure.condition == condition]
        points += [_best_on(results, name, others, condition), _sides(here, others, condition)]
    points += [*_references(results), resolution_text(results, found)]
    needed = needed_text(results, found) if verdict is Verdict.OPEN else ""
    best = _best_losses(results, name, others, _conditions(found))
    return Answer(verdict, best, [_in_all(others, found)], points, needed)


def _pairs(results: Results, name: str | None) -> list[Pair]:
    return pairs(results, [(name, other) for other in baselines(results)] if name else [], FINAL)


def _conditions(found: Sequence[Pair]) -> list[Condition]:
    return [c for c in CONDITIONS if any(pair.measure.condition == c for pair in found)]


def _best_losses(
    results: Results, name: str, others: Sequence[str], conditions: Sequence[Condition]
) -> str:
    """On how many workloads it ends with the best losses."""
    counted: list[str] = []
    for condition in conditions:
        parts: list[str] = []
        for measure in _deciding(results, condition):
            alone, _, all_ = firsts(results, measure, name, others)
            noun = "" if parts or counted else f" workload{'s' * (len(all_) != 1)}"
            best = f"the best {kind_words(measure)}"
            parts.append(f"{best} on {len(alone)} of {len(all_)}{noun}")
        counted.append(f"{joined_names(parts)} under {CONTROL[condition]}")
    return f"{name} ends with {'; '.join(counted)}."


def _in_all(others: Sequence[str], found: Sequence[Pair]) -> str:
    """The baselines that it is better than by every measure, or worse than by one."""
    better = [o for o in others if _signs(found, o) == {1}]
    worse = [o for o in others if -1 in _signs(found, o)]
    said = [f"better than {joined_names(better)} by every measure"] if better else []
    said += [f"worse than {joined_names(worse)} by at least one measure"] if worse else []
    if said:
        return f"It is {' and '.join(said)}."
    if any(pair.sign for pair in found):
        return "It is better than no baseline by every measure, and worse than none by any."
    return "No baseline is told apart from it."


def _signs(found: Sequence[Pair], other: str) -> set[int]:
    return {pair.sign for pair in found if pair.other == other}


def _deciding(results: Results, condition: Condition) -> list[Measure]:
    """The losses of a condition, or the metrics where the loss is the deciding metric."""
    here = [m for m in measures(results, FINAL) if m.condition == condition]
    return [m for m in here if m.kind is Kind.LOSS] or here


def _best_on(results: Results, name: str, others: Sequence[str], condition: Condition) -> str:
    """On how many workloads it is better than all baselines, by every measure."""
    parts = []
    for measure in (m for m in measures(results, FINAL) if m.condition == condition):
        alone, shared, all_ = firsts(results, measure, name, others)
        if all_:
            named = f" ({joined_names(alone)})" if alone else ""
            tied = f", level with the best on {joined_names(shared)}" if shared else ""
            parts.append(f"{kind_words(measure)} on {len(alone)} of {len(all_)}{named}{tied}")
    return f"Under {CONTROL[condition]}, {name} beats every baseline in {'; '.join(parts)}."


def _sides(here: Sequence[Pair], others: Sequence[str], condition: Condition) -> str:
    """Baselines that it is better or worse than under one condition, and by which measures."""
    number = len({pair.measure for pair in here})
    said = []
    for sign, how in ((-1, "worse than"), (1, "better than")):
        parts = []
        for other in others:
            by = [pair for pair in here if pair.other == other and pair.sign == sign]
            listed = joined_names([f"{kind_words(p.measure)} ({chance_text(p)})" for p in by])
            if by:
                all_ = f"all {number} measures" if len(by) == number > 1 else listed
                parts.append(f"{other} by {all_}")
        said += [f"{how} {'; '.join(parts)}"] if parts else []
    open_ = sum(not pair.sign for pair in here)
    undecided = "not distinguished" if any(pair.trials for pair in here) else "level"
    said += [f"{undecided} in {open_} of {count(len(here), 'comparison')}"] if open_ else []
    return f"Under {CONTROL[condition]}, {'. '.join([said[0], *map(capital, said[1:])])}."


def _references(results: Results) -> list[str]:
    names = [name for name in results.optimizers if results.entrants[name].is_reference]
    used = baselines(results)
    role = {
        name: "the only baseline" if name in used else "a reference, no baseline" for name in names
    }
    return [f"{name} is tuned on each workload: {role[name]}." for name in names]


def _losses(results: Results) -> list[Table]:
    """Final losses of every condition, both splits side by side."""
    titles = {Condition.STEP: "Table 2: final loss", Condition.TIME: "Final loss"}
    tables = []
    for condition in CONDITIONS:
        table = results.quality
        chosen = (table["condition"] == condition) & (table["metric"] == "loss")
        rows = table[chosen & table["split"].isin(SPLITS)]
        if len(rows):
            title = f"{titles[condition]}, {CONTROL[condition]}"
            name = f"loss_{condition}"
            made = quality_table(results, rows, name=name, title=title, with_split=True)
            tables.append(made)
    return tables
