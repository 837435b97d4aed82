"""The three questions of the paper, each with the answer that these results give, and evidence.

Pure: sentences are computed from the numbers, and say where an interval leaves the answer open.

Source of the questions: Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023,
https://arxiv.org/abs/2310.18191 (section 1).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from timetrial.framework.types import Condition, Split
from timetrial.tracking.report.cells import FEW, Cell, Table, header, label, listed, signed, span
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.standings import CONTROL, Standing, headline
from timetrial.tracking.report.style import family, is_learned
from timetrial.tracking.report.tables import SAME, quality_table, score_table, time_table
from timetrial.tracking.scores.targets import CONDITIONS

FULL: Final = "velo"
_VARIANTS: Final = {
    "velo_short": "prompted with 75 % of its steps",
    "velo_feed": "fed the remaining share of the budget while it runs",
}


@dataclasses.dataclass(frozen=True)
class Answer:
    """One question: its number and wording, the answer in one sentence, and the evidence."""

    number: int
    question: str
    sentence: str
    tables: Sequence[Table]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Score of one optimizer minus that of another, and its interval (NaN = not known)."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval is on one side of no difference, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def answers(results: Results) -> list[Answer]:
    """The three questions, answered as far as the results allow."""
    return [_prompt(results), _quality(results), _speed(results)]


def difference(standing: Standing, one: str, other: str, level: float = 0.95) -> Difference:
    """Score of ``one`` minus score of ``other``, with the percentile interval of the resamples.

    In each resample both scores are of the same race, so that what they share cancels out.
    """
    value = float(standing.scores[one] - standing.scores[other])
    if standing.intervals is None:
        return Difference(value, math.nan, math.nan)
    samples = standing.intervals.score_samples
    drawn = samples.loc[one].to_numpy() - samples.loc[other].to_numpy()
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Difference(value, float(low), float(high))


def _prompt(results: Results) -> Answer:
    question = "How sensitive is VeLO to its prompt, the number of steps it is told of?"
    full, others = _find(results, FULL), {key: _find(results, key) for key in _VARIANTS}
    found = [s for s in results.standings if full in s.scores.index]
    standing = headline(found, Condition.TIME) or headline(found, Condition.STEP)
    present = [name for name in others.values() if standing and name in standing.scores.index]
    if full is None or standing is None or not present:
        lacking = "VeLO" if full is None else listed(list(_VARIANTS))
        return Answer(1, question, f"{_source(results)} no scored runs of {lacking}, so "
                      "they cannot answer it.", [])  # fmt: skip
    parts, signs = [], []
    for key, name in others.items():
        if name is None or name not in present:
            parts.append(f"there are no scored runs of it {_VARIANTS[key]}")
            continue
        found_difference = difference(standing, name, full, results.level)
        signs.append(found_difference.sign)
        parts.append(
            f"{_VARIANTS[key]} it scores {standing.scores[name]:.2f} "
            f"({_worded(found_difference, results)})"
        )
    verdict = "" if standing.intervals is None else "Yes, it is: " if any(signs) else "Not shown: "
    sentence = (
        f"{verdict}under {CONTROL[standing.condition]}, VeLO prompted with all its steps scores "
        f"{standing.scores[full]:.2f} on {standing.split}; {'; '.join(parts)}."
    )
    variants = [full, *(name for name in others.values() if name)]
    tables = [
        dataclasses.replace(
            time_table(one, variants, title=_table_1_title(one)),
            name=f"prompt_{one.condition}_{one.split}",
        )
        for one in results.standings
        if one.condition == standing.condition
    ]
    return Answer(1, question, _capital(sentence), [*tables, _differences(results, full, variants)])


def _table_1_title(standing: Standing) -> str:
    unit = standing.unit.capitalize()
    return f"Table 1: {unit} to the {standing.split} target, by prompt"


def _differences(results: Results, full: str, variants: Sequence[str]) -> Table:
    """Score of every variant minus that of the fully prompted one, in every standing."""
    found = [s for s in results.standings if full in s.scores.index]
    body = []
    for name in variants[1:]:
        cells = [label(name)]
        for standing in found:
            if name not in standing.scores.index:
                cells.append(Cell("–", kind="none"))
                continue
            one = difference(standing, name, full, results.level)
            cells.append(Cell(signed(one.value), _signed_span(one)))
        body.append(cells)
    heads = [f"{s.split}, {CONTROL[s.condition]}" for s in found]
    title = f"Score minus that of {full}"
    return Table("prompt_differences", title, header("optimizer", *heads), body)


def _quality(results: Results) -> Answer:
    name = contender(results)
    question = f"Does {name or 'VeLO'} end with better quality than each baseline?"
    conditions = [
        c for c in (Condition.STEP, Condition.TIME) if (results.quality["condition"] == c).any()
    ]
    baselines = [one for one in results.optimizers if not is_learned(one)]
    if name is None or not baselines or not conditions:
        lacking = "a learned optimizer" if name is None else "a baseline that has ended"
        return Answer(2, question, f"{_source(results)} no runs of {lacking}, so they cannot "
                      "answer it.", [])  # fmt: skip
    chosen = next((c for c in conditions if _has(results, c, name)), conditions[0])
    losses = quality_table(
        results,
        results.quality[
            (results.quality["condition"] == chosen) & (results.quality["metric"] == "loss")
        ],
        name=f"loss_{chosen}",
        title=f"Table 2: final loss, {CONTROL[chosen]}",
        with_split=True,
    )
    tables = [losses] if len(losses.header) > 1 else []
    if results.improvement.empty:
        counted = _better_means(results, chosen, name, baselines)
        return Answer(2, question, counted, tables)
    sentence = _improvement_sentence(results, chosen, name, baselines)
    return Answer(2, question, sentence, [*tables, _improvements(results, name, baselines)])


def _has(results: Results, condition: Condition, name: str) -> bool:
    table = results.quality
    return bool(((table["condition"] == condition) & (table["optimizer"] == name)).any())


def _better_means(
    results: Results, condition: Condition, name: str, baselines: Sequence[str]
) -> str:
    """Where only means are known: on how many workloads the contender's is the better one."""
    table = results.quality
    deciding = table["workload"].map(results.metrics) == table["metric"]
    here = table[
        (table["condition"] == condition) & (table["split"] == Split.VALIDATION) & deciding
    ]
    means = here.pivot(index="workload", columns="optimizer", values="mean")
    parts = []
    for other in (one for one in baselines if one in means):
        both = means[[name, other]].dropna()
        wins = sum(
            one != two and results.directions[w, results.metrics[w]].best([one, two]) == one
            for w, one, two in both.itertuples(name=None)
        )
        parts.append(f"{other}’s on {wins} of {len(both)}")
    return (
        f"Under {CONTROL[condition]}, {name}’s mean final validation metric is better than "
        f"{listed(parts)} workloads; single trials are not published, so these differences have "
        "no intervals."
    )


