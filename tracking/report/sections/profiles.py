"""Performance profiles: share of workloads over the factor to the fastest optimizer.

Pure: from standings to text, panels and numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup

from timetrial.tracking.report.plots import SHARE_LIMITS, SHARE_TICKS, Line, Panel
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Plots, Section, Text, plots_of
from timetrial.tracking.report.standings import Standing
from timetrial.tracking.scores.scoring import performance_profile


def section(results: Results) -> Section:
    """One profile per condition and split."""
    panels = map(profile_panel, results.standings)
    return Section(
        name="profiles",
        title="Performance profiles (figures 3–6)",
        menu="Profiles",
        blocks=[
            Text(
                "Share of the workloads on which an optimizer needs at most τ times as long as the "
                "fastest one. The score is the mean height of the line."
            ),
            Plots(plots_of("profiles", "Performance profiles", panels)),
            Text(
                Markup(
                    "Lines that would coincide are drawn slightly apart. Thick lines are learned "
                    'optimizers.<span class="screen-hint"> Click a name to hide or show it in '
                    "every plot; point at a line for its values.</span>"
                ),
                "note",
            ),
        ],
        frames={"profiles": profile_frame(results.standings)},
    )


def profile_panel(standing: Standing) -> Panel:
    """Performance profiles: share of workloads over the factor to the fastest, up to r_max."""
    lines = []
    for name in standing.ratios.index:
        ratios = np.sort(standing.ratios.loc[name].to_numpy())
        inside = ratios[ratios <= standing.r_max]
        heights = np.arange(len(inside) + 1) / max(len(ratios), 1)
        x = np.concatenate([[1.0], inside, [standing.r_max]])
        lines.append(Line(str(name), x, np.append(heights, heights[-1])))
    return Panel(
        title=standing.heading,
        x_label=f"τ: at most τ times the {standing.unit} of the fastest",
        y_label="share of workloads",
        lines=lines,
        x_limits=(1.0, standing.r_max),
        y_limits=SHARE_LIMITS,
        y_ticks=SHARE_TICKS,
        steps=True,
        apart=0.006,
    )


def profile_frame(standings: Sequence[Standing]) -> pd.DataFrame:
    """Columns condition, split, optimizer, tau, share: every step of every profile to r_max."""
    rows = []
    for s in standings:
        ratios = s.ratios.to_numpy()
        taus = sorted({1.0, s.r_max, *ratios[ratios <= s.r_max].tolist()})
        for name, shares in performance_profile(s.times, taus).iterrows():
            rows += [(s.condition, s.split, name, *pair) for pair in shares.items()]
    return pd.DataFrame(rows, columns=["condition", "split", "optimizer", "tau", "share"])
