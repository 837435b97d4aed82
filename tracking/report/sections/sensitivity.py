"""How the scores depend on the choice of targets, setters and r_max: one figure.

Pure: from results to panels; the numbers come from ``tracking.scores.sensitivity``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.tracking.report.plots import SHARE_LIMITS, SHARE_TICKS, Line, Panel
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Plot, Plots, Section, Text
from timetrial.tracking.report.standings import CONTROL, Standing, headlines
from timetrial.tracking.scores.fixed_targets import without_targets
from timetrial.tracking.scores.sensitivity import sensitivity

_FREE: Final = ("share", "setter")  # kinds that need targets set by the race
_PANELS: Final = {
    "share": ("Targets at another share of the budget", "share of the budget"),
    "relaxed": ("Relaxed targets", "part of the way back to the untrained model"),
    "setter": ("One optimizer sets no target", "left out"),
    "r_max": ("Another r_max", "r_max"),
}


def section(results: Results) -> Section | None:
    """One figure per condition; none without recorded runs."""
    heads = headlines(results.standings)
    if not results.records or not heads:
        return None
    tables, plots = [], []
    for head in heads:
        table = _variants(results, head)
        title = f"Scores on {head.split} under other choices, {CONTROL[head.condition]}"
        panels = [panel(table, kind) for kind in _PANELS if (table["kind"] == kind).any()]
        plots.append(Plot(f"sensitivity_{head.condition}", title, panels))
        table.insert(0, "condition", head.condition)
        table.insert(1, "split", head.split)
        tables.append(table)
    return Section(
        name="sensitivity",
        title="Sensitivity of the scores",
        menu="Sensitivity",
        blocks=[Text(_text(tables)), Plots(plots)],
        frames={"sensitivity": pd.concat(tables, ignore_index=True)},
    )


def _variants(results: Results, head: Standing) -> pd.DataFrame:
    """The variants of ``sensitivity``; of fixed targets also those of targets set by the race."""

    def of(records: Sequence[RunRecord]) -> pd.DataFrame:
        return sensitivity(
            records,
            split=head.split,
            condition=head.condition,
            r_max=head.r_max,
            setters=results.options.setters,
        )

    table = of(results.records)
    if set(_FREE) & set(table["kind"]):
        return table
    free = of(without_targets(results.records))
    return pd.concat([table, free[free["kind"].isin(_FREE)]], ignore_index=True)


def panel(table: pd.DataFrame, kind: str) -> Panel:
    """Score of every optimizer over the variants of one kind.

    Args:
        table: of ``sensitivity``.
        kind: one of its kinds but ``chosen``.
    """
    here = table[table["kind"] == kind]
    labels = list(dict.fromkeys(here["label"]))
    numbered = kind == "setter"
    lines = []
    for name, rows in here.groupby("optimizer"):
        ordered = rows.set_index("label").loc[labels]
        x = np.arange(len(labels), dtype=float) if numbered else ordered["value"].to_numpy(float)
        lines.append(Line(str(name), x, ordered["score"].to_numpy(float)))
    title, x_label = _PANELS[kind]
    return Panel(
        title=title,
        x_label="; ".join(f"{i}: {label}" for i, label in enumerate(labels))
        if numbered
        else x_label,
        y_label="score",
        lines=lines,
        y_limits=SHARE_LIMITS,
        y_ticks=SHARE_TICKS,
        whole_x=numbered,
    )


def _text(tables: list[pd.DataFrame]) -> str:
    """How many variants have which leader."""
    every = pd.concat(tables)
    first = every[every["rank"] == 1]
    variants = every.groupby(["condition", "kind", "label"]).ngroups
    counts = first.groupby("optimizer").size().sort_values(ascending=False, kind="stable")
    leads = ", ".join(f"{name} in {number}" for name, number in counts.items())
    return (
        f"Each point scores the same runs with one choice changed. Of {variants} variants, leaders "
        f"are: {leads}; a shared lead counts for each. Where all targets are fixed, those at other "
        "shares and without a setter are set by this race instead."
    )
