"""The report of a race: score table for the terminal, HTML page, numbers, tables and plots.

Boundary: reads ``RunRecord`` only; stored runs are read by ``tracking.read``. The way of a
record: ``results_of`` -> ``sections`` -> ``page``. See ``sections`` for how to add a section.
"""

from __future__ import annotations

from timetrial.tracking.report.page import write_paper_report, write_report
from timetrial.tracking.report.results import RATE_COLUMNS, ReportOptions
from timetrial.tracking.report.summary import score_table_text

__all__ = [
    "RATE_COLUMNS",
    "ReportOptions",
    "score_table_text",
    "write_paper_report",
    "write_report",
]
