"""A package that brings a workload and an optimizer: python timetrial_sine.py [STEPS]."""

import dataclasses
import sys

import flax.linen as nn
import numpy as np
import optax

from timetrial import Budget, Workload, WorkloadEntry, compare, supervised


@dataclasses.dataclass(frozen=True)
class SineSettings:
    width: int = 64


def make_sine(settings: SineSettings) -> Workload:
    x = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    y = np.sin(x.sum(axis=1, keepdims=True))
    model = nn.Sequential([nn.Dense(settings.width), nn.tanh, nn.Dense(1)])
    parts = {"train": (x[:800], y[:800]), "validation": (x[800:], y[800:])}
    return supervised(model, optax.l2_loss, **parts, name="sine", step_hint=500)


SINE = WorkloadEntry("the sine of a sum of eight numbers", SineSettings, make_sine)


def sign_momentum(learning_rate: float = 1e-3):
    """Lion: the sign of a running mean. A function of its settings is an optimizer, too."""
    return optax.lion(learning_rate)


if __name__ == "__main__":  # a look at both before they are installed
    racers = {"adam": optax.adam(1e-2), "sign_momentum": sign_momentum()}
    budget = Budget(steps=int((sys.argv[1:] or [500])[0]))
    print(compare(racers, make_sine(SineSettings()), budget, experiment="plugin"))
