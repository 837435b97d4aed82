"""Optimizers: optax transformations by name, with their settings.

Boundary: imports framework only; an optimizer knows neither workload, clock nor tracker.
"""

from __future__ import annotations

from timetrial.framework.entries import OptimizerEntry as Entry
from timetrial.optimizers import baselines
from timetrial.optimizers.velo import entry as learned

OPTIMIZERS: dict[str, Entry] = {
    "adam": Entry("Adam, warm-up + cosine, lr 5e-3", baselines.AdamSettings, baselines.make_adam),
    "nadam": Entry(
        "NAdam, warm-up + cosine, lr 1e-2", baselines.NadamSettings, baselines.make_nadam
    ),
    "nadamw": Entry(
        "NAdamW, warm-up + cosine, lr 1e-2, weight decay 4e-3",
        baselines.NadamwSettings,
        baselines.make_nadamw,
    ),
    "heavy_ball": Entry(
        "SGD with heavy-ball momentum 0.9, constant lr 5e-2",
        baselines.MomentumSettings,
        baselines.make_heavy_ball,
    ),
    "nesterov": Entry(
        "SGD with Nesterov momentum 0.9, constant lr 5e-2",
        baselines.MomentumSettings,
        baselines.make_nesterov,
    ),
    "velo": Entry(
        "VeLO, a learned optimizer, prompted with all the steps that the budget allows",
        learned.VeloSettings,
        learned.make_velo,
        needs_steps=True,
        variant=learned.variant,
        notes=learned.notes,
    ),
    "velo_short": Entry(
        "VeLO prompted with 75 % of the steps that the budget allows; ends when they are made",
        learned.VeloShortSettings,
        learned.make_velo,
        needs_steps=True,
        variant=learned.variant,
        notes=learned.notes,
        last_step=learned.prompted_steps,
    ),
    "velo_feed": Entry(
        "VeLO fed the share of the time budget that remains, without any estimate of steps",
        learned.VeloFeedSettings,
        learned.make_velo_feed,
        needs_feed=True,
        variant=learned.variant,
        notes=learned.notes,
    ),
}
"""Every optimizer that can be raced; ``make(settings, horizon)`` builds its transformation."""
