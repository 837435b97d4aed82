"""Draws the README's picture, ``docs/curves.png``, from a recorded race.

Boundary: reads a store that ``timetrial bench suite=quick`` has filled and writes one file::

    python tools/readme_picture.py runs docs/curves.png
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from tracking.query import load_runs
from tracking.report.figures import curve_groups
from tracking.report.plots import png
from tracking.report.standings import standings
from tracking.report.style import looks
from tracking.store import open_store


def main(root: str, picture: str) -> None:
    """Validation curves over charged seconds, one panel per workload."""
    records = load_runs(open_store(root=Path(root), create=False), "timetrial-quick")
    styles = looks(sorted({record.optimizer for record in records}))
    groups, _ = curve_groups(records, standings(records), styles)
    panels = [
        dataclasses.replace(panel, title=group.title.partition(",")[0])
        for group in groups
        for panel in group.panels
        if panel.title.startswith("Validation over charged seconds")
    ]
    title = "Suite quick: deciding metric on validation, mean and range over 3 seeds"
    Path(picture).write_bytes(png(panels, styles, columns=2, title=title))


if __name__ == "__main__":
    main(*sys.argv[1:])
