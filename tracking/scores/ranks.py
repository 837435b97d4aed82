"""How sensitive the ranking is to one workload and to r_max.

Pure: from a table of times to tables of ranks.

Source: Dahl et al., Benchmarking Neural Network Training Algorithms, 2023,
https://arxiv.org/abs/2306.07179 (scores depend on the set of workloads and on r_max).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from timetrial.tracking.scores.scoring import Floats, scores

ALL: Final = "none"
"""Row of ``leave_one_workload_out`` in which no workload is left out."""

_TIE: Final = 1e-12  # scores that differ by less are equal but for the order of a sum


def ranks(score: pd.Series[float]) -> pd.Series[int]:
    """Place of each optimizer: 1 is the best; equal scores share the better place.

    Args:
        score: from ``scoring.scores``; NaN comes last.

    Returns:
        The same index, name ``rank``.
    """
    values = score.fillna(-np.inf).to_numpy(dtype=np.float64)
    above = (values[None, :] > values[:, None] + _TIE).sum(axis=1)
    return pd.Series(above + 1, index=score.index, name="rank", dtype=int)


def places(score: pd.Series[float], *, larger_is_better: bool = True) -> pd.DataFrame:
    """Place of each optimizer, and whether it shares it: equal within 1e-12 is a tie.

    Args:
        score: NaN comes last and ties with nobody.
        larger_is_better: False for gaps and losses.

    Returns:
        The same index; columns ``rank`` (1 is the best, ties share the better place), ``tie``.
    """
    rank = ranks(score if larger_is_better else -score)
    return pd.DataFrame({"rank": rank, "tie": rank.duplicated(keep=False) & score.notna()})


def leave_one_workload_out(
    times: pd.DataFrame, *, r_max: float, taus: Sequence[float] | Floats | None = None
) -> pd.DataFrame:
    """Ranks by score without one workload, for each in turn.

    Args:
        times: as for ``scoring.scores``.
        r_max: as for ``scoring.scores``.
        taus: as for ``scoring.scores``.

    Returns:
        Index ``left_out``: ``none``, then each workload, sorted; columns optimizer. Ratios stay
        the same, because each is within one workload.
    """
    left_out = sorted(map(str, times.columns)) if times.shape[1] > 1 else []
    rows = {ALL: ranks(scores(times, r_max=r_max, taus=taus))}
    for workload in left_out:
        rows[workload] = ranks(scores(times.drop(columns=workload), r_max=r_max, taus=taus))
    return pd.DataFrame(rows).T.rename_axis("left_out")


def over_r_max(times: pd.DataFrame, limits: Sequence[float] | Floats) -> pd.DataFrame:
    """Ranks by score for every r_max: index ``r_max`` in the given order, columns optimizer.

    Raises:
        ValueError: a limit is not finite and > 1.
    """
    rows = {float(limit): ranks(scores(times, r_max=float(limit))) for limit in limits}
    return pd.DataFrame(rows).T.rename_axis("r_max")


def scores_over_r_max(times: pd.DataFrame, limits: Sequence[float] | Floats) -> pd.DataFrame:
    """Scores for every r_max: index ``r_max`` in the given order, columns optimizer."""
    rows = {float(limit): scores(times, r_max=float(limit)) for limit in limits}
    return pd.DataFrame(rows).T.rename_axis("r_max")


def stability(table: pd.DataFrame) -> pd.DataFrame:
    """The best and the worst rank of each optimizer in a table of ranks.

    Args:
        table: from ``leave_one_workload_out`` or ``over_r_max``; its first row is the reference.

    Returns:
        Index optimizer; columns ``rank`` (first row), ``best``, ``worst``, ``same`` (share of the
        rows with the rank of the first).
    """
    first = table.iloc[0]
    return pd.DataFrame(
        {
            "rank": first,
            "best": table.min(axis=0),
            "worst": table.max(axis=0),
            "same": (table == first).mean(axis=0),
        }
    )


def agreement(table: pd.DataFrame) -> pd.Series[float]:
    """Share of the pairs of optimizers that each row orders like the first row.

    A pair that ties in one of the two rows only counts half.

    Returns:
        Index as ``table``, values in ``[0, 1]``; NaN with fewer than two optimizers.
    """
    values = table.to_numpy(dtype=np.float64)
    upper = np.triu_indices(values.shape[1], k=1)
    signs = np.sign(values[:, :, None] - values[:, None, :])[:, upper[0], upper[1]]
    if not signs.shape[1]:
        return pd.Series(np.nan, index=table.index, name="agreement")
    same = 1 - np.abs(signs - signs[0]).mean(axis=1) / 2
    return pd.Series(same, index=table.index, name="agreement")
