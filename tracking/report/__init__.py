"""The report of a race: score table for the terminal, HTML page, numbers, tables and plots.

Boundary: reads ``RunRecord`` only; reading stored runs is for ``tracking.read``. A record goes
``results_of`` -> ``sections`` -> ``page``; how to add a section is said in ``sections``.
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
