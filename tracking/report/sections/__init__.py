"""The sections of a report, in the order of reading.

Boundary: a section turns results into text, tables, plots and numbers; ``page`` writes them.

A new section is one file and one line: ``sections/NAME.py`` with a function
``section(results: Results) -> Section | None`` (None leaves the section out), and its place in
``SECTIONS``. The page, its menu, the CSV, LaTeX, Markdown, PNG and SVG files follow from what the
function returns; names of sections, tables, plots and frames must be new.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section
from timetrial.tracking.report.sections import (
    aggregates,
    beside_paper,
    chance,
    curves,
    improvement,
    method,
    notes,
    overview,
    paper_tables,
    profiles,
    prompt,
    protocol,
    quality,
    reproduction,
    runs,
    schedules,
    scores,
    sensitivity,
    setup,
    stability,
    times,
    tuning,
)

SECTIONS: Final[tuple[Callable[[Results], Section | None], ...]] = (
    overview.section,
    prompt.section,
    improvement.section,
    scores.section,
    aggregates.section,
    chance.section,
    notes.section,
    protocol.section,
    reproduction.section,
    times.section,
    quality.section,
    beside_paper.section,
    profiles.section,
    curves.section,
    schedules.section,
    tuning.section,
    sensitivity.section,
    stability.section,
    runs.section,
    setup.section,
    paper_tables.section,
    method.section,
)
