"""The null test: gaps between scores that chance alone gives with this suite.

Pure: from results to text and cells; the numbers come from ``tracking.scores.null_test``.
"""

from __future__ import annotations

import pandas as pd

from timetrial.tracking.report.cells import Cell, Table, header, name_cell, per_cents
from timetrial.tracking.report.comparison import chance_text
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, Text, captioned
from timetrial.tracking.report.standings import CONTROL
from timetrial.tracking.scores.null_test import QUANTILES


def section(results: Results) -> Section | None:
    """A sentence and a row per condition; none without recorded runs."""
    if not results.null_tests:
        return None
    said = [
        Text(f"Under {CONTROL[condition]}, {chance_text(found, results.level)}.")
        for condition, found in results.null_tests.items()
    ]
    return Section(
        name="chance",
        title="What chance alone gives",
        menu="Chance",
        blocks=[
            Text(
                "If all optimizers were the same, the labels of the runs of one workload and seed "
                "could be exchanged. The gaps of races with exchanged labels show what chance "
                "alone gives with these workloads, seeds, budgets and targets."
            ),
            *said,
            *captioned([_table(results)]),
        ],
        frames={"null_test": null_frame(results)},
    )


def _table(results: Results) -> Table:
    body = [
        [
            name_cell(CONTROL[condition]),
            Cell(what),
            Cell(f"{gap:.2f}"),
            *(Cell(f"{limit:.2f}") for limit in found.limits(key).values()),
            Cell(f"{p_value:.3f}"),
        ]
        for condition, found in results.null_tests.items()
        for what, key, gap, p_value in (
            ("first to second", "lead", found.lead, found.lead_p_value),
            ("first to last", "spread", found.spread, found.spread_p_value),
        )
    ]
    quantiles = [f"{per_cents([q])} of chance" for q in QUANTILES]
    head = header("control", "gap between scores", "found", *quantiles, "p")
    return Table("null_test", "Gaps between scores, found and by chance", head, body)


def null_frame(results: Results) -> pd.DataFrame:
    """Columns condition, gap, found, p_value, permutations and one per quantile."""
    rows = [
        {
            "condition": condition,
            "gap": key,
            "found": gap,
            "p_value": p_value,
            "permutations": found.permutations,
            **{f"quantile_{q:g}": limit for q, limit in found.limits(key).items()},
        }
        for condition, found in results.null_tests.items()
        for key, gap, p_value in (
            ("lead", found.lead, found.lead_p_value),
            ("spread", found.spread, found.spread_p_value),
        )
    ]
    return pd.DataFrame(rows)
