"""Optimizers: optax transformations by name, with their settings.

Boundary: imports framework only; optimizers are independent of workload, clock and tracker.
"""

from __future__ import annotations

from timetrial.framework.entries import OptimizerEntry
from timetrial.framework.registry import Registry
from timetrial.optimizers import baselines
from timetrial.optimizers.adamw import ADAMW
from timetrial.optimizers.adapters import foreign
from timetrial.optimizers.ademamix import ADEMAMIX
from timetrial.optimizers.adopt import ADOPT
from timetrial.optimizers.cautious_nadamw import CAUTIOUS_NADAMW
from timetrial.optimizers.celo import entry as celo
from timetrial.optimizers.celo2 import entry as celo2
from timetrial.optimizers.distributed_shampoo import DISTRIBUTED_SHAMPOO
from timetrial.optimizers.lion import LION
from timetrial.optimizers.momo_adam import MOMO_ADAM
from timetrial.optimizers.muon import MUON
from timetrial.optimizers.prodigy import PRODIGY
from timetrial.optimizers.schedule_free_adamw import SCHEDULE_FREE_ADAMW
from timetrial.optimizers.soap import SOAP
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
        "adamw": ADAMW,
        "lion": LION,
        "schedule_free_adamw": SCHEDULE_FREE_ADAMW,
        "muon": MUON,
        "prodigy": PRODIGY,
        "ademamix": ADEMAMIX,
        "momo_adam": MOMO_ADAM,
        "adopt": ADOPT,
        "cautious_nadamw": CAUTIOUS_NADAMW,
        "soap": SOAP,
        "distributed_shampoo": DISTRIBUTED_SHAMPOO,
        "celo": celo.CELO,
        "celo_adam": celo.CELO_ADAM,
        "celo2": celo2.CELO2,
        "celo2_base": celo2.CELO2_BASE,
    },
    adapters={
        "learned_optimization": foreign.LEARNED_OPTIMIZATION,
        "algoperf": foreign.ALGOPERF,
    },
)
"""All optimizers by name, plug-ins included."""
