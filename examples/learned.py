"""VeLO in a training loop of your own, in place of Adam: python learned.py [STEPS]."""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial import velo

STEPS = int((sys.argv[1:] or [1000])[0])

x = jax.random.normal(jax.random.key(0), (1000, 8))
y = jnp.sin(x.sum(axis=1, keepdims=True))
model = nn.Sequential([nn.Dense(64), nn.tanh, nn.Dense(1)])


def loss(params, rows):
    return optax.l2_loss(model.apply(params, x[rows]), y[rows]).mean()


def trained(tx):
    @jax.jit
    def update(params, state, rows):
        value, grads = jax.value_and_grad(loss)(params, rows)
        changes, state = tx.update(grads, state, params, value=value)  # VeLO reads the loss
        return optax.apply_updates(params, changes), state

    params = model.init(jax.random.key(0), x[:1])
    state = tx.init(params)
    for rows in np.random.default_rng(1).integers(0, 800, (STEPS, 64)):
        params, state = update(params, state, rows)
    return float(loss(params, np.arange(800, 1000)))


for name, tx in {"adam": optax.adam(1e-3), "velo": velo(num_steps=STEPS)}.items():
    print(f"{name}: validation loss {trained(optax.with_extra_args_support(tx)):.4f}")
