"""Tests of equality, and what several of them at once allow to say.

Pure: from trials to p-values; the same trials give the same numbers.

Sources: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979,
https://www.jstor.org/stable/4615733 (adjusted p-values); Mann and Whitney, On a Test of Whether one
of Two Random Variables is Stochastically Larger than the Other, 1947,
https://doi.org/10.1214/aoms/1177730491 (the statistic); van Elteren, On the Combination of
Independent Two Sample Tests of Wilcoxon, 1960 (one such test per stratum, added up); Streitberg
and Roehmel, Exact Distributions for Permutation and Rank Tests, 1986 (the shift algorithm: the
exact distribution with ties); Phipson and Smyth, Permutation P-values Should Never Be Zero, 2010,
https://doi.org/10.2202/1544-6115.1585 (p-values from drawn permutations).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Pairs = Sequence[tuple[Floats, Floats]]
"""Per workload the costs of the trials of two optimizers: smaller is better, inf is the worst."""

Key = TypeVar("Key")

DRAWS: Final = 20_000
"""Permutations drawn where counting all of them takes too long."""

_ROUNDING: Final = 1e-12  # p-values are sums of probabilities
_LARGEST_COUNT: Final = 10**8  # additions that counting may take, about a second
_LARGEST_LATTICE: Final = 10**6  # different sums of shares


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Adjusted p-values of several comparisons: Holm's step-down procedure.

    With the p-values in increasing order, ``adjusted[i] = max over j <= i of min(1, (m - j + 1) *
    p[j])``. Calling different what has an adjusted p-value of at most 0.05 is wrong anywhere among
    the ``m`` comparisons with a probability of at most 0.05, whatever their dependence.

    Args:
        p_values: by comparison, in [0, 1]; NaN marks a comparison that was not made: it does not
            count in ``m`` and stays NaN.

    Returns:
        The same keys in the same order.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    for key, p_value in p_values.items():
        if not (math.isnan(p_value) or 0 <= p_value <= 1):
            raise ValueError(f"p_values: expected values in [0, 1], got {p_value} for {key!r}")
    made = sorted((p, place) for place, p in enumerate(p_values.values()) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for done, (p_value, place) in enumerate(made):
        largest = max(largest, min(1.0, (len(made) - done) * p_value))
        adjusted[place] = largest
    return dict(zip(p_values, adjusted, strict=True))


def permutation_test(pairs: Pairs, *, seed: int = 0) -> float:
    """Two-sided p-value of "both optimizers are equal on every workload".

    The statistic is the probability of improvement: the mean over workloads of the share of pairs
    of trials in which the first optimizer is better, a tie counting half (Mann and Whitney's U /
    (n1 n2)). If both are equal, every way to give the trials of a workload their two labels is
    equally likely. The p-value is the share of these relabellings, over all workloads together,
    that lie at least as far from 1/2 as the data. It needs no assumption on distributions.

    It is exact: the splits of each workload are counted with the shift algorithm, and the
    distribution of the sum over workloads is their convolution. Only where that takes more than
    about a second (some hundred trials per workload, or very uneven numbers of trials) are
    ``DRAWS`` relabellings drawn; then ``p = (1 + hits) / (1 + DRAWS)``.

    Args:
        pairs: costs by workload, without NaN; workloads without a trial of either are left out.
        seed: of the drawn relabellings.

    Returns:
        In (0, 1]; NaN where no workload has trials of both.
    """
    both = with_trials(pairs)
    if not both:
        return math.nan
    ranks = [doubled_ranks(np.concatenate(pair)) for pair in both]
    sizes = [(len(one), len(other)) for one, other in both]
    unit = math.lcm(*(2 * n * m for n, m in sizes))
    wins = [int(_doubled_wins(r[:n].sum(), n, m)) for r, (n, m) in zip(ranks, sizes, strict=True)]
    scales = [unit // (2 * n * m) for n, m in sizes]
    distance = abs(2 * sum(w * s for w, s in zip(wins, scales, strict=True)) - len(both) * unit)
    count = sum(len(r) * n * int(r.sum()) for r, (n, _) in zip(ranks, sizes, strict=True))
    if count > _LARGEST_COUNT or unit * len(both) > _LARGEST_LATTICE:
        return _drawn(ranks, sizes, scales, distance, seed)
    total = np.ones(1)
    for rank, (n, m), scale in zip(ranks, sizes, scales, strict=True):
        total = np.convolve(total, _spread(_win_distribution(tuple(sorted(rank)), n, m), scale))
    far = np.abs(2 * np.arange(len(total)) - len(both) * unit) >= distance
    return min(1.0, float(total[far].sum()))


def smallest_difference(
    trials: int, workloads: int, comparisons: int = 1, level: float = 0.95
) -> float:
    """The smallest probability of improvement that a race of this size can tell from 1/2.

    Of ``comparisons`` made at once, the clearest one must reach ``(1 - level) / comparisons``
    (Holm's first step) in ``permutation_test``. The result is the smallest estimate above 1/2 that
    does, without ties; its mirror image below 1/2 is ``1 -`` the result.

    Args:
        trials: of each of the two optimizers on each workload, >= 1.
        workloads: >= 1.
        comparisons: >= 1.
        level: 1 - the accepted probability of any false statement, in (0, 1).

    Returns:
        In (1/2, 1]; NaN where even an optimizer that wins every pair of trials is not told apart:
        3 trials on 1 workload give ``p = 0.1`` then.

    Raises:
        ValueError: an argument out of range.
    """
    for name, value in (("trials", trials), ("workloads", workloads), ("comparisons", comparisons)):
        if value < 1:
            raise ValueError(f"{name}: expected a whole number >= 1, got {value}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a share in (0, 1), got {level}")
    ranks = tuple(range(2, 4 * trials + 1, 2))
    one = _win_distribution(ranks, trials, trials)[::2]
    total = np.ones(1)
    for _ in range(workloads):
        total = np.convolve(total, one)
    tails = 2 * np.cumsum(total[::-1])[::-1]  # index: pairs won
    pairs = len(total) - 1
    shown = tails * comparisons <= 1 - level + _ROUNDING
    shown[: pairs // 2 + 1] = False
    return float(np.argmax(shown) / pairs) if shown.any() else math.nan


def better(one: Floats, other: Floats) -> Floats:
    """Which trials of one beat which of the other: 1, or 1/2 at a tie; shape ``(n, m)``.

    Args:
        one: costs, shape ``(n,)``.
        other: costs, shape ``(m,)``.
    """
    return np.asarray((one[:, None] < other) + (one[:, None] == other) / 2, dtype=np.float64)


def with_trials(pairs: Pairs) -> list[tuple[Floats, Floats]]:
    """The workloads on which both optimizers have trials."""
    return [(one, other) for one, other in pairs if len(one) and len(other)]


def doubled_ranks(costs: Floats) -> npt.NDArray[np.int64]:
    """Twice the rank of each cost, ties at their mean rank: whole numbers."""
    below = (costs[:, None] > costs).sum(axis=1)
    equal = (costs[:, None] == costs).sum(axis=1)
    return np.asarray(2 * below + equal + 1, dtype=np.int64)


def _doubled_wins(rank_sum: npt.NDArray[np.int64], mine: int, theirs: int) -> npt.NDArray[np.int64]:
    """Twice the pairs won, a tie counting half, from the sum of one's doubled ranks."""
    return np.asarray(2 * mine * theirs + mine * (mine + 1) - rank_sum)


@functools.lru_cache(maxsize=4096)
def _win_distribution(ranks: tuple[int, ...], mine: int, theirs: int) -> Floats:
    """Probability of each ``_doubled_wins``, 0 to ``2 * mine * theirs``, over all splits.

    Shift algorithm: ``ways[k, s]`` is the number of sets of k trials with the sum of ranks s.
    """
    ways = np.zeros((mine + 1, sum(ranks) + 1))
    ways[0, 0] = 1
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, :-rank].copy()
    sums = np.arange(mine * (mine + 1), mine * (mine + 1) + 2 * mine * theirs + 1)
    counts = ways[mine, sums][::-1]
    shares: Floats = counts / counts.sum()
    return shares


def _spread(distribution: Floats, scale: int) -> Floats:
    """The distribution of ``scale`` times the variable."""
    spread = np.zeros((len(distribution) - 1) * scale + 1)
    spread[::scale] = distribution
    return spread


def _drawn(
    ranks: Sequence[npt.NDArray[np.int64]],
    sizes: Sequence[tuple[int, int]],
    scales: Sequence[int],
    distance: int,
    seed: int,
) -> float:
    """The p-value from ``DRAWS`` random relabellings."""
    random = np.random.default_rng(seed)
    totals = np.zeros(DRAWS)  # in units of one half: sums stay below 2**53
    for rank, (n, m), scale in zip(ranks, sizes, scales, strict=True):
        block = max(1, 10**6 // len(rank))
        for start in range(0, DRAWS, block):
            keys = random.random((min(block, DRAWS - start), len(rank)))
            chosen = np.argpartition(keys, n - 1, axis=1)[:, :n]
            wins = _doubled_wins(rank[chosen].sum(axis=1), n, m)
            totals[start : start + block] += (wins - n * m) * float(2 * scale)
    hits = int((np.abs(totals) >= distance * (1 - _ROUNDING)).sum())
    return (1 + hits) / (1 + DRAWS)
