"""Comparison of a learned optimizer with others: score differences and their intervals.

Pure: from results to numbers and words.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numpy as np

from timetrial.tracking.report import entrants
from timetrial.tracking.report.cells import joined_names, per_cents, signed
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.standings import Standing
from timetrial.tracking.scores.null_test import NullTest

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
    if one not in samples.index or other not in samples.index:  # no run of it counts
        return Difference(value, math.nan, math.nan)
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


def chance_text(found: NullTest, level: float) -> str:
    """Whether the leader's gap exceeds what chance gives, a sentence without its full stop."""
    leaders = joined_names(found.leaders)
    if len(found.leaders) > 1:
        return f"{leaders} tie for the first place, so there is no lead to test"
    exceeds = found.lead_p_value <= 1 - level
    verdict = "is more than chance gives" if exceeds else "may be chance"
    limit, share = found.limits("lead").get(level), per_cents([level])
    chance = "" if limit is None else f"; chance alone gives up to {limit:.2f} in {share}"
    return f"{leaders}’s lead of {found.lead:.2f} {verdict} (p = {found.lead_p_value:.3f}{chance})"


def contender(results: Results) -> str | None:
    """The learned optimizer in question: see ``entrants.contender``."""
    return entrants.contender([results.entrants[name] for name in results.optimizers])


def baselines(results: Results) -> list[str]:
    """The optimizers that are neither learned nor reference runs, from the best to the last.

    Reference runs are the baselines of a race that has no others: is it better than tuned ones?
    """
    known = [(name, results.entrants[name]) for name in results.optimizers]
    made_by_hand = [(name, one) for name, one in known if not one.learned]
    untuned = [name for name, one in made_by_hand if not one.is_reference]
    return untuned or [name for name, _ in made_by_hand]


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
