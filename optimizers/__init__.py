"""Optimizers: optax transformations by name, with their settings.

Boundary: imports framework only; optimizers are independent of workload, clock and tracker. An
optimizer is imported when it is looked up.
"""

from __future__ import annotations

import functools

from timetrial.framework.entries import OptimizerEntry
from timetrial.framework.listed import Listed
from timetrial.framework.registry import Registry
from timetrial.optimizers.weights.catalogue import missing

OPTIMIZERS: Registry[OptimizerEntry] = Registry(
    "optimizer",
    OptimizerEntry,
    {
        "adam": Listed("baselines:ADAM", "Adam, warm-up + cosine, lr 5e-3"),
        "nadam": Listed("baselines:NADAM", "NAdam, warm-up + cosine, lr 1e-2"),
        "nadamw": Listed(
            "baselines:NADAMW", "NAdamW, warm-up + cosine, lr 1e-2, weight decay 4e-3"
        ),
        "heavy_ball": Listed(
            "baselines:HEAVY_BALL", "SGD with heavy-ball momentum 0.9, constant lr 5e-2"
        ),
        "nesterov": Listed(
            "baselines:NESTEROV", "SGD with Nesterov momentum 0.9, constant lr 5e-2"
        ),
        "velo": Listed(
            "velo.entry:VELO", "VeLO, a learned optimizer, prompted with all steps of the budget"
        ),
        "velo_short": Listed(
            "velo.entry:VELO_SHORT",
            "VeLO prompted with 75 % of the budget's steps; ends after them",
        ),
        "velo_feed": Listed(
            "velo.entry:VELO_FEED",
            "VeLO fed the remaining share of the time budget, without an estimate of steps",
        ),
        "adamw": Listed("adamw:ADAMW", "AdamW, warm-up + cosine, lr 1e-3, weight decay 0.01"),
        "lion": Listed("lion:LION", "Lion, warm-up + cosine, lr 1e-4"),
        "schedule_free_adamw": Listed(
            "schedule_free_adamw:SCHEDULE_FREE_ADAMW",
            "Schedule-Free AdamW, lr 2.5e-3, evaluated at the average",
        ),
        "muon": Listed(
            "muon:MUON",
            "Muon for hidden matrices, lr 0.02; AdamW for the rest, lr 3e-4; warm-up + cosine",
        ),
        "prodigy": Listed("prodigy:PRODIGY", "Prodigy, cosine, learning rate estimated"),
        "ademamix": Listed("ademamix:ADEMAMIX", "AdEMAMix, warm-up + cosine, lr 1e-3"),
        "momo_adam": Listed(
            "momo_adam:MOMO_ADAM", "MoMo-Adam, constant bound 1e-2 of the learning rate"
        ),
        "adopt": Listed("adopt:ADOPT", "ADOPT, warm-up + cosine, lr 1e-3"),
        "cautious_nadamw": Listed(
            "cautious_nadamw:CAUTIOUS_NADAMW",
            "Cautious NAdamW, warm-up + cosine, lr 1.7e-3, weight decay 0.081",
        ),
        "soap": Listed(
            "soap:SOAP",
            "SOAP: Adam in the eigenbasis of Shampoo, warm-up + cosine, lr 3e-3, weight decay 0.01",
        ),
        "distributed_shampoo": Listed(
            "distributed_shampoo:DISTRIBUTED_SHAMPOO",
            "Distributed Shampoo grafted on RMSProp, warm-up + cosine, lr 1e-3",
        ),
        "celo": Listed(
            "celo.entry:CELO",
            "Celo, a learned optimizer with one learned schedule for all tensors",
            functools.partial(missing, "celo"),
        ),
        "celo_adam": Listed(
            "celo.entry:CELO_ADAM",
            "Adam with Celo's learned schedule; reads AlgoPerf's sinv6 too",
            functools.partial(missing, "celo-adam"),
        ),
        "celo2": Listed(
            "celo2.entry:CELO2",
            "Celo2, a learned optimizer: orthogonalized matrices, AdamW for the rest",
        ),
        "celo2_base": Listed(
            "celo2.entry:CELO2_BASE",
            "Celo2-base, a learned optimizer of 347 numbers, for all tensors alike",
        ),
    },
    adapters={
        "learned_optimization": Listed(
            "adapters.foreign:LEARNED_OPTIMIZATION",
            "any optimizer of google/learned_optimization: optimizer.make=package.module:Class",
        ),
        "algoperf": Listed(
            "adapters.foreign:ALGOPERF",
            "an AlgoPerf submission for JAX: optimizer.file=submission.py optimizer.point=0",
        ),
    },
)
"""All optimizers by name, plug-ins included."""
