"""Compares a learned optimizer with others: which one is meant, differences and their intervals.

Pure: from results to numbers and words.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numpy as np

from timetrial.tracking.report.cells import signed
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.standings import Standing
from timetrial.tracking.report.style import family, is_learned

FULL: Final = "velo"
SAME: Final = 1e-12
"""Scores that differ by less are equal but for the order of a sum."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Score of one optimizer minus that of another, and its interval (NaN = not known)."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval is on one side of no difference, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    @property
    def interval(self) -> str:
        """The interval in words; empty when it is not known."""
        return "" if math.isnan(self.low) else f"{signed(self.low)} to {signed(self.high)}"


def difference(standing: Standing, one: str, other: str, level: float = 0.95) -> Difference:
    """Score of ``one`` minus score of ``other``, with the percentile interval of the resamples.

    In each resample both scores are of the same race, so that what they share cancels out.
    """
    value = float(standing.scores[one] - standing.scores[other])
    if standing.intervals is None:
        return Difference(value, math.nan, math.nan)
    samples = standing.intervals.score_samples
    drawn = samples.loc[one].to_numpy() - samples.loc[other].to_numpy()
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Difference(value, float(low), float(high))


def difference_text(one: Difference, results: Results) -> str:
    """A difference with its interval, in words."""
    text = f"difference {signed(one.value)}"
    if math.isnan(one.low):
        return text
    if one.low == one.high == 0:
        return f"{text} in every resample"
    open_ = "" if one.sign else ", which includes no difference"
    return f"{text}, {results.level_text} interval {one.interval}{open_}"


def contender(results: Results) -> str | None:
    """The learned optimizer in question: VeLO, or else the best learned one that there is."""
    learned = [name for name in results.optimizers if is_learned(name)]
    return find(results, FULL) or next(iter(learned), None)


def baselines(results: Results) -> list[str]:
    """The optimizers that are not learned, from the best to the last."""
    return [name for name in results.optimizers if not is_learned(name)]


def find(results: Results, wanted: str) -> str | None:
    """The first optimizer of a family."""
    return next((name for name in sorted(results.optimizers) if family(name) == wanted), None)


def cannot_answer(results: Results, lacking: str) -> str:
    """Says that the results hold too little to answer a question."""
    return f"{source(results)} no {lacking}, so they cannot answer it."


def source(results: Results) -> str:
    """The beginning of a sentence on what the results hold."""
    return "The paper’s tables have" if results.published else "These results have"


def capital(sentence: str) -> str:
    """The sentence with a capital letter at its beginning."""
    return sentence[:1].upper() + sentence[1:]
