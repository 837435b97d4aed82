"""The learning rates that a report draws: exactly those that the optimizers' settings give.

Boundary: asks the optimizers' own schedules; drawing is the business of ``tracking.report``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, Final

import jax.numpy as jnp
import numpy as np
import pandas as pd

from timetrial.bench.naming import label
from timetrial.framework.config import RunConfig
from timetrial.framework.entries import Horizon
from timetrial.framework.records import RunRecord
from timetrial.optimizers.baselines import (
    AdamSettings,
    MomentumSettings,
    NadamSettings,
    NadamwSettings,
)
from timetrial.tracking.report import RATE_COLUMNS

_POINTS: Final = 201
_PAPER: Final = {"adam": AdamSettings, "nadam": NadamSettings, "nadamw": NadamwSettings}


def learning_rates(configs: Sequence[RunConfig], records: Iterable[RunRecord]) -> pd.DataFrame:
    """The schedules of planned runs, columns ``RATE_COLUMNS``, up to the last step that was made.

    Optimizers without a learning rate, such as VeLO, have no rows.
    """
    made: dict[tuple[str, str], int] = {}
    for run in records:
        key = (run.workload, run.optimizer)
        made[key] = max(made.get(key, 0), run.step)
    rows: list[tuple[object, ...]] = []
    seen = set()
    for config in configs:
        key = (config.workload.name, label(config))
        hint = getattr(config.workload.settings, "step_hint", None)
        if hint is not None and key not in seen:
            seen.add(key)
            points = _schedule(config.optimizer.settings, int(hint), made.get(key) or int(hint))
            rows += [(*key, *point) for point in points]
    return pd.DataFrame(rows, columns=list(RATE_COLUMNS))


def paper_learning_rates() -> pd.DataFrame:
    """The schedules of the paper's five baselines (Table 8), over the steps of Table 4."""
    rows: list[tuple[object, ...]] = []
    for workload in _paper_table("hardware_calibration.csv"):
        steps = int(workload["v100x8_steps"])
        for row in _paper_table("hyperparameters.csv"):
            settings = _paper_settings(row)
            rows += [
                (workload["workload"], row["optimizer"], *point)
                for point in _schedule(settings, steps, steps)
            ]
    return pd.DataFrame(rows, columns=list(RATE_COLUMNS))


def _paper_settings(row: Mapping[str, str]) -> AdamSettings | MomentumSettings:
    rate = float(row["learning_rate"])
    if row["optimizer"] not in _PAPER:
        return MomentumSettings(learning_rate=rate, momentum=float(row["momentum"]))
    return _PAPER[row["optimizer"]](
        learning_rate=rate,
        warmup_fraction=float(row["warmup_fraction"]),
        end_factor=float(row["end_learning_rate"]),  # a factor of the peak: see warmup_cosine
    )


def _paper_table(name: str) -> list[dict[str, str]]:
    with (resources.files("timetrial.tracking") / "paper" / name).open() as file:
        return list(csv.DictReader(file))


def _schedule(settings: Any, step_hint: int, steps: int) -> list[tuple[int, float]]:
    """Points (step, learning rate) from the first update to the last."""
    horizon = Horizon(step_hint=step_hint, steps=steps)
    rates: Any
    if isinstance(settings, AdamSettings):
        rates = settings.schedule(horizon)
    elif isinstance(settings, MomentumSettings):
        rates = settings.learning_rates(horizon)
    else:
        return []
    grid = np.unique(np.linspace(0, steps, _POINTS).round().astype(int))
    found = np.asarray(rates(jnp.asarray(grid))) if callable(rates) else np.full(len(grid), rates)
    return [(int(step), float(f"{rate:.5g}")) for step, rate in zip(grid, found, strict=True)]
