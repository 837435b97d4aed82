"""Comparison of a learned optimizer with others: score differences and their intervals.

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
        """1 or -1 where the whole interval is above or below 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    @property
    def interval(self) -> str:
        """The interval in words; empty when it is not known."""
        return "" if math.isnan(self.low) else f"{signed(self.low)} to {signed(self.high)}"


def difference(standing: Standing, one: str, other: str, level: float = 0.95) -> Difference:
    """Score of ``one`` minus score of ``other``, with the percentile interval of the resamples.

    Both scores of a resample are of the same race, so that common variation cancels.
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
    open_ = "" if one.sign else ", which includes 0"
    return f"{text}, {results.level_text} interval {one.interval}{open_}"


def contender(results: Results) -> str | None:
    """The learned optimizer in question: VeLO where it was raced, else the best learned one."""
    learned = (name for name in results.optimizers if results.entrants[name].learned)
    return fully_prompted(results) or next(learned, None)


def baselines(results: Results) -> list[str]:
    """The optimizers that are not learned, from the best to the last."""
    return [name for name in results.optimizers if not results.entrants[name].learned]


def fully_prompted(results: Results) -> str | None:
    """The first learned optimizer prompted with all its steps: VeLO as the paper runs it."""
    known = (results.entrants[name] for name in sorted(results.optimizers))
    return next((one.label for one in known if one.learned and one.is_full), None)


def cannot_answer(results: Results, lacking: str) -> str:
    """Sentence for a question without the runs that it needs."""
    return f"{source(results)} no {lacking}: the question stays open."


def source(results: Results) -> str:
    """Beginning of a sentence on the content of the results."""
    return "The paper’s tables hold" if results.published else "These results hold"


def capital(sentence: str) -> str:
    """The sentence with a capital letter at its beginning."""
    return sentence[:1].upper() + sentence[1:]
