"""Races two optax optimizers on a flax model of your own: python compare.py [STEPS]."""

import sys

import flax.linen as nn
import numpy as np
import optax

from timetrial import Budget, compare, supervised

STEPS = int((sys.argv[1:] or [500])[0])

x = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
y = np.sin(x.sum(axis=1, keepdims=True))
model = nn.Sequential([nn.Dense(64), nn.tanh, nn.Dense(1)])
data = {"train": (x[:800], y[:800]), "validation": (x[800:], y[800:])}

found = compare(
    {"adam": optax.adam(1e-2), "lion": optax.lion(1e-3)},
    workload=supervised(model, optax.l2_loss, **data, name="sine"),
    budget=Budget(steps=STEPS),
    seeds=(0, 1, 2),
)
print(found)  # a notebook shows the table, with a link to the report
