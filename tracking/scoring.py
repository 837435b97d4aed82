"""Performance ratios, performance profiles and scores of a race, from a table of times.

Pure: tables in, tables out; no I/O, no clock, no random numbers. How the times come from recorded
runs is the business of ``tracking.targets``.

A table of times has one row per optimizer and one column per workload; each value is the time
until the target, in seconds or in steps. ``inf`` and NaN both mean that it was never reached.
The order of rows and columns never changes a number; results keep the order of their input.

Sources: Dolan and More, Benchmarking optimization software with performance profiles, 2002,
https://arxiv.org/abs/cs/0102001 (ratios and profiles); Dahl et al., Benchmarking Neural Network
Training Algorithms, 2023, https://arxiv.org/abs/2306.07179 (the score, AlgoPerf); Rezk et al.,
Is Scaling Learned Optimizers Worth It?, 2023, https://arxiv.org/abs/2310.18191 (section 5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]


def performance_ratios(times: pd.DataFrame) -> pd.DataFrame:
    """How many times longer each optimizer takes than the fastest one on that workload.

    ``r[a, w] = t[a, w] / min over a of t[a, w]``. Ties for the best all get 1. A workload that
    nobody reaches gives ``inf`` to everyone and keeps its column, so that it still counts in the
    denominator of profiles and scores, as in AlgoPerf. Where the best time is 0 (the target is
    reached before the first update), the optimizers at 0 get 1 and all others ``inf``.

    Args:
        times: index optimizer, columns workload, values in seconds or steps, >= 0; ``inf`` or
            NaN = never.

    Returns:
        A table of the same shape and order with values in ``[1, inf]``, never NaN.

    Raises:
        TypeError: ``times`` is no DataFrame of numbers.
        ValueError: a negative time, or an optimizer or a workload that occurs twice.
    """
    values = _checked(times)
    best = values.min(axis=0, initial=np.inf)
    comparable = np.isfinite(best) & (best > 0)
    with np.errstate(divide="ignore", over="ignore"):
        ratios = values / np.where(comparable, best, 1.0)
    ratios = np.where(comparable, ratios, np.where(np.isfinite(best) & (values == best), 1, np.inf))
    return pd.DataFrame(ratios, index=times.index, columns=times.columns)


def performance_profile(times: pd.DataFrame, taus: Sequence[float] | Floats) -> pd.DataFrame:
    """Share of the workloads on which an optimizer is within a factor ``tau`` of the fastest.

    ``rho[a, tau] = (number of workloads w with r[a, w] <= tau) / (number of workloads)``.

    Args:
        times: as for ``performance_ratios``.
        taus: factors, in any order; below 1 the profile is 0.

    Returns:
        Index optimizer, columns ``taus`` as given, values in ``[0, 1]``; NaN if there is no
        workload at all, because a share of nothing has no value.

    Raises:
        TypeError, ValueError: as for ``performance_ratios``, or ``taus`` is no list of numbers.
    """
    grid = _checked_taus(taus)
    reached = performance_ratios(times).to_numpy()[:, :, None] <= grid
    shares = reached.mean(axis=1) if times.shape[1] else np.full((len(times), len(grid)), np.nan)
    return pd.DataFrame(shares, index=times.index, columns=pd.Index(grid, name="tau"))


def scores(
    times: pd.DataFrame, *, r_max: float, taus: Sequence[float] | Floats | None = None
) -> pd.Series[float]:
    """Mean height of each optimizer's performance profile between 1 and ``r_max``.

    ``B[a] = 1 / (r_max - 1) * integral from 1 to r_max of rho[a, tau] d tau``: 1 is the fastest on
    every workload, 0 is never within a factor ``r_max`` of the fastest.

    Args:
        times: as for ``performance_ratios``.
        r_max: upper limit of the integral, finite and > 1. AlgoPerf uses 4; 3 (seconds) and 1.5
            (steps) reproduce the paper.
        taus: ``None`` integrates exactly. Otherwise the trapezoid rule over these increasing
            factors from 1 to ``r_max``; AlgoPerf's grid is ``numpy.linspace(1, 4, 100)``.

    Returns:
        Index optimizer, name ``score``, values in ``[0, 1]``; NaN if there is no workload.

    Raises:
        TypeError, ValueError: as for ``performance_ratios``; or ``r_max`` is not above 1; or
            ``taus`` does not increase from 1 to ``r_max``.
    """
    if not (isinstance(r_max, (int, float, np.number)) and 1 < r_max < math.inf):
        raise ValueError(f"r_max: expected a finite number > 1, got {r_max!r}")
    if taus is None:
        # A workload at ratio r adds a step of height 1/n from tau = r to tau = r_max.
        lengths = np.maximum(r_max - performance_ratios(times).to_numpy(), 0.0)
        means = lengths.mean(axis=1) if times.shape[1] else np.full(len(times), np.nan)
        return pd.Series(means / (r_max - 1), index=times.index, name="score")
    grid = _checked_taus(taus)
    if len(grid) < 2 or (np.diff(grid) <= 0).any():
        raise ValueError(f"taus: expected at least two increasing factors, got {grid.tolist()}")
    if not np.allclose(grid[[0, -1]], [1.0, r_max], rtol=1e-9, atol=0.0):
        raise ValueError(
            f"taus: expected a grid from 1 to r_max={r_max}, got one from {grid[0]} to {grid[-1]}"
        )
    profile = performance_profile(times, grid).to_numpy()
    areas = np.trapezoid(profile, grid, axis=1)
    return pd.Series(areas / (grid[-1] - grid[0]), index=times.index, name="score")


def _checked(times: pd.DataFrame) -> Floats:
    """The values of a table of times, NaN read as never."""
    if not isinstance(times, pd.DataFrame):
        raise TypeError(
            "times: expected a pandas DataFrame (index optimizer, columns workload), "
            f"got {type(times).__name__}"
        )
    for axis, labels in (("optimizer", times.index), ("workload", times.columns)):
        if not labels.is_unique:
            twice = sorted({str(label) for label in labels[labels.duplicated()]})
            raise ValueError(f"times: each {axis} must occur once, got twice: {', '.join(twice)}")
    try:
        values = times.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise TypeError(f"times: expected numbers (inf or NaN = never), got {error}") from error
    if (values < 0).any():
        row, column = np.argwhere(values < 0)[0]
        raise ValueError(
            f"times: expected seconds or steps >= 0, got {values[row, column]} for "
            f"{times.index[row]} on {times.columns[column]}"
        )
    return np.where(np.isnan(values), np.inf, values)


def _checked_taus(taus: Sequence[float] | Floats) -> Floats:
    grid = np.asarray(taus, dtype=np.float64)
    if grid.ndim != 1 or np.isnan(grid).any():
        raise ValueError(f"taus: expected a list of numbers without NaN, got {taus!r}")
    return grid
