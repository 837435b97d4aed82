"""The report of a race: score table for the terminal, HTML page, numbers, tables and plots.

Boundary: reads ``RunRecord`` only; where runs are stored is the business of ``tracking.query``.
"""

from __future__ import annotations

from tracking.report.page import write_paper_report, write_report
from tracking.report.summary import score_table_text

__all__ = ["score_table_text", "write_paper_report", "write_report"]
