"""Races Adam and VeLO on a model of your own: python own_model.py [SECONDS [DIRECTORY]]."""

import hashlib
import sys

import flax.linen as nn
import numpy as np
import optax

from timetrial import Budget, Direction, Workload, train

X = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
Y = np.sin(X.sum(axis=1))
MODEL = nn.Sequential([nn.Dense(64), nn.tanh, nn.Dense(1)])


class Sine(Workload):
    name, metric, direction = "sine", "loss", Direction.MINIMIZE
    step_hint, eval_every_steps, eval_every_seconds = 2000, None, 1.0

    def init(self, key):
        return MODEL.init(key, X[:1]), {}

    def loss(self, params, model_state, batch, key):
        return ((MODEL.apply(params, batch["x"])[:, 0] - batch["y"]) ** 2).mean(), model_state

    def eval_step(self, params, model_state, batch):
        return {"loss": (100 * self.loss(params, {}, batch, None)[0], np.float32(100))}, {}

    def train_batch(self, seed, step):
        rows = np.random.default_rng((seed, step)).integers(0, 800, 64)
        return {"x": X[rows], "y": Y[rows]}

    def eval_batches(self, split):
        first = {"train": 0, "validation": 800, "test": 900}[split]
        return [{"x": X[first : first + 100], "y": Y[first : first + 100]}]

    def datasets(self):
        return {"sine": hashlib.sha256(X.tobytes()).hexdigest()}


seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20
root = sys.argv[2] if len(sys.argv) > 2 else "runs"
losses = {}
for name, optimizer in {"my_adam": optax.adam(1e-2), "velo": "velo"}.items():
    result = train(Sine(), optimizer, Budget(seconds=seconds), name=name, root=root)
    losses[name] = result.evaluations[-1].metrics["validation/loss"]
print(f"{min(losses, key=losses.get)} won: {losses}")
