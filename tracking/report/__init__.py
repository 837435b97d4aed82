"""The report of a race: score table for the terminal, HTML page, numbers, tables and plots.

Boundary: reads ``RunRecord`` only; reading stored runs is for ``tracking.read``.
"""

from __future__ import annotations

from timetrial.tracking.report.page import write_paper_report, write_report
from timetrial.tracking.report.summary import score_table_text

__all__ = ["score_table_text", "write_paper_report", "write_report"]
