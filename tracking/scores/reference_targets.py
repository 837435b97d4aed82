"""Reference targets: levels of a metric, set once from many runs, for a suite's later races.

Pure: from recorded runs to a table; ``tracking.scores.fixed_targets`` reads the table's file.

A target that the race itself sets at its best optimizer's level is reached by few others, and the
score then says who set it. A reference target is the level of the median optimizer, so about half
of the optimizers reach it whoever they are, and no seed of a race sets its own target.

Sources: Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023,
https://arxiv.org/abs/2310.18191 (section 5: metrics at 75 % of the budget, medians over trials);
Dahl et al., Benchmarking Neural Network Training Algorithms, 2023,
https://arxiv.org/abs/2306.07179 (targets are set once, by reference algorithms).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from timetrial.framework.budget import TARGET_SHARE
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Split
from timetrial.tracking.scores.targets import SPLITS, optimizer_levels


def reference_targets(
    records: Sequence[RunRecord],
    *,
    condition: Condition,
    at: float = TARGET_SHARE,
    setters: Collection[str] | None = None,
) -> pd.DataFrame:
    """The level of the median setter after a share of the budget, per split and workload.

    Args:
        records: runs, in any order; other conditions are ignored.
        condition: ``time`` or ``step``.
        at: share of the budget, in (0, 1].
        setters: as for ``targets.target_table``.

    Returns:
        Columns split, workload, target, optimizers and trials (the fewest of an optimizer), sorted;
        splits without an evaluation are left out.

    Raises:
        ValueError: as for ``targets.target_table``, or a level that is not finite.
    """
    rows = []
    for split in SPLITS:
        levels = optimizer_levels(records, split=split, condition=condition, at=at, setters=setters)
        for workload, seeds in levels.items():
            if not seeds or not _evaluated(records, workload, split):
                continue
            medians = [float(np.median(values)) for values in seeds.values()]
            target = float(np.median(medians))
            if not np.isfinite(target):
                raise ValueError(f"{workload}, {split}: expected finite levels, got {target}")
            fewest = min(map(len, seeds.values()))
            rows.append((split.value, workload, target, len(medians), fewest))
    return pd.DataFrame(rows, columns=["split", "workload", "target", "optimizers", "trials"])


def _evaluated(records: Sequence[RunRecord], workload: str, split: Split) -> bool:
    return any(
        f"{split}/{record.metric}" in row.metrics
        for record in records
        if record.workload == workload
        for row in record.evaluations
    )
