"""Comparison of a learned optimizer with others: score differences and their intervals.

Pure: from results to numbers and words.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numpy as np
import pandas as pd

from timetrial.tracking.report import entrants
from timetrial.tracking.report.cells import signed
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.standings import Standing

SAME: Final = 1e-12
"""Scores that differ by less are equal but for the order of a sum."""

_NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


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
    if one.low == one.high:
        return f"{text} in every resample"
    open_ = "" if one.sign else ", which includes 0"
    return f"{text}, nominal {results.level_text} interval {one.interval}{open_}"


def place_text(scores: pd.Series[float], name: str) -> str:
    """Place by score: ``place 2 of 7``, or ``a five-way tie for last of 7``."""
    mine = float(scores[name])
    ahead = int((scores > mine + SAME).sum())
    level = int((scores > mine - SAME).sum()) - ahead
    if level == 1:
        return f"place {ahead + 1} of {len(scores)}"
    number = _NUMBERS[level] if level < len(_NUMBERS) else str(level)
    end = ahead + level
    places = f"places {ahead + 1} to {end}"
    if ahead == 0:
        places = "first"
    elif end == len(scores):
        places = "last"
    return f"a {number}-way tie for {places} of {len(scores)}"


def contender(results: Results) -> str | None:
    """The learned optimizer in question: see ``entrants.contender``."""
    return entrants.contender([results.entrants[name] for name in results.optimizers])


def baselines(results: Results) -> list[str]:
    """The optimizers that are neither learned nor reference runs, from the best to the last."""
    known = ((name, results.entrants[name]) for name in results.optimizers)
    return [name for name, one in known if not (one.learned or one.is_reference)]


def fully_prompted(results: Results) -> str | None:
    """VeLO with all its steps: see ``entrants.fully_prompted``."""
    return entrants.fully_prompted(results.entrants[name] for name in results.optimizers)


def lacks(results: Results, what: str) -> str:
    """Sentence on what the results do not hold."""
    return f"{source(results)} no {what}."


def source(results: Results) -> str:
    """Beginning of a sentence on the content of the results."""
    return "the paper’s tables hold" if results.published else "these results hold"


def capital(sentence: str) -> str:
    """The sentence with a capital letter at its beginning."""
    return sentence[:1].upper() + sentence[1:]
