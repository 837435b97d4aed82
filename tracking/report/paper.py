"""The paper's own tables as results.

Boundary: reads the CSV files in ``tracking/paper``.

Source: Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023,
https://arxiv.org/abs/2310.18191, licence CC BY 4.0 (Tables 2, 3, 6, 9-12, appendices D and E).
"""

from __future__ import annotations

import math
from importlib import resources
from typing import Final

import pandas as pd

from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.report.entrants import Entrant
from timetrial.tracking.report.results import ReportOptions, Results
from timetrial.tracking.report.standings import order, r_max_by_condition, standing_of
from timetrial.tracking.scores.fixed_targets import paper_targets
from timetrial.tracking.scores.targets import CONDITIONS

_METRICS: Final = {"mAP": "mean_average_precision"}
_PER_CENT: Final = ("accuracy", "ssim", "mean_average_precision")
_TRIALS: Final = 3
_LOSS: Final = {"ce_loss": "loss"}  # Criteo's deciding metric is its loss


def published(options: ReportOptions | None = None) -> Results:
    """The paper's results: times of Tables 9-12, final quality of appendices D and E."""
    options = options or ReportOptions()
    limits = r_max_by_condition(options.r_max)
    found = [
        standing_of(
            paper_times(condition, split),
            paper_targets(condition, split),
            condition=condition,
            split=split,
            r_max=limits[condition],
        )
        for condition in CONDITIONS
        for split in (Split.VALIDATION, Split.TRAIN)
    ]
    deciding = read("targets.csv").set_index("workload")["metric"].to_dict()
    metrics = {str(w): _LOSS.get(metric, metric) for w, metric in sorted(deciding.items())}
    quality = paper_quality()
    keys = quality[["workload", "metric"]].drop_duplicates().itertuples(index=False, name=None)
    return Results(
        records=[],
        standings=found,
        quality=quality,
        improvement=pd.DataFrame(),
        metrics=metrics,
        directions={
            (w, m): Direction.MINIMIZE if m == "loss" else Direction.MAXIMIZE for w, m in keys
        },
        optimizers=order(found, [*found[0].times.index, *quality["optimizer"]]),
        entrants=paper_optimizers(),
        options=options,
        published=True,
    )


def paper_optimizers() -> dict[str, Entrant]:
    """The paper's optimizers: which are learned, and the prompts of VeLO."""
    rows = read("optimizers.csv").fillna({"color": ""}).to_dict("records")
    return {
        str(row["optimizer"]): Entrant(
            label=str(row["optimizer"]),
            name=str(row["optimizer"]),
            learned=bool(row["learned"]),
            color=str(row["color"]),
            prompt=float(row["prompt"]),
        )
        for row in rows
    }


def paper_times(condition: Condition, split: Split) -> pd.DataFrame:
    """Tables 9-12: median time to target, index optimizer, columns workload."""
    rows = read("time_to_target.csv")
    here = rows[(rows["condition"] == condition) & (rows["split"] == split)]
    return here.pivot(index="optimizer", columns="workload", values="value")


def paper_quality() -> pd.DataFrame:
    """Appendices D and E with the columns of ``Results.quality``; shares in [0, 1].

    Of 3 trials those are finite that the value is the mean of: where the paper says that trials
    were unstable and prints no deviation, one.
    """
    keys = ["condition", "workload", "optimizer", "split", "metric"]
    unstable = read("unstable_trials.csv")[[*keys, "unstable"]]
    table = read("final_quality.csv").merge(unstable, on=keys, how="left")
    table = table.replace({"metric": _METRICS})
    per_cent = table["metric"].isin(_PER_CENT)
    for column in ("mean", "std"):
        table[column] = table[column].where(~per_cent, table[column] / 100)
    out = table.pop("unstable").fillna(0).astype(int)
    table = table.assign(
        runs=_TRIALS, finite=_TRIALS - out, diverged=out, low=math.nan, high=math.nan
    )
    return table.sort_values(keys)


def read(name: str) -> pd.DataFrame:
    """One table of the paper, by the name of its file."""
    with (resources.files("timetrial.tracking") / "paper" / name).open() as file:
        return pd.read_csv(file)
