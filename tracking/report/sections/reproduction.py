"""The paper's Table 3 as printed beside the scores that follow from its Tables 9-12.

Pure: from the paper's results to text and cells.
"""

from __future__ import annotations

from typing import Final

from timetrial.tracking.report.cells import Cell, Table, header, name_cell
from timetrial.tracking.report.paper import read
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, Text
from timetrial.tracking.report.standings import CONTROL

TOLERANCE: Final = 0.015
"""A printed score agrees with a computed one within this."""


def section(results: Results) -> Section | None:
    """Printed and computed scores; None for a race."""
    if not results.published:
        return None
    table, remarks = reproduction(results)
    return Section(
        name="reproduced",
        title="Table 3, reproduced",
        menu="Table 3",
        blocks=[table, *map(Text, remarks)],
    )


def reproduction(results: Results) -> tuple[Table, list[str]]:
    """Table 3, printed and computed from Tables 9-12, with remarks on the differences."""
    printed = read("scores.csv").set_index(["condition", "split", "optimizer"])["score"]
    names = [name for name in results.optimizers if name in results.standings[0].scores.index]
    body, off = [], []
    for name in names:
        cells = [name_cell(name)]
        for standing in results.standings:
            here = float(standing.scores[name])
            there = float(printed[standing.condition, standing.split, name])
            differs = abs(here - there) > TOLERANCE
            cells += [Cell(f"{there:.2f}"), Cell(f"{here:.2f}", kind="bad" if differs else "")]
            if differs:
                off.append(f"{name}, {CONTROL[standing.condition]}, {standing.split} "
                           f"({there:.2f} printed, {here:.2f} computed)")  # fmt: skip
        body.append(cells)
    head = ["optimizer", *["printed", "computed"] * len(results.standings)]
    spans = [(f"{s.split}, {CONTROL[s.condition]}", 2) for s in results.standings]
    table = Table("reproduction", "Table 3, as printed and as computed", header(*head), body, spans)
    return table, _remarks(results, len(names) * len(results.standings), off)


def _remarks(results: Results, number: int, off: list[str]) -> list[str]:
    limits = ", ".join(
        f"{value:g} under {CONTROL[condition]}"
        for condition, value in {s.condition: s.r_max for s in results.standings}.items()
    )
    lines = [
        f"The paper does not print r_max. With r_max = {limits}, {number - len(off)} of "
        f"{number} printed scores follow from Tables 9–12 to within {TOLERANCE}"
        + (f"; all but {'; '.join(off)}." if off else ".")
    ]
    if len(off) == 1 and off[0].startswith("velo_short, step control, train"):
        lines.append(
            "This is a known inconsistency of the paper, not of the computation: no r_max explains "
            "the printed 0.03 together with its column. It would follow if Table 11’s 4,057 steps "
            "of VeLO Short on Criteo were a misprint of 5,057."
        )
    return lines
