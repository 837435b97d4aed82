"""AlgoPerf's scoring rules as options, one set per leaderboard.

Pure: data only; ``tracking.scores.algoperf`` applies them.

Sources: Dahl et al., Benchmarking Neural Network Training Algorithms, 2023,
https://arxiv.org/abs/2306.07179; Kasimbeg et al., Accelerating Neural Network Training: An
Analysis of the AlgoPerf Competition, 2025, https://arxiv.org/abs/2502.15015; rules and scorer of
https://github.com/mlcommons/algorithmic-efficiency (docs/DOCUMENTATION.md, scoring/), which moved
to https://github.com/mlcommons/submissions_algorithms (scoring/) in June 2026.

Common to the rules of 2023 (``FORK``: the tree that the VeLO paper started from) and those of the
leaderboards (``V05``, ``V06``, ``V2``): a target is reached at ``<=`` or ``>=``, NaN never reaches
it, a miss is inf, the profile is integrated by trapezoids over 100 factors. Differences:

====================  ===========================  ============================================
piece                 2023                         leaderboards
====================  ===========================  ============================================
time of a workload    best of all trials           best trial of each study, median over studies
largest factor        the largest finite ratio     4
4 times the best      no rule                      beyond it, a time is inf before the ratios
held-out variants     none                         a miss on a variant is a miss on its workload
denominator           workloads in the table       base workloads: 8; 9 in ``V2``
====================  ===========================  ============================================

Text and code of the leaderboards differ: the text takes the trial with the smallest time of each
study; the code takes the one whose evaluation at the target has the smallest number
(``best_trial="evaluation"``), ties in the file system's order. Here ties go to the smaller time.
The published scores of the first two leaderboards, all 19, follow the code so read; by the smallest
time, some of the first leaderboard's change by up to 0.005.

The third leaderboard, ``V2``, is not on the repository's page yet. Its scorer's output is published
beside its logs: results/time_to_targets.csv and results/scores.csv of the branches a100_scoring
(46e69f1b, 25 June 2026, 17 submissions) and aliu_scoring_plots (a6cbad48, 12 June 2026, 16), all
self-tuning. Both follow from those times to the last digit. By the rules of eight workloads they
would be off by up to 0.078 and 0.098. No results of its external tuning were found.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Final, Literal

from timetrial.tracking.scores.algoperf_workloads import (
    BASE_V05,
    BASE_V2,
    HELD_OUT_V05,
    RUNTIMES_V05,
    RUNTIMES_V06,
    RUNTIMES_V2,
)


@dataclasses.dataclass(frozen=True)
class Rules:
    """How times are chosen and scored.

    Attributes:
        workloads: the base workloads. They are the columns that are scored; their number is the
            denominator, whether somebody ran them or not. None takes the table's own.
        variants: held-out variants of the base workloads. None takes every other column as one.
        cutoff: times above this multiple of the best of their workload are inf, or None.
        r_max: largest factor of the integral; None takes the largest finite ratio.
        points: points of the trapezoid rule, evenly spaced from 1 to ``r_max``; None is exact.
        log_scale: points spaced evenly in log10 of the factor, and integrated over that.
        best_trial: which trial of a study counts: the one with the smallest ``time``, or with the
            smallest number of the ``evaluation`` at the target (ties: the smaller time).
        by_study: median over the best trials of the studies; False takes the best of all trials.
        studies, trials: how many a submission must have; used by ``shortfalls`` only.
        runtimes: longest allowed seconds by workload; used by ``leaderboard``'s speed-ups only.
    """

    workloads: tuple[str, ...] | None = None
    variants: tuple[str, ...] | None = ()
    cutoff: float | None = 4.0
    r_max: float | None = 4.0
    points: int | None = 100
    log_scale: bool = False
    best_trial: Literal["time", "evaluation"] = "time"
    by_study: bool = True
    studies: int = 3
    trials: int = 5
    runtimes: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.r_max is not None and not 1 < self.r_max < math.inf:
            raise ValueError(f"r_max: expected a finite number > 1 or None, got {self.r_max}")
        if self.points is not None and self.points < 2:
            raise ValueError(f"points: expected at least 2 or None, got {self.points}")
        if self.points is None and self.log_scale:
            raise ValueError("log_scale: expected a number of points, got points=None")
        if self.cutoff is not None and not self.cutoff >= 1:
            raise ValueError(f"cutoff: expected a multiple >= 1 or None, got {self.cutoff}")
        if self.best_trial not in ("time", "evaluation"):
            raise ValueError(f"best_trial: expected time or evaluation, got {self.best_trial!r}")


V05: Final = Rules(
    BASE_V05, HELD_OUT_V05, best_trial="evaluation", studies=5, runtimes=RUNTIMES_V05
)
"""The first leaderboard (2024): 8 workloads, 6 held-out variants, 5 studies of 5 trials."""

V06: Final = Rules(BASE_V05, None, best_trial="evaluation", runtimes=RUNTIMES_V06)
"""The second leaderboard (2025): 8 workloads, no variants, 3 studies of 5 trials.

As in its scorer, every other workload that was run counts as a variant; its logs hold no other.
"""

V2: Final = Rules(BASE_V2, None, best_trial="evaluation", runtimes=RUNTIMES_V2)
"""The third leaderboard (scored since 2026): 9 workloads, no variants, 3 studies of 5 trials.

As in its scorer, every other workload that was run counts as a variant.
"""

FORK: Final = Rules(
    None, (), cutoff=None, r_max=None, best_trial="evaluation", by_study=False, studies=1
)
"""The scorer of mid-2023."""


def self_tuning(rules: Rules, factor: float) -> Rules:
    """The self-tuning rules that go with rules of external tuning: one trial, longer runtimes."""
    runtimes = {w: factor * seconds for w, seconds in (rules.runtimes or {}).items()}
    return dataclasses.replace(rules, trials=1, runtimes=runtimes or None)


V05_SELF: Final = self_tuning(V05, 3)
"""The first leaderboard for self-tuning submissions."""

V06_SELF: Final = self_tuning(V06, 1.5)
"""The second leaderboard for self-tuning submissions."""

V2_SELF: Final = self_tuning(V2, 1.5)
"""The third leaderboard for self-tuning submissions; its logs end at 1.5 times the runtimes."""

RULES: Final[Mapping[str, Rules]] = {
    "algoperf-v2": V2,
    "algoperf-v2-self": V2_SELF,
    "algoperf-v0.6": V06,
    "algoperf-v0.6-self": V06_SELF,
    "algoperf-v0.5": V05,
    "algoperf-v0.5-self": V05_SELF,
    "algoperf-2023": FORK,
}
"""Rules by name, the newest first."""

ALIASES: Final[Mapping[str, str]] = {
    "algoperf": "algoperf-v2",
    "algoperf-self": "algoperf-v2-self",
    "algoperf-v06": "algoperf-v0.6",
    "algoperf-v06-self": "algoperf-v0.6-self",
    "algoperf-v05": "algoperf-v0.5",
    "algoperf-v05-self": "algoperf-v0.5-self",
    **{name.removeprefix("algoperf-"): name for name in RULES},
}
"""Other names of the rules: those without a version are the newest leaderboard's."""