def _improvement_sentence(
    results: Results, condition: Condition, name: str, baselines: Sequence[str]
) -> str:
    table = results.improvement
    split = next(s for s in table.loc[table["condition"] == condition, "split"])
    rows = table[
        (table["condition"] == condition) & (table["split"] == split) & (table["optimizer"] == name)
    ].set_index("other")
    groups: dict[str, list[str]] = {"better than": [], "worse than": [], "not told apart from": []}
    for other in (one for one in baselines if one in rows.index):
        low, high = float(rows.loc[other, "low"]), float(rows.loc[other, "high"])
        where = (
            "better than" if low > 0.5 else "worse than" if high < 0.5 else "not told apart from"
        )
        groups[where].append(f"{other} ({rows.loc[other, 'probability']:.2f})")
    said = [f"{how} {listed(names)}" for how, names in groups.items() if names]
    if not said:
        return f"{_source(results)} no workload with final metrics of both {name} and a baseline."
    level = f"{results.level:.0%}".replace("%", " %")
    return (
        f"Under {CONTROL[condition]}, on the final {split} metrics {name} is {'; '.join(said)} "
        f"(in brackets: the probability that its run is the better one; “not told apart” means "
        f"that the {level} interval contains 0.5)."
    )


def _improvements(results: Results, name: str, baselines: Sequence[str]) -> Table:
    """Probability that a run of the contender ends better than one of each baseline."""
    table = results.improvement[results.improvement["optimizer"] == name]
    columns = list(dict.fromkeys(zip(table["condition"], table["split"], strict=True)))
    cells = {
        (row["condition"], row["split"], row["other"]): Cell(
            f"{row['probability']:.2f}{FEW if row['few'] else ''}",
            span(row["low"], row["high"], 2),
            kind="best" if row["low"] > 0.5 else "bad" if row["high"] < 0.5 else "",
        )
        for row in table.to_dict("records")
    }
    none = Cell("–", kind="none")
    body = [
        [label(other), *(cells.get((*column, other), none) for column in columns)]
        for other in baselines
    ]
    heads = [f"{split}, {CONTROL[condition]}" for condition, split in columns]
    title = f"Probability that {name} ends better, by baseline"
    return Table("improvement", title, header("baseline", *heads), body)


