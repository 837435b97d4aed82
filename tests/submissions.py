"""Small AlgoPerf submissions for tests, in the styles that are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HEAD = """
import jax
import jax.numpy as jnp
import optax
from {package} import spec

CALLS = []

def loss_of(params, workload, model_state, batch, rng, update_batch_norm=True):
    logits, new_state = workload.model_fn(
        params, batch, model_state, spec.ForwardPassMode.TRAIN, rng,
        update_batch_norm=update_batch_norm, dropout_rate=0.0)
    found = workload.loss_fn(label_batch=batch["targets"], logits_batch=logits,
                             mask_batch=batch.get("weights"), label_smoothing=0.0)
    return found["summed"] / found["n_valid_examples"], new_state

def get_batch_size(workload_name):
    raise ValueError(workload_name)

def data_selection(workload, input_queue, optimizer_state, current_param_container, model_state,
                   hyperparameters, global_step, rng):
    return next(input_queue)
"""

JIT = (
    HEAD
    + """
from functools import partial
from algoperf import jax_sharding_utils

def init_optimizer_state(workload: spec.Workload, model_params, model_state, hyperparameters, rng):
    rate = hyperparameters.learning_rate if hyperparameters else 0.05
    tx = optax.sgd(rate)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape_tuple), workload.param_shapes)
    return tx.init(zeros), tx.update

def step(workload, update, opt_state, params, model_state, batch, rng):
    (_, new_state), grads = jax.value_and_grad(loss_of, has_aux=True)(
        params, workload, model_state, batch, rng)
    updates, opt_state = update(grads, opt_state, params)
    return opt_state, optax.apply_updates(params, updates), new_state

def update_params(workload, current_param_container, current_params_types, model_state,
                  hyperparameters, batch, loss_type, optimizer_state, eval_results, global_step,
                  rng, train_state=None):
    opt_state, update = optimizer_state
    CALLS.append((global_step, len(eval_results)))
    whole = jax_sharding_utils.get_replicate_sharding()
    rows = jax_sharding_utils.get_batch_dim_sharding()
    jitted = jax.jit(step, static_argnums=(0, 1), donate_argnums=(2, 3, 4),
                     in_shardings=(whole, whole, whole, rows, whole),
                     out_shardings=(whole, whole, whole))
    opt_state, params, model_state = jitted(
        workload, update, opt_state, current_param_container, model_state, batch, rng)
    return (opt_state, update), params, model_state
"""
)

HALVED = """
def prepare_for_eval(workload, current_param_container, current_params_types, model_state,
                     hyperparameters, loss_type, optimizer_state, eval_results, global_step, rng):
    halve = jax.jit(lambda tree: jax.tree.map(lambda p: p / 2, tree), donate_argnums=0)
    return optimizer_state, halve(current_param_container), model_state
"""
"""Evaluates at half the parameters, and donates those given to it."""

PMAP = (
    HEAD
    + """
from functools import partial
from flax import jax_utils

def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
    tx = optax.sgd(hyperparameters.learning_rate)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape_tuple), workload.param_shapes)
    return jax_utils.replicate(tx.init(zeros)), tx.update

@partial(jax.pmap, axis_name="batch", static_broadcasted_argnums=(0, 1))
def step(workload, update, opt_state, params, model_state, batch, rng):
    (_, new_state), grads = jax.value_and_grad(loss_of, has_aux=True)(
        params, workload, model_state, batch, rng)
    grads = jax.lax.pmean(grads, "batch")
    updates, opt_state = update(grads, opt_state, params)
    return opt_state, optax.apply_updates(params, updates), new_state

def update_params(workload, current_param_container, current_params_types, model_state,
                  hyperparameters, batch, loss_type, optimizer_state, eval_results, global_step,
                  rng):
    opt_state, update = optimizer_state
    rngs = jax.random.split(rng, jax.local_device_count())
    opt_state, params, model_state = step(
        workload, update, opt_state, current_param_container, model_state, batch, rngs)
    return (opt_state, update), params, model_state
"""
)


def submission(
    folder: Path, code: str, space: Any = None, *, package: str = "algoperf", more: str = ""
) -> Path:
    """Writes a submission, and its search space, as AlgoPerf lays them out."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "submission.py"
    file.write_text(code.replace("{package}", package) + more)
    if space is not None:
        (folder / "tuning_search_space.json").write_text(json.dumps(space))
    return file
