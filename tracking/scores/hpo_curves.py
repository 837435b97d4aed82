"""Expected best of k tuning trials, with intervals.

Pure: functions of the trials' values; the caller chooses the trials.

Sources: Dodge et al., Show Your Work: Improved Reporting of Experimental Results, 2019,
https://arxiv.org/abs/1909.03004 (the question; their estimator draws with replacement and is too
pessimistic); Tang et al., Showing Your Work Doesn't Always Work, 2020,
https://arxiv.org/abs/2004.13705 (the unbiased estimator used here: the mean over all sets of k
different trials).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from timetrial.framework.types import Direction

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class HpoCurve:
    """Expected best of every number of tuning trials.

    Attributes:
        trials: 1, 2, ..., number of trials.
        expected: expected best value, per entry of ``trials``.
        low, high: bounds of the bootstrap interval of ``expected``.
        confidence: of that interval, in (0, 1).
    """

    trials: NDArray[np.int64]
    expected: Floats
    low: Floats
    high: Floats
    confidence: float


def hpo_curve(
    values: Sequence[float],
    direction: Direction,
    *,
    bad: float | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> HpoCurve:
    """The expected best of k = 1, 2, ..., n trials, from n recorded ones.

    The interval is the percentile bootstrap over trials (Efron and Tibshirani, "An Introduction
    to the Bootstrap", 1993). It is too narrow for k near n, where every resample with the best
    trial gives the same value; read it for k up to about n / 2.

    Args:
        values: value of each trial; nan for one that diverged or failed, which counts as a trial.
        direction: whether smaller or larger values are better.
        bad: what a nan counts as; None takes the worst of the others.
        confidence: of the interval, in (0, 1).
        resamples: of the bootstrap, >= 1.
        seed: of the bootstrap.

    Raises:
        ValueError: no trial has a value, or an argument is out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a value in (0, 1), got {confidence}")
    if resamples < 1:
        raise ValueError(f"resamples: expected a whole number >= 1, got {resamples}")
    filled = _filled(values, direction, bad)
    number = len(filled)
    drawn = np.random.default_rng(seed).integers(0, number, (resamples, number))
    curves = _expected_best(filled[drawn], direction)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(curves, tails, axis=0)
    expected = _expected_best(filled[None], direction)[0]
    return HpoCurve(np.arange(1, number + 1), expected, low, high, confidence)


def expected_best(
    values: Sequence[float], k: int, direction: Direction, *, bad: float | None = None
) -> float:
    """The expected best of k trials: the mean of the best over all sets of k of the n recorded.

    With the values sorted from worst to best, v_1 ... v_n, that is the sum over i of
    ``v_i C(i - 1, k - 1) / C(n, k)``.

    Args:
        values: as in ``hpo_curve``.
        k: number of trials, in [1, n].
        direction: whether smaller or larger values are better.
        bad: as in ``hpo_curve``.

    Raises:
        ValueError: no trial has a value, or k is out of range.
    """
    filled = _filled(values, direction, bad)
    if not 1 <= k <= len(filled):
        raise ValueError(f"k: expected a number of trials in [1, {len(filled)}], got {k}")
    return float(_expected_best(filled[None], direction)[0, k - 1])


def trials_to_beat(curve: HpoCurve, reference: float, direction: Direction) -> int | None:
    """The fewest trials whose expected best is better than ``reference``; None where none are."""
    sign = _sign(direction)
    better = np.flatnonzero(sign * curve.expected > sign * reference)
    return int(curve.trials[better[0]]) if len(better) else None


def _filled(values: Sequence[float], direction: Direction, bad: float | None) -> Floats:
    array = np.asarray(values, np.float64)
    if np.isinf(array).any():
        raise ValueError("values: expected finite ones, and nan for trials without; got inf")
    known = array[~np.isnan(array)]
    if not len(known):
        raise ValueError(f"values: expected at least one that is not nan, got {len(array)} nan")
    worst = float((_sign(direction) * known).min() * _sign(direction))
    return np.asarray(np.where(np.isnan(array), worst if bad is None else bad, array))


def _expected_best(values: Floats, direction: Direction) -> Floats:
    """Expected best of 1 ... n, row by row, [rows, n]."""
    number = values.shape[-1]
    ranked = np.sort(_sign(direction) * values, axis=-1)  # worst first
    return np.asarray(_sign(direction) * (ranked @ _weights(number)))


def _weights(number: int) -> Floats:
    """Probability that the i-th worst is the best of k different ones, [i, k]."""
    logs = [math.lgamma(j + 1) for j in range(number + 1)]  # log j!

    def log_choose(n: int, k: int) -> float:
        return logs[n] - logs[k] - logs[n - k]

    weights: Floats = np.zeros((number, number))
    for k in range(1, number + 1):
        for i in range(k, number + 1):
            weights[i - 1, k - 1] = math.exp(log_choose(i - 1, k - 1) - log_choose(number, k))
    weights /= weights.sum(axis=0)
    return weights


def _sign(direction: Direction) -> float:
    return 1.0 if direction is Direction.MAXIMIZE else -1.0
