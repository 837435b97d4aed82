"""Test of any difference between two optimizers, whichever of them it favours on which workload.

Pure: from trials to p-values; the same trials give the same numbers.

The probability of improvement is a mean over workloads: an optimizer that is clearly better on half
of them and clearly worse on the others is at 1/2. Whether a setting matters at all needs a test
that adds up deviations without their signs.

Sources: van Elteren, On the Combination of Independent Two Sample Tests of Wilcoxon, 1960 (one
rank test per stratum); Mann and Whitney, On a Test of Whether one of Two Random Variables is
Stochastically Larger than the Other, 1947, https://doi.org/10.1214/aoms/1177730491 (the statistic
of a stratum and its variance); Phipson and Smyth, Permutation P-values Should Never Be Zero, 2010,
https://doi.org/10.2202/1544-6115.1585 (p-values from drawn permutations).
"""

from __future__ import annotations

import itertools
import math
from typing import Final

import numpy as np
import numpy.typing as npt

from timetrial.tracking.scores.multiple import (
    DRAWS,
    Floats,
    Pairs,
    better,
    doubled_ranks,
    with_trials,
)

_MOST_SPLITS: Final = 1000  # of one workload that are listed one by one
_MOST_SUMS: Final = 200_000  # different sums over workloads
_ROUNDING: Final = 1e-12  # of probabilities


def effect(pairs: Pairs) -> float:
    """Root mean square over workloads of the probability of improvement minus 1/2.

    Args:
        pairs: per workload the costs of the trials of two optimizers, without NaN: smaller is
            better. Workloads without a trial of either are left out.

    Returns:
        In [0, 1/2]; NaN where no workload has trials of both. Without any difference it is above 0
        by chance: about ``sqrt((2 n + 1) / 12) / n`` for n trials of each.
    """
    both = with_trials(pairs)
    if not both:
        return math.nan
    deviations = [float(better(one, other).mean()) - 0.5 for one, other in both]
    return float(np.sqrt(np.mean(np.square(deviations))))


def difference_test(pairs: Pairs, *, seed: int = 0) -> float:
    """p-value of "both optimizers are equal on every workload" against any difference.

    The statistic is the sum over workloads of ``(U - n m / 2)^2 / (n m (n + m + 1) / 12)``, U being
    Mann and Whitney's. If both are equal, every way to give the trials of a workload their two
    labels is equally likely; the p-value is the share of these relabellings, over all workloads
    together, with a statistic at least as large. Exact up to 1000 splits per workload (6 trials of
    each), from ``DRAWS`` drawn relabellings beyond.

    Args:
        pairs: as for ``effect``.
        seed: of the drawn relabellings.

    Returns:
        In (0, 1]; NaN where no workload has trials of both.
    """
    both = with_trials(pairs)
    if not both:
        return math.nan
    observed = sum(_squares(_ranks(pair)[None, : len(pair[0])], pair)[0] for pair in both)
    if max(math.comb(len(one) + len(other), len(one)) for one, other in both) > _MOST_SPLITS:
        return _drawn(both, float(observed), seed)
    sums: Floats = np.zeros(1)
    shares: Floats = np.ones(1)
    for pair in both:
        values = _squares(_every_split(pair), pair)
        kinds, counts = np.unique(values, return_counts=True)
        if len(sums) * len(kinds) > _MOST_SUMS:
            return _drawn(both, float(observed), seed)
        every = np.round(sums[:, None] + kinds, 9).ravel()
        weights = (shares[:, None] * (counts / counts.sum())).ravel()
        sums, place = np.unique(every, return_inverse=True)
        shares = np.bincount(place, weights).astype(np.float64)
    return min(1.0, float(shares[sums >= observed - 1e-7].sum()))


def smallest_effect(trials: int, workloads: int, comparisons: int, level: float) -> float:
    """The smallest ``effect`` that ``difference_test`` can tell from none, without ties; exact.

    Args:
        trials: of each of the two optimizers on each workload, >= 1.
        workloads: >= 1.
        comparisons: made at once; the clearest one must reach ``(1 - level) / comparisons``.
        level: in (0, 1).

    Returns:
        In (0, 1/2]; NaN where even a complete separation on every workload is not told apart.
    """
    pairs = trials**2
    odd = pairs % 2  # of all deviations 2 U - n^2, so that their squares are 4 k + odd
    one = np.zeros((pairs**2 - odd) // 4 + 1)
    np.add.at(one, ((2 * np.arange(pairs + 1) - pairs) ** 2 - odd) // 4, _win_shares(trials))
    size = (len(one) - 1) * workloads + 1
    total = np.fft.irfft(np.fft.rfft(one, size) ** workloads, size)
    tails = np.cumsum(total[::-1])[::-1]
    shown = np.flatnonzero(tails <= (1 - level) / comparisons + _ROUNDING)
    reached = shown[total[shown] > _ROUNDING]
    if not len(reached):
        return math.nan
    return float(math.sqrt((4 * int(reached[0]) + odd * workloads) / workloads) / (2 * pairs))


def _win_shares(trials: int) -> Floats:
    """Probability of each U, 0 to n^2, without ties: the coefficients of a Gaussian binomial."""
    counts = [1] + [0] * trials**2
    for i in range(1, trials + 1):
        for u in range(trials**2, trials + i - 1, -1):
            counts[u] -= counts[u - trials - i]
        for u in range(i, trials**2 + 1):
            counts[u] += counts[u - i]
    total = math.comb(2 * trials, trials)
    return np.array([count / total for count in counts])


def _ranks(pair: tuple[Floats, Floats]) -> Floats:
    """Rank of every trial of both, ties at their mean rank; those of the first come first."""
    return np.asarray(doubled_ranks(np.concatenate(pair)) / 2, dtype=np.float64)


def _every_split(pair: tuple[Floats, Floats]) -> Floats:
    """Ranks that the first optimizer gets, one row for every split of the trials."""
    ranks = _ranks(pair)
    return np.array(list(itertools.combinations(ranks, len(pair[0]))))


def _squares(ranks: Floats, pair: tuple[Floats, Floats]) -> npt.NDArray[np.float64]:
    """Squared standardised U of every row of ranks."""
    n, m = map(len, pair)
    deviation = ranks.sum(axis=1) - n * (n + m + 1) / 2
    return np.asarray(np.round(deviation**2 / (n * m * (n + m + 1) / 12), 9))


def _drawn(pairs: Pairs, observed: float, seed: int) -> float:
    random = np.random.default_rng(seed)
    totals = np.zeros(DRAWS)
    for pair in pairs:
        ranks, n = _ranks(pair), len(pair[0])
        keys = random.random((DRAWS, len(ranks)))
        totals += _squares(ranks[np.argpartition(keys, n - 1, axis=1)[:, :n]], pair)
    return float(1 + (totals >= observed - 1e-7).sum()) / (1 + DRAWS)
