"""Draws the README's picture, ``docs/curves.png``, from a recorded race.

Boundary: reads the store of ``timetrial bench suite=quick`` and writes one file::

    python tools/readme_picture.py runs docs/curves.png
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.report.entrants import entrants_of
from timetrial.tracking.report.plots import files
from timetrial.tracking.report.sections.curves import curve_plots
from timetrial.tracking.report.standings import standings
from timetrial.tracking.report.style import looks
from timetrial.tracking.store.opening import open_store


def main(root: str, picture: str) -> None:
    """Validation curves over charged seconds, one panel per workload."""
    records = load_runs(open_store(root=Path(root), create=False), "timetrial-quick")
    entrants = entrants_of(records)
    styles = looks(entrants.keys(), entrants)
    plots, _ = curve_plots(records, standings(records))
    panels = [
        dataclasses.replace(panel, title=plot.title.partition(",")[0])
        for plot in plots
        for panel in plot.panels
        if panel.title.startswith("Validation over charged seconds")
    ]
    title = "Suite quick: deciding metric on validation, mean and range over 3 seeds"
    Path(picture).write_bytes(files(panels, styles, columns=2, title=title)["png"])


if __name__ == "__main__":
    main(*sys.argv[1:])