def _speed(results: Results) -> Answer:
    name = contender(results)
    question = f"Is {name or 'VeLO'} faster to the target than the baselines?"
    heads = [head for c in CONDITIONS if (head := headline(results.standings, c)) is not None]
    tables = [score_table(results)] if heads else []
    scored = [head for head in heads if name in head.scores.index]
    if name is None or not scored:
        lacking = "a learned optimizer" if name is None else f"{name} with a score"
        return Answer(3, question, f"{_source(results)} no runs of {lacking}, so they cannot "
                      "answer it.", tables)  # fmt: skip
    said = "; ".join(_place(head, name, results) for head in scored)
    return Answer(3, question, _capital(f"{said}."), tables)


def _place(standing: Standing, name: str, results: Results) -> str:
    scores = standing.scores
    mine = float(scores[name])
    where = f"under {CONTROL[standing.condition]}, {name} scores {mine:.2f} on {standing.split}"
    if standing.intervals is not None:
        ends = standing.intervals.scores.set_index("optimizer")[["low", "high"]]
        low, high = map(float, ends.loc[name])
        where += f" ({span(low, high, 2)})"
    place = int((scores > mine + SAME).sum()) + 1
    where += f", place {place} of {len(scores)}"
    baselines = scores[[one for one in scores.index if not is_learned(str(one))]]
    if baselines.empty:
        return f"{where}, with no baseline to compare it with"
    if not scores.max() > 0:
        return f"{where}: nobody reaches a target"
    rival = str(baselines.idxmax())
    gap = difference(standing, name, rival, results.level)
    relation = "level with" if abs(gap.value) < SAME else "ahead of" if gap.value > 0 else "behind"
    return (
        f"{where}, {relation} the best baseline, {rival} with {baselines.max():.2f} "
        f"({_worded(gap, results)})"
    )


def contender(results: Results) -> str | None:
    """The learned optimizer in question: VeLO, or else the best learned one that there is."""
    learned = [name for name in results.optimizers if is_learned(name)]
    return _find(results, FULL) or next(iter(learned), None)


def _find(results: Results, wanted: str) -> str | None:
    return next((name for name in sorted(results.optimizers) if family(name) == wanted), None)


def _worded(one: Difference, results: Results) -> str:
    text = f"difference {signed(one.value)}"
    if math.isnan(one.low):
        return text
    level = f"{results.level:.0%}".replace("%", " %")
    if one.low == one.high == 0:
        return f"{text} in every resample"
    open_ = "" if one.sign else ", which includes no difference"
    return f"{text}, {level} interval {_signed_span(one)}{open_}"


def _signed_span(one: Difference) -> str:
    return "" if math.isnan(one.low) else f"{signed(one.low)} to {signed(one.high)}"


def _source(results: Results) -> str:
    return "The paper’s tables have" if results.published else "These results have"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
