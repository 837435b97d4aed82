"""Question 1 of the paper: is VeLO free of hyperparameters, or do its results hang on its prompt.

Pure: the answer is computed from targets that one prompt reaches and another does not, from scores,
and from final losses and metrics, of both splits and both conditions.

Source: Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023,
https://arxiv.org/abs/2310.18191 (section 1, Table 1); Bouthillier et al., Accounting for Variance
in Machine Learning Benchmarks, 2021, https://arxiv.org/abs/2103.03098 (a probability of improvement
up to 0.75 is not meaningful).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from timetrial.framework.types import Condition, Status
from timetrial.tracking.report.answers import (
    SPLIT_WORDS,
    Answer,
    Verdict,
    kind_words,
    measure_table,
    needed_text,
    p_text,
    resolution_text,
)
from timetrial.tracking.report.cells import (
    NOTHING,
    Cell,
    Table,
    count,
    header,
    interval_text,
    joined_names,
    name_cell,
    plain,
    signed,
)
from timetrial.tracking.report.comparison import (
    SAME,
    capital,
    difference,
    difference_text,
    fully_prompted,
    lacks,
)
from timetrial.tracking.report.measures import Kind
from timetrial.tracking.report.pairs import SPLITS, Pair, costs
from timetrial.tracking.report.prompts import Flip, flips, prompt_pairs, standings_with
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, captioned
from timetrial.tracking.report.sections.times import time_table
from timetrial.tracking.report.standings import CONTROL
from timetrial.tracking.scores.targets import CONDITIONS
from timetrial.tracking.scores.uncertainty import ENOUGH_TRIALS

MEANINGFUL: Final = 0.75
"""Probability of improvement from which a difference is meaningful (Bouthillier et al.)."""

_LESS: Final = 0.95  # fewer updates than this share of the other's is less training


def section(results: Results) -> Section:
    """The question, its answer, and times and differences by prompt."""
    full = fully_prompted(results)
    found = prompt_pairs(results, full)
    tables = _tables(results, full, found) if full else []
    return Section(
        name="question-1",
        title=f"1. Is {full or 'VeLO'} free of hyperparameters, whatever its prompt?",
        menu="Three questions",
        blocks=[*_answer(results, full, found).blocks(), *captioned(tables)],
    )


def answer(results: Results) -> Answer:
    """Whether the results stay the same with another prompt."""
    full = fully_prompted(results)
    return _answer(results, full, prompt_pairs(results, full))


def _answer(results: Results, full: str | None, found: Sequence[Pair]) -> Answer:
    if full is None or not found:
        what = "runs of VeLO prompted with all its steps"
        if full is not None:
            what = f"runs that compare {full} with another prompt"
        needed = "Needed: runs of VeLO with all its steps and with 75 % of them in its prompt."
        return Answer(Verdict.OPEN, lacks(results, what), needed=needed)
    names = list(dict.fromkeys(pair.other for pair in found))
    flipped, cells = [], 0
    for name in names:
        more, number = flips(results, full, name)
        flipped += more
        cells += number
    verdict = _verdict(results, found, flipped)
    points = [point for name in names for point in _points(results, full, name, found)]
    needed = needed_text(results, found) if verdict is Verdict.OPEN else ""
    flip = f"{len(flipped)} of {cells} cells (workload, split and budget) flip between reached and "
    flip += f"never from {full} to {joined_names(names)}"
    less = [said for name in names for said in _less(results, full, name)]
    return Answer(
        verdict,
        _reason(results, found, verdict, flip),
        [*_details(results, found, flip), *less],
        [*points, resolution_text(results, found)],
        needed,
    )


def _verdict(results: Results, found: Sequence[Pair], flipped: Sequence[Flip]) -> Verdict:
    """No where a result differs, yes where every difference is shown to be small."""
    if results.published:
        return Verdict.NO if flipped else Verdict.OPEN
    if any(pair.shown for pair in found):
        return Verdict.NO
    same = all(
        pair.trials >= ENOUGH_TRIALS
        and pair.effect < MEANINGFUL - 0.5
        and 1 - MEANINGFUL < pair.low <= pair.high < MEANINGFUL
        for pair in found
    )
    return Verdict.YES if same and not flipped else Verdict.OPEN


def _reason(results: Results, found: Sequence[Pair], verdict: Verdict, flip: str) -> str:
    """What the verdict rests on; ``flip`` tells how many cells flip."""
    number = count(len(found), "result")
    if results.published:
        return f"{flip}."
    if verdict is Verdict.NO:
        return f"the prompt changes {sum(pair.shown for pair in found)} of {number}."
    if verdict is Verdict.YES:
        low, high = 1 - MEANINGFUL, MEANINGFUL
        return f"every probability of being better lies between {low:g} and {high:g}."
    return f"none of {number} changes with the prompt beyond chance."


def _details(results: Results, found: Sequence[Pair], flip: str) -> list[str]:
    if results.published:
        return []
    most = max(found, key=lambda pair: (pair.shown, pair.effect))
    return [f"Most clearly, {_told(most)}.", f"{capital(flip)}."]


def _told(pair: Pair) -> str:
    """Whether a measure differs, and who is better by it."""
    verb = "differs" if pair.shown else "does not differ beyond chance"
    return (
        f"{kind_words(pair.measure)} under {CONTROL[pair.measure.condition]} {verb} ({_duel(pair)})"
    )


def _duel(pair: Pair) -> str:
    """Who is better, with probability, interval and p-value."""
    one, other, probability = pair.one, pair.other, pair.probability
    low, high = pair.low, pair.high
    if probability < 0.5:
        one, other, probability, low, high = other, one, 1 - probability, 1 - high, 1 - low
    how = "faster" if pair.measure.kind is Kind.TIME else "better"
    interval = interval_text(low, high, 2)
    return f"{one} {how} with P = {probability:.2f}, {interval}; {p_text(pair.p_value)}"


def _points(results: Results, full: str, name: str, found: Sequence[Pair]) -> list[str]:
    """Flips, scores and final values of one prompt against the full one, by condition."""
    points = []
    for condition in CONDITIONS:
        here = dataclasses.replace(
            results, standings=[s for s in results.standings if s.condition == condition]
        )
        mine = [p for p in found if p.other == name and p.measure.condition == condition]
        points += [*_flip_point(here, full, name, condition), *_scores(here, full, name, condition)]
        points += [*_comparisons(here, mine, condition), *_changes(here, mine, condition)]
    return points


def _flip_point(results: Results, full: str, name: str, condition: Condition) -> list[str]:
    found, number = flips(results, full, name)
    if not number:
        return []
    one = results.entrants[name]
    told = "fed the remaining share of the budget"
    if not one.fed:
        told = f"prompted with {100 * one.prompt:g} % of its steps"
    reached = sum(
        int(standing.times.loc[[full, name]].max().lt(math.inf).sum())
        for standing in standings_with(results, full, name)
    )
    listed = "; ".join(flip.text for flip in found)
    if not found:
        listed = f"{reached} are reached by both, {number - reached} by neither"
    return [
        f"Under {CONTROL[condition]}, {len(found)} of {number} cells flip between reached and "
        f"never from {full} to {name}, {told}: {listed}."
    ]


def _scores(results: Results, full: str, name: str, condition: Condition) -> list[str]:
    """The scores of both on both splits; two zeros say nothing."""
    said = []
    for standing in standings_with(results, full, name):
        mine, theirs = float(standing.scores[full]), float(standing.scores[name])
        split = SPLIT_WORDS[standing.split]
        if max(mine, theirs) < SAME:
            said.append(f"0.00 for both on {split}, so that the score cannot tell them apart")
            continue
        gap = difference_text(difference(standing, name, full, results.level), results)
        said.append(f"{mine:.2f} for {full} and {theirs:.2f} for {name} on {split} ({gap})")
    return [f"Scores under {CONTROL[condition]}: {'; '.join(said)}."] if said else []


def _comparisons(results: Results, here: Sequence[Pair], condition: Condition) -> list[str]:
    """What differs by the prompt under one condition, and what is not shown to."""
    if results.published:
        return _counts(here, condition)
    said = []
    for shown, how in ((True, "the prompt changes"), (False, "no change is shown in")):
        some = [f"{kind_words(p.measure)} ({_duel(p)})" for p in here if p.shown == shown]
        said += [f"{how} {joined_names(some)}"] if some else []
    return [f"Under {CONTROL[condition]}, {'; '.join(said)}."] if said else []


def _counts(here: Sequence[Pair], condition: Condition) -> list[str]:
    """On how many workloads each of two has the better mean."""
    said = [
        f"{kind_words(pair.measure)} on {len(pair.ahead)} and {len(pair.behind)}"
        for pair in here
        if pair.measure.kind is not Kind.TIME
    ]
    if not said:
        return []
    who = f"{here[0].one} and {here[0].other} have the better mean"
    number = count(max(pair.workloads for pair in here), "workload")
    return [f"Of {number} under {CONTROL[condition]}, {who}: {'; '.join(said)}."]


def _changes(results: Results, here: Sequence[Pair], condition: Condition) -> list[str]:
    """The workload on which the mean of each final value changes most in relation."""
    said = []
    for pair in (pair for pair in here if pair.measure.kind is not Kind.TIME):
        table = costs(results, pair.measure).abs()
        values = {w: (float(table[w][pair.one]), float(table[w][pair.other])) for w in table}
        change = {
            str(w): (after / before - 1, before, after)
            for w, (before, after) in values.items()
            if math.isfinite(before) and math.isfinite(after) and before > 0
        }
        if change:
            most = max(change, key=lambda w: abs(change[w][0]))
            share, before, after = change[most]
            said.append(
                f"{kind_words(pair.measure)} on {most} from {plain(before, 4)} to "
                f"{plain(after, 4)} ({signed(100 * share, 1)} %)"
            )
    if not said:
        return []
    who = f"from {here[0].one} to {here[0].other}"
    return [f"Largest change of a mean under {CONTROL[condition]}, {who}: {'; '.join(said)}."]


def _less(results: Results, full: str, name: str) -> list[str]:
    """A variant that ends earlier differs by its training, too."""
    steps: dict[str, dict[tuple[str, str], list[int]]] = {full: {}, name: {}}
    for run in results.records:
        if run.optimizer in steps and run.status == Status.FINISHED:
            steps[run.optimizer].setdefault((run.condition, run.workload), []).append(run.step)
    shares = [
        float(np.mean(steps[name][key]) / np.mean(steps[full][key]))
        for key in steps[full]
        if key in steps[name] and np.mean(steps[full][key]) > 0
    ]
    share = float(np.median(shares)) if shares else 1.0
    if share >= _LESS:
        return []
    return [
        f"{name} also ends after {100 * share:.0f} % of {full}’s updates: part of a worse final "
        "value is less training."
    ]


def _tables(results: Results, full: str, found: Sequence[Pair]) -> list[Table]:
    """Times to target by prompt, the differences of the scores, and the probabilities."""
    names = list(dict.fromkeys(pair.other for pair in found))
    times = [
        dataclasses.replace(
            time_table(one, [full, *names]),
            name=f"prompt_{one.condition}_{one.split}",
            title=f"{'Table 1: ' if one.condition == Condition.TIME else ''}"
            f"{one.unit.capitalize()} to the {one.split} target, by prompt",
        )
        for one in results.standings
        if one.split in SPLITS
        if full in one.scores.index and any(name in one.scores.index for name in names)
    ]
    shown = [_differences(results, full, names)] if times else []
    if found:
        what = f"{full} is better, by prompt"
        shown.append(measure_table("prompt_improvement", what, found))
    return [*times, *shown]


def _differences(results: Results, full: str, names: Sequence[str]) -> Table:
    """Score difference of every variant to the fully prompted one, in every standing."""
    found = [s for s in results.standings if full in s.scores.index]
    body = []
    for name in names:
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
