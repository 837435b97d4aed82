"""Performance ratios, performance profiles and scores of a race, from a table of times.

Pure: tables in, tables out; no I/O, no clock, no random numbers. ``tracking.scores.targets`` makes
tables of times from recorded runs.

A table of times has one row per optimizer and one column per workload; each value is the time to
target, in seconds or in steps. ``inf`` and NaN both mean never. The order of rows and columns
never changes a number; results keep the order of their input.

Sources: Dolan and More, Benchmarking optimization software with performance profiles, 2002,
https://arxiv.org/abs/cs/0102001 (ratios and profiles); Dahl et al., Benchmarking Neural Network
Training Algorithms, 2023, https://arxiv.org/abs/2306.07179 (the score, AlgoPerf); Rezk et al.,
Is Scaling Learned Optimizers Worth It?, 2023, https://arxiv.org/abs/2310.18191 (section 5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]


def performance_ratios(times: pd.DataFrame) -> pd.DataFrame:
    """How many times longer each optimizer takes than the fastest one on that workload.

    ``r[a, w] = t[a, w] / min over a of t[a, w]``. All ties for the best get 1. A workload whose
    target nobody reaches gives ``inf`` to all and keeps its column: as in AlgoPerf, it counts in
    the denominator of profiles and scores. Where the best time is 0 (the target is reached before
    the first update), the optimizers at 0 get 1 and all others ``inf``.

    Args:
        times: index optimizer, columns workload, values in seconds or steps, >= 0; ``inf`` or
            NaN = never.

    Returns:
        A table of the same shape and order with values in ``[1, inf]``, never NaN.

    Raises:
        TypeError: ``times`` is no DataFrame of numbers.
        ValueError: a negative time, or an optimizer or a workload that occurs twice.
    """
    return pd.DataFrame(
        ratios_to_best(checked_times(times), axis=0), index=times.index, columns=times.columns
    )


def ratios_to_best(values: Floats, axis: int) -> Floats:
    """``performance_ratios`` of arrays: ``values`` without NaN, optimizers along ``axis``."""
    best = values.min(axis=axis, initial=np.inf, keepdims=True)
    comparable = np.isfinite(best) & (best > 0)
    with np.errstate(divide="ignore", over="ignore"):
        ratios = values / np.where(comparable, best, 1.0)
    at_best = np.isfinite(best) & (values == best)
    return np.where(comparable, ratios, np.where(at_best, 1.0, np.inf))


def performance_profile(times: pd.DataFrame, taus: Sequence[float] | Floats) -> pd.DataFrame:
    """Share of the workloads on which an optimizer is within a factor ``tau`` of the fastest.

    ``rho[a, tau] = (number of workloads w with r[a, w] <= tau) / (number of workloads)``.

    Args:
        times: as for ``performance_ratios``.
        taus: factors, in any order; below 1 the profile is 0.

    Returns:
        Index optimizer, columns ``taus`` as given, values in ``[0, 1]``; NaN without a workload.

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

    ``B[a] = 1 / (r_max - 1) * integral from 1 to r_max of rho[a, tau] d tau``: 1 means the fastest
    on every workload, 0 means never within a factor ``r_max`` of the fastest.

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
    heights = areas(performance_ratios(times).to_numpy(), r_max=r_max, taus=taus)
    means = heights.mean(axis=1) if times.shape[1] else np.full(len(times), np.nan)
    return pd.Series(means, index=times.index, name="score")


def areas(ratios: Floats, *, r_max: float, taus: Sequence[float] | Floats | None = None) -> Floats:
    """Contribution of each ratio to its optimizer's score, the mean over the workloads.

    A workload at ratio r raises the profile from ``tau = r`` on: exactly ``(r_max - r) /
    (r_max - 1)``; over a grid, the trapezoid of the step from the first ``tau >= r`` on.

    Args:
        ratios: of any shape, in ``[1, inf]``.
        r_max: as for ``scores``.
        taus: as for ``scores``.

    Returns:
        The same shape, values in ``[0, 1]``.
    """
    if not (isinstance(r_max, (int, float, np.number)) and 1 < r_max < math.inf):
        raise ValueError(f"r_max: expected a finite number > 1, got {r_max!r}")
    if taus is None:
        return np.maximum(r_max - ratios, 0.0) / (r_max - 1)
    grid = _checked_taus(taus)
    if len(grid) < 2 or (np.diff(grid) <= 0).any():
        raise ValueError(f"taus: expected at least two increasing factors, got {grid.tolist()}")
    if not np.allclose(grid[[0, -1]], [1.0, r_max], rtol=1e-9, atol=0.0):
        raise ValueError(
            f"taus: expected a grid from 1 to r_max={r_max}, got one from {grid[0]} to {grid[-1]}"
        )
    # Row k is the profile of a workload that is reached from grid[k] on; the last one never is.
    steps = (np.arange(len(grid)) >= np.arange(len(grid) + 1)[:, None]).astype(float)
    lifted = np.trapezoid(steps, grid, axis=1) / (grid[-1] - grid[0])
    heights: Floats = lifted[np.searchsorted(grid, ratios, side="left")]
    return heights


def wins(times: pd.DataFrame) -> pd.Series[int]:
    """Number of workloads on which an optimizer is the fastest; all that tie for it count.

    Args:
        times: as for ``performance_ratios``.

    Returns:
        Index optimizer, name ``wins``.
    """
    first = (performance_ratios(times).to_numpy() == 1).sum(axis=1)
    return pd.Series(first, index=times.index, name="wins", dtype=int)


def speedups(
    times: pd.DataFrame, baseline: str, *, budgets: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """How many times faster than a baseline: the geometric mean over the workloads.

    ``speedup[a] = exp(mean over w of log(t[baseline, w] / t[a, w]))``; above 1 is faster than the
    baseline. AlgoPerf prints the inverse, the mean of ``t[a, w] / t[baseline, w]``.

    Args:
        times: as for ``performance_ratios``.
        baseline: which optimizer to compare with.
        budgets: by workload, the time that never counts as; AlgoPerf takes the longest allowed
            runtime plus one second. Without it, workloads that either of the two never reaches
            are left out, which favours the one that fails.

    Returns:
        Index optimizer; columns ``speedup`` (NaN without a workload to compare on) and
        ``workloads``, the number of workloads compared.

    Raises:
        KeyError: no such baseline, or a workload without a budget.
        TypeError, ValueError: as for ``performance_ratios``.
    """
    values = checked_times(times)
    if baseline not in times.index:
        raise KeyError(f"baseline: expected one of {', '.join(times.index)}, got {baseline!r}")
    if budgets is not None:
        missing = [str(w) for w in times.columns if w not in budgets]
        if missing:
            raise KeyError(f"budgets: expected one for every workload, got none for {missing}")
        limits = np.array([float(budgets[w]) for w in times.columns])
        values = np.where(np.isinf(values), limits, values)
    base = values[times.index.get_loc(baseline)]
    both = np.isfinite(values) & np.isfinite(base)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(both & (values != base), np.log(base) - np.log(values), 0.0)
        means = np.exp(logs.sum(axis=1) / both.sum(axis=1))
    return pd.DataFrame({"speedup": means, "workloads": both.sum(axis=1)}, index=times.index)


def checked_times(times: pd.DataFrame) -> Floats:
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
