"""The stratified bootstrap: resampled trials of a cell, and intervals from the resamples.

Pure: arrays in, arrays out; random numbers come from a seed. ``tracking.scores.uncertainty``
chooses what is resampled.

Sources: Efron, Better Bootstrap Confidence Intervals, 1987,
https://doi.org/10.1080/01621459.1987.10478410 (percentile and BCa intervals); Davison and Hinkley,
Bootstrap Methods and their Application, 1997, https://doi.org/10.1017/CBO9780511802843 (section
5.3.2: the acceleration of several samples); Agarwal et al., Deep Reinforcement Learning at the Edge
of the Statistical Precipice, 2021, https://arxiv.org/abs/2108.13264 (runs resampled within each
task).
"""

from __future__ import annotations

import dataclasses
import statistics
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Draws = npt.NDArray[np.integer[Any]]

_NORMAL = statistics.NormalDist()
_cdf = np.vectorize(_NORMAL.cdf, otypes=[float])
_quantile = np.vectorize(_NORMAL.inv_cdf, otypes=[float])


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        samples: resamples, > 0.
        seed: of the random numbers; the same seed gives the same intervals.
        level: share of the intervals that should cover the truth, in (0, 1).
        method: ``percentile`` takes the quantiles of the resamples; ``bca`` corrects them for
            bias and skewness.
    """

    samples: int = 10_000
    seed: int = 0
    level: float = 0.95
    method: Literal["percentile", "bca"] = "percentile"

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples: expected a whole number > 0, got {self.samples}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed: expected a whole number in [0, 2**32), got {self.seed}")
        if not 0 < self.level < 1:
            raise ValueError(f"level: expected a share in (0, 1), got {self.level}")
        if self.method not in ("percentile", "bca"):
            raise ValueError(f"method: expected percentile or bca, got {self.method!r}")


def draw(trials: int, cell: Sequence[str], options: Bootstrap) -> Draws:
    """Which trials each resample takes, with replacement: shape ``(trials, samples)``.

    The numbers depend on the seed and the cell's name only, not on other cells or their order. All
    metrics of a cell use the same resamples.
    """
    name = zlib.crc32("\0".join(cell).encode())
    random = np.random.default_rng([options.seed, name])
    small = np.int8 if trials < 128 else np.intp
    return random.integers(0, trials, (trials, options.samples), dtype=small)


def median_of_draws(values: Floats, draws: Draws) -> Floats:
    """Median over the drawn trials of each resample; inf counts. Shape ``(samples,)``."""
    ordered = np.sort(values)
    ranks = np.sort(_places(values).astype(draws.dtype)[draws], axis=0)
    low, high = ranks[(len(values) - 1) // 2], ranks[len(values) // 2]
    return _middle(ordered[low], ordered[high])


def medians_without_one(values: Floats) -> Floats:
    """Median of all values but the k-th, for every k; needs two values or more."""
    ordered = np.sort(values)
    place = _places(values)
    low, high = (len(values) - 2) // 2, (len(values) - 1) // 2
    return _middle(ordered[low + (place <= low)], ordered[high + (place <= high)])


def _places(values: Floats) -> Draws:
    """The place of each value in sorted order, from 0."""
    places = np.empty(len(values), dtype=np.intp)
    places[np.argsort(values, kind="stable")] = np.arange(len(values))
    return places


def _middle(low: Floats, high: Floats) -> Floats:
    """Mean of two neighbours in order; inf where one of them is inf."""
    return np.where(low == high, low, low / 2 + high / 2)


def interval(
    samples: Floats,
    estimate: Floats,
    options: Bootstrap,
    acceleration: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Lower and upper end of the interval of each statistic.

    The ends are values of resamples (no interpolation), so that inf stays inf. NaN among the
    resamples is ignored; all NaN gives NaN.

    Args:
        samples: shape ``(..., samples)``.
        estimate: the statistic of the data themselves, shape ``(...)``.
        options: level and method.
        acceleration: for ``bca``, shape ``(...)``; NaN or None counts as 0.
    """
    shape = samples.shape[:-1]
    ordered = np.sort(samples.reshape(-1, samples.shape[-1]), axis=1)
    counts = (~np.isnan(ordered)).sum(axis=1)
    tail = (1 - options.level) / 2
    shares = np.repeat([[tail], [1 - tail]], len(ordered), axis=1)
    if options.method == "bca":
        flat = np.zeros(len(ordered)) if acceleration is None else np.ravel(acceleration)
        shares = _corrected(shares, ordered, np.ravel(estimate), counts, flat)
    places = np.clip(np.ceil(shares * counts - 1e-9).astype(int) - 1, 0, np.maximum(counts - 1, 0))
    low, high = ordered[np.arange(len(ordered)), places]
    return low.reshape(shape), high.reshape(shape)


def _corrected(
    shares: Floats, ordered: Floats, estimate: Floats, counts: Draws, acceleration: Floats
) -> Floats:
    """The quantiles of the resamples that BCa takes; a tie with the estimate counts half."""
    below = (ordered < estimate[:, None]).sum(axis=1)
    equal = (ordered == estimate[:, None]).sum(axis=1)
    total = np.maximum(counts, 1)
    share = np.clip((below + equal / 2) / total, 0.5 / total, 1 - 0.5 / total)
    bias = _quantile(share)
    normal = _quantile(shares)
    moved = bias + normal
    factor = 1 - np.nan_to_num(acceleration) * moved
    corrected: Floats = _cdf(bias + moved / np.where(factor > 0, factor, np.inf))
    return corrected


def accelerate(influences: Sequence[Floats]) -> Floats:
    """BCa's acceleration from the jackknife of several samples.

    ``a = 1/6 * sum of (l / n)^3 / (sum of (l / n)^2)^(3/2)`` with ``l[i] = (n - 1) * (mean of the
    leave-one-out statistics of the sample - the one without trial i)``.

    Args:
        influences: per sample the leave-one-out statistics, shape ``(trials, ...)``; samples of
            one trial have none.

    Returns:
        Shape ``(...)``; 0 where the statistic does not change or is not finite.
    """
    cubes: Floats | float = 0.0
    squares: Floats | float = 0.0
    for without in influences:
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = (len(without) - 1) / len(without) * (without.mean(axis=0) - without)
            cubes = cubes + (scaled**3).sum(axis=0)
            squares = squares + (scaled**2).sum(axis=0)
    spread = np.asarray(squares, dtype=np.float64) ** 1.5
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.asarray(cubes) / spread / 6
    return np.where(np.isfinite(found), found, 0.0)
