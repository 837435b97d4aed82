"""The null test: gaps between scores that chance alone gives with this suite.

Pure: from results to text and cells; the numbers come from ``tracking.scores.null_test``.
"""

from __future__ import annotations

import pandas as pd

from timetrial.tracking.report.cells import Cell, Table, header, joined_names, name_cell
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Section, Text, captioned
from timetrial.tracking.report.standings import CONTROL
from timetrial.tracking.scores.null_test import QUANTILES, NullTest


def section(results: Results) -> Section | None:
    """A sentence and a row per condition; none without recorded runs."""
    if not results.null_tests:
        return None
    said = [
        Text(f"Under {CONTROL[condition]}, {sentence(found, results.level)}.")
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


def sentence(found: NullTest, level: float) -> str:
    """Whether the leader's gap exceeds what chance gives, without a full stop."""
    leaders = joined_names(found.leaders)
    limit = _quantiles(found, "lead").get(level)
    chance = "" if limit is None else f"; chance alone gives up to {limit:.2f} in {level:.0%}"
    if len(found.leaders) > 1:
        return f"{leaders} tie for the first place, so there is no lead to test"
    exceeds = found.lead_p_value <= 1 - level
    verdict = "is more than chance gives" if exceeds else "may be chance"
    return f"{leaders}’s lead of {found.lead:.2f} {verdict} (p = {found.lead_p_value:.3f}{chance})"


def _table(results: Results) -> Table:
    body = [
        [
            name_cell(CONTROL[condition]),
            Cell(what),
            Cell(f"{gap:.2f}"),
            *(Cell(f"{limit:.2f}") for limit in _quantiles(found, key).values()),
            Cell(f"{p_value:.3f}"),
        ]
        for condition, found in results.null_tests.items()
        for what, key, gap, p_value in (
            ("first to second", "lead", found.lead, found.lead_p_value),
            ("first to last", "spread", found.spread, found.spread_p_value),
        )
    ]
    quantiles = [f"{q:.0%} of chance" for q in QUANTILES]
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
            **{f"quantile_{q:g}": limit for q, limit in _quantiles(found, key).items()},
        }
        for condition, found in results.null_tests.items()
        for key, gap, p_value in (
            ("lead", found.lead, found.lead_p_value),
            ("spread", found.spread, found.spread_p_value),
        )
    ]
    return pd.DataFrame(rows)


def _quantiles(found: NullTest, gap: str) -> dict[float, float]:
    """Gaps that chance exceeds with probability 1 - q, by q."""
    limits = found.quantiles.loc[gap].to_numpy(dtype=float)
    return dict(zip(QUANTILES, map(float, limits), strict=True))
