"""Races two optax optimizers and VeLO on a flax model: python compare.py [SECONDS]."""

import sys

import flax.linen as nn
import numpy as np
import optax

from timetrial import Budget, compare, supervised

x = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
y = np.sin(x.sum(axis=1, keepdims=True))
model = nn.Sequential([nn.Dense(64), nn.tanh, nn.Dense(1)])
data = {"train": (x[:800], y[:800]), "validation": (x[800:], y[800:])}

sine = supervised(model, optax.l2_loss, **data, name="sine")
found = compare(
    {"adam": optax.adam(1e-2), "lion": optax.lion(1e-3), "velo": "velo"},
    workload=sine,
    budget=Budget(seconds=float((sys.argv[1:] or [10])[0])),
    seeds=(0, 1, 2),
)
print(found)  # a notebook shows the table, with a link to the report
