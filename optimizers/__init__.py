"""Optimizers: optax transformations by name, with their settings.

Boundary: imports framework only; optimizers are independent of workload, clock and tracker.
"""

from __future__ import annotations

from timetrial.framework.entries import OptimizerEntry
from timetrial.framework.registry import Registry
from timetrial.optimizers import baselines
from timetrial.optimizers.adapters import foreign
from timetrial.optimizers.celo2 import entry as celo2
from timetrial.optimizers.velo import entry as velo

OPTIMIZERS: Registry[OptimizerEntry] = Registry(
    "optimizer",
    OptimizerEntry,
    {
        "adam": baselines.ADAM,
        "nadam": baselines.NADAM,
        "nadamw": baselines.NADAMW,
        "heavy_ball": baselines.HEAVY_BALL,
        "nesterov": baselines.NESTEROV,
        "velo": velo.VELO,
        "velo_short": velo.VELO_SHORT,
        "velo_feed": velo.VELO_FEED,
        "celo2": celo2.CELO2,
        "celo2_base": celo2.CELO2_BASE,
    },
    adapters={"learned_optimization": foreign.LEARNED_OPTIMIZATION},
)
"""All optimizers by name, plug-ins included."""
