"""The first screen: who leads and how sure that is, the learning curves, the leaderboard.

Pure: from results to text, cells and panels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from timetrial.framework.types import Condition
from timetrial.tracking.report.agreement import agreement_text
from timetrial.tracking.report.cells import (
    FEW,
    NOTHING,
    Cell,
    Table,
    coverage_text,
    header,
    interval_text,
    name_cell,
)
from timetrial.tracking.report.plots import Panel
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Block, Columns, Plots, Section, Text, plots_of
from timetrial.tracking.report.sections.curves import front_panels
from timetrial.tracking.report.sections.profiles import profile_panel
from timetrial.tracking.report.standings import (
    CONTROL,
    Place,
    Standing,
    headlines,
    interval_ends,
    places,
)
from timetrial.tracking.report.summary import headline_texts, raced_text, weights_text

_UNITS: Final = {Condition.TIME: "charged seconds", Condition.STEP: "steps"}


def section(results: Results) -> Section:
    """The headline with its uncertainty, one picture and the leaderboard."""
    notes = [weights_text(results), agreement_text(results.records), raced_text(results)]
    blocks: list[Block] = [
        *(Text(text, "headline") for text in headline_texts(results)),
        *(Text(text, "note") for text in notes if text),
    ]
    if results.standings:
        blocks.append(Columns([_picture(results), _board(results)]))
    return Section(name="overview", title="", folded=False, blocks=blocks)


def _picture(results: Results) -> list[Text | Table | Plots]:
    """Learning curves of the first condition with scores, or else profiles."""
    heads = headlines(results.standings)
    panels, text = _curves(results, heads[0])
    if not panels:
        panels, text = _profiles(heads)
    plots = plots_of("overview", text.partition(";")[0], panels)
    return [Text(text, "note caption"), Plots(plots, small=True)]


def _curves(results: Results, head: Standing) -> tuple[list[Panel], str]:
    text = (
        f"{head.split.capitalize()} metric over {_UNITS[head.condition]}, mean over seeds; dashed: "
        "target"
    )
    panels = front_panels(results, head)
    return panels, text + "; ×: early end" * any(panel.marks for panel in panels)


def _profiles(heads: Sequence[Standing]) -> tuple[list[Panel], str]:
    text = (
        "Performance profiles; share of workloads on which an optimizer needs at most τ times as "
        "long as the fastest"
    )
    return [profile_panel(head) for head in heads], text


def _board(results: Results) -> list[Text | Table | Plots]:
    heads = headlines(results.standings)
    limits = [f"{head.r_max:g}" for head in heads]
    if len(heads) > 1:
        limits = [f"{head.r_max:g} ({CONTROL[head.condition]})" for head in heads]
    known = all(head.intervals is not None for head in heads)
    tables = [head.intervals.scores for head in heads if head.intervals is not None]
    covered = coverage_text(value for table in tables for value in table["coverage"])
    interval = f" with its interval over seeds ({covered})" if known else ""
    note = (
        f"Score{interval}: 1 = the fastest to the target on every workload, 0 = never within "
        f"{' or '.join(limits)} times the fastest."
    )
    if any(place.tied > 1 for head in heads for place in places(head.scores).values()):
        note += " Optimizers with equal scores share their places."
    return [board_table(results), Text(note, "note")]


def board_table(results: Results) -> Table:
    """Place, score and targets reached of every optimizer, per condition."""
    heads = headlines(results.standings)
    columns = [_cells(head, drawn=len(heads) == 1) for head in heads]
    body = [
        [name_cell(name), *(cell for cells in columns for cell in cells.get(name, [NOTHING] * 3))]
        for name in results.optimizers
    ]
    names = ["place", f"{heads[0].split} score", "targets reached"]
    spans = [(CONTROL[head.condition], len(names)) for head in heads] if len(heads) > 1 else []
    titles = header("optimizer", *names * len(heads))
    return Table("standings", "Leaderboard", titles, body, spans, kind="fit dense")


def _cells(head: Standing, *, drawn: bool) -> dict[str, list[Cell]]:
    """Place, score and targets reached of one condition, by optimizer."""
    found = {}
    ends = interval_ends(head, "scores")
    for name, place in places(head.scores).items():
        score = float(head.scores[name])
        reached = int(np.isfinite(head.times.loc[name].to_numpy()).sum())
        found[name] = [
            _place_cell(place),
            _score_cell(score, ends.get((name,), (math.nan, math.nan, False)), place, drawn),
            Cell(f"{reached} of {head.times.shape[1]}"),
        ]
    return found


def _place_cell(place: Place) -> Cell:
    return Cell(str(place), "tie" if place.tied > 1 else "")


def _score_cell(score: float, ends: tuple[float, float, bool], place: Place, drawn: bool) -> Cell:
    low, high, few = ends
    return Cell(
        f"{score:.2f}{FEW if few else ''}",
        interval_text(low, high, 2),
        kind="best" if place.first == 1 and score > 0 else "",
        span=(low, score, high) if drawn and not math.isnan(low) else None,
    )
