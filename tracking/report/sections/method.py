"""How to read a report: conditions, targets, times, scores, intervals, which runs count.

Pure: text.
"""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Bullets, Section, Text

_CONDITIONS: Final = Markup(
    "<b>Conditions.</b> Under time control a run ends when its charged seconds are used up, under "
    "step control after a fixed number of steps. Only training is charged."
)
_TARGET: Final = Markup(
    "<b>Target.</b> Fixed by the suite, or for each workload, split and condition: each run’s "
    "metric at 75&nbsp;% of the budget, the median over each optimizer’s seeds, and the best of "
    "these medians. Baselines and VeLO with its full prompt set targets; tuned optimizers, VeLO "
    "Short and fed VeLO do not."
)
_TIME: Final = Markup(
    "<b>Time to target.</b> The first evaluation at or beyond the target, never interpolated; the "
    "median over seeds counts “never” as infinite. A run that reaches the target and diverges "
    "later has reached it."
)
_SCORE: Final = Markup(
    "<b>Ratio, profile, score.</b> A ratio is an optimizer’s time divided by the fastest one’s on "
    "that workload. A profile is the share of workloads with a ratio of at most τ; a workload "
    "whose target no optimizer reaches stays in the denominator. The score is the exact integral "
    "of the profile from 1 to r<sub>max</sub>, divided by r<sub>max</sub>&nbsp;−&nbsp;1."
)
_INTERVALS: Final = Markup(
    "<b>Intervals.</b> Those of means are Student’s t intervals. For all others seeds are "
    "resampled with replacement within each optimizer and workload, {} times; targets stay fixed. "
    "With few seeds such an interval covers the truth less often than its nominal {}: the range of "
    "3 seeds covers a median in 75&nbsp;% of cases. So each interval comes with its true coverage, "
    "exact or simulated. The probability of improvement is the share of pairs of runs, one of each "
    "optimizer, in which the first ends better, averaged over workloads. Its p-value is that of an "
    "exact permutation test; several at once are adjusted by Holm."
)
_COUNTED: Final = Markup(
    "<b>Which runs count.</b> One per optimizer, workload, seed and condition. Finished, "
    "diverged and failed runs count; interrupted, pruned and running ones do not."
)
_SOURCES: Final = (
    ("Dolan and Moré", "cs/0102001",
     "Benchmarking Optimization Software with Performance Profiles", 2002),
    ("Dahl et al.", "2306.07179", "Benchmarking Neural Network Training Algorithms", 2023),
    ("Agarwal et al.", "2108.13264",
     "Deep Reinforcement Learning at the Edge of the Statistical Precipice", 2021),
    ("Tang et al.", "2004.13705", "Showing Your Work Doesn’t Always Work", 2020),
    ("Rezk et al.", "2310.18191", "Is Scaling Learned Optimizers Worth It?", 2023),
)  # fmt: skip
_SOURCE: Final = Markup('{}, <a href="https://arxiv.org/abs/{}">{}</a>, {}.')


def section(results: Results) -> Section:
    """Definitions of the numbers, and their sources."""
    samples = f"{results.options.bootstrap.samples:,}"
    intervals = [] if results.published else [_INTERVALS.format(samples, results.level_text)]
    items = [_CONDITIONS, _TARGET, _TIME, _SCORE, *intervals, _COUNTED]
    sources = Markup(" ").join(_SOURCE.format(*source) for source in _SOURCES)
    return Section(
        name="method",
        title="How to read this",
        menu="How to read this",
        blocks=[Bullets(items), Text(sources, "note")],
    )
