"""Optimizers: optax transformations by name, with their settings.

Boundary: imports framework only; an optimizer knows neither workload, clock nor tracker.
"""

from __future__ import annotations

import optax

from framework.types import Entry
from optimizers import baselines

OPTIMIZERS: dict[str, Entry[optax.GradientTransformation]] = {
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
}
"""Every optimizer that can be raced: ``make(settings, horizon)`` returns an optax transformation."""
