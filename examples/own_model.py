"""Races Adam and VeLO on a model of your own: python own_model.py [SECONDS]."""

import sys

import flax.linen as nn
import numpy as np
import optax

from timetrial import Budget, Direction, Split, Workload, train

X = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
DATA = dict(zip(Split, np.split(np.column_stack([X, np.sin(X.sum(1))]), [800, 900]), strict=True))
MODEL = nn.Sequential([nn.Dense(64), nn.tanh, nn.Dense(1)])


class Sine(Workload):
    name, metric, direction = "sine", "loss", Direction.MINIMIZE
    step_hint, eval_every_steps, eval_every_seconds = 2000, None, 1.0

    def init(self, key):
        return MODEL.init(key, X[:1]), {}

    def loss(self, params, model_state, batch, key):
        return ((MODEL.apply(params, batch["xy"][:, :8])[:, 0] - batch["xy"][:, 8]) ** 2).mean(), {}

    def eval_step(self, params, model_state, batch):
        return {"loss": (100 * self.loss(params, {}, batch, None)[0], np.float32(100))}, {}

    def train_batch(self, seed, step):
        return {"xy": np.random.default_rng((seed, step)).choice(DATA["train"], 64)}

    def eval_batches(self, split):
        return [{"xy": DATA[split][:100]}]


budget = Budget(seconds=float((sys.argv[1:] or [20])[0]))
racers = {"my_adam": optax.adam(1e-2), "velo": "velo"}
runs = {name: train(Sine(), racer, budget, name=name) for name, racer in racers.items()}
losses = {name: run.evaluations[-1].metrics["validation/loss"] for name, run in runs.items()}
print(f"{min(losses, key=losses.get)} won: {losses}")
