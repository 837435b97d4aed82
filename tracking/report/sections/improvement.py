"""Question 2 of the paper: does the learned optimizer reach better final quality.

Pure: the answer is computed from final metrics and their intervals.

Source: Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023,
https://arxiv.org/abs/2310.18191 (section 1).
"""

from __future__ import annotations

from collections.abc import Sequence

from timetrial.framework.types import Condition, Split
from timetrial.tracking.report.cells import (
    FEW,
    NOTHING,
    Cell,
    Table,
    header,
    interval_text,
    joined_names,
    name_cell,
)
from timetrial.tracking.report.comparison import (
    baselines,
    cannot_answer,
    contender,
    source,
)
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, Text, captioned
from timetrial.tracking.report.sections.quality import quality_table
from timetrial.tracking.report.standings import CONTROL


def section(results: Results) -> Section:
    """The question, its answer, final losses and the probability of improvement."""
    name = contender(results)
    answer, tables = _answer(results, name)
    return Section(
        name="question-2",
        title=f"2. Does {name or 'VeLO'} reach better final quality than each baseline?",
        blocks=[Text(answer, "answer"), *captioned(tables)],
        frames={"improvement": results.improvement},
    )


def _answer(results: Results, name: str | None) -> tuple[str, list[Table]]:
    conditions = [
        c for c in (Condition.STEP, Condition.TIME) if (results.quality["condition"] == c).any()
    ]
    others = baselines(results)
    if name is None or not others or not conditions:
        lacking = "a learned optimizer" if name is None else "a baseline that has ended"
        return cannot_answer(results, f"runs of {lacking}"), []
    chosen = next((c for c in conditions if _has(results, c, name)), conditions[0])
    losses = _losses(results, chosen)
    tables = [losses] if len(losses.header) > 1 else []
    if results.improvement.empty:
        return _better_means(results, chosen, name, others), tables
    sentence = _improvement_sentence(results, chosen, name, others)
    return sentence, [*tables, _improvements(results, name, others)]


def _has(results: Results, condition: Condition, name: str) -> bool:
    table = results.quality
    return bool(((table["condition"] == condition) & (table["optimizer"] == name)).any())


def _losses(results: Results, condition: Condition) -> Table:
    table = results.quality
    return quality_table(
        results,
        table[(table["condition"] == condition) & (table["metric"] == "loss")],
        name=f"loss_{condition}",
        title=f"Table 2: final loss, {CONTROL[condition]}",
        with_split=True,
    )


def _better_means(results: Results, condition: Condition, name: str, others: Sequence[str]) -> str:
    """Number of workloads with a better mean, for results without single trials."""
    table = results.quality
    deciding = table["workload"].map(results.metrics) == table["metric"]
    here = table[
        (table["condition"] == condition) & (table["split"] == Split.VALIDATION) & deciding
    ]
    means = here.pivot(index="workload", columns="optimizer", values="mean")
    parts = []
    for other in (one for one in others if one in means):
        both = means[[name, other]].dropna()
        wins = sum(
            one != two and results.directions[w, results.metrics[w]].best([one, two]) == one
            for w, one, two in both.itertuples(name=None)
        )
        parts.append(f"{other}’s on {wins} of {len(both)}")
    return (
        f"Under {CONTROL[condition]}, {name}’s mean final validation metric is better than "
        f"{joined_names(parts)} workloads; single trials are not published, so these differences "
        "have no intervals."
    )


def _improvement_sentence(
    results: Results, condition: Condition, name: str, others: Sequence[str]
) -> str:
    table = results.improvement
    split = next(s for s in table.loc[table["condition"] == condition, "split"])
    rows = table[
        (table["condition"] == condition) & (table["split"] == split) & (table["optimizer"] == name)
    ].set_index("other")
    groups: dict[str, list[str]] = {
        "better than": [],
        "worse than": [],
        "not distinguished from": [],
    }
    for other in (one for one in others if one in rows.index):
        low, high = float(rows.loc[other, "low"]), float(rows.loc[other, "high"])
        where = (
            "better than" if low > 0.5 else "worse than" if high < 0.5 else "not distinguished from"
        )
        groups[where].append(f"{other} ({rows.loc[other, 'probability']:.2f})")
    said = [f"{how} {joined_names(names)}" for how, names in groups.items() if names]
    if not said:
        return f"{source(results)} no workload with final metrics of both {name} and a baseline."
    return (
        f"Under {CONTROL[condition]}, on the final {split} metrics {name} is {'; '.join(said)} "
        f"(in brackets: the probability that its run ends better; “not distinguished” means "
        f"that the {results.level_text} interval contains 0.5)."
    )


def _improvements(results: Results, name: str, others: Sequence[str]) -> Table:
    """Probability that a run of the learned optimizer ends better, by baseline."""
    table = results.improvement[results.improvement["optimizer"] == name]
    columns = list(dict.fromkeys(zip(table["condition"], table["split"], strict=True)))
    cells = {
        (row["condition"], row["split"], row["other"]): Cell(
            f"{row['probability']:.2f}{FEW if row['few'] else ''}",
            interval_text(row["low"], row["high"], 2),
            kind="best" if row["low"] > 0.5 else "bad" if row["high"] < 0.5 else "",
        )
        for row in table.to_dict("records")
    }
    body = [
        [name_cell(other), *(cells.get((*column, other), NOTHING) for column in columns)]
        for other in others
    ]
    heads = [f"{split}, {CONTROL[condition]}" for condition, split in columns]
    title = f"Probability that {name} ends better, by baseline"
    return Table("improvement", title, header("baseline", *heads), body)
