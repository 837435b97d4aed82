"""The outer step: all lanes of one family advance, then the meta-parameters take a step.

Boundary: pure functions of arrays; the caller orders the families and writes files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from timetrial.framework.state import TrainState
from timetrial.optimizers.metatraining import estimator
from timetrial.optimizers.metatraining.pairs import (
    Numbers,
    Pairs,
    init_pairs,
    make_advance,
)
from timetrial.optimizers.metatraining.settings import Knobs, MetatrainSettings
from timetrial.optimizers.metatraining.stage import Stage

_MOMENTUM, _SECOND_MOMENT, _SCALE_DECAY = 0.9, 0.99, 0.95


class Outer(NamedTuple):
    """State of the outer optimizer.

    Attributes:
        first, second: averages of the meta-gradient and of its square.
        mean: running mean of the meta-parameters.
        scales: per family, mean square of the loss differences; 0 before the first.
        unrolled: inner steps of all lanes so far, in thousands.
        best: running mean at the best validation so far.
        best_score, best_step: score and outer step of that validation; infinite before the first.
    """

    first: jax.Array
    second: jax.Array
    mean: jax.Array
    scales: jax.Array
    unrolled: jax.Array
    best: jax.Array
    best_score: jax.Array
    best_step: jax.Array


Metrics = dict[str, jax.Array]

OuterStep = Callable[[TrainState, Knobs], tuple[TrainState, Metrics]]


def init_state(stage: Stage) -> TrainState:
    """The state before the first outer step, at which every pair begins a task."""
    settings = stage.settings
    vector = jnp.array(stage.start, jnp.float32)
    pairs = {
        name: init_pairs(stage.families[name], settings.pairs, vector, stage.make_rule)
        for name in settings.families
    }
    outer = Outer(
        first=jnp.zeros_like(vector),
        second=jnp.zeros_like(vector),
        mean=vector,
        scales=jnp.zeros(len(pairs)),
        unrolled=jnp.zeros(()),
        best=vector,
        best_score=jnp.full((), jnp.inf),
        best_step=jnp.zeros((), jnp.int32),
    )
    key = jax.random.key(settings.seed)
    return TrainState(jnp.zeros((), jnp.int32), vector, pairs, outer, key)


def make_outer_step(stage: Stage, name: str, mesh: Mesh) -> OuterStep:
    """The compiled outer step of one family; the state given to it is used up.

    Args:
        stage: of the meta-training.
        name: of the family.
        mesh: devices with one axis ``pairs``, over which the pairs are spread evenly.
    """
    settings = stage.settings
    index = settings.families.index(name)
    advance = make_advance(stage.families[name], stage.make_rule, mesh)

    def step(
        state: TrainState, pairs: Pairs, numbers: Numbers
    ) -> tuple[TrainState, Pairs, Metrics]:
        keys = (
            jax.random.fold_in(jax.random.fold_in(state.key, 0), index),
            jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step),
        )
        indices = jnp.arange(settings.pairs)
        pairs, losses = advance(state.params, pairs, indices, keys, numbers)
        outer, gradient = _gradient(index, state.opt_state, pairs, losses, numbers)
        vector, outer = adam_step(settings, state.params, outer, gradient, state.step, numbers)
        metrics = {
            "loss": jnp.mean(losses),
            "gradient_rms": jnp.sqrt(jnp.mean(gradient**2)),
            "frozen": jnp.mean(pairs.lanes.frozen.astype(jnp.float32)),
        }
        return TrainState(state.step + 1, vector, {}, outer, state.key), pairs, metrics

    compiled = jax.jit(step, donate_argnums=1)

    def outer_step(state: TrainState, knobs: Knobs) -> tuple[TrainState, Metrics]:
        core = dataclasses.replace(state, model_state={})
        new, pairs, metrics = compiled(core, state.model_state[name], _numbers(settings, knobs))
        return dataclasses.replace(new, model_state={**state.model_state, name: pairs}), metrics

    return outer_step


def _numbers(settings: MetatrainSettings, knobs: Knobs) -> Numbers:
    return {
        "truncation": jnp.int32(knobs.truncation),
        "shortest": jnp.float32(settings.shortest),
        "longest": jnp.float32(knobs.longest),
        "sigma": jnp.float32(settings.sigma),
        "learning_rate": jnp.float32(knobs.learning_rate),
    }


def _gradient(
    index: int, outer: Outer, pairs: Pairs, losses: jax.Array, numbers: Numbers
) -> tuple[Outer, jax.Array]:
    """The meta-gradient, in units of the family's usual loss difference; updates that unit.

    Args:
        index: of the family.
        outer: state before.
        pairs: pairs after their steps.
        losses: (pairs, 2).
        numbers: of the outer step.
    """
    square = jnp.mean((losses[:, 0] - losses[:, 1]) ** 2)
    old = outer.scales[index]
    square = jnp.where(old == 0, square, _SCALE_DECAY * old + (1 - _SCALE_DECAY) * square)
    even = estimator.normalised(losses, jnp.sqrt(square))
    # Times sigma: a gradient in units of the perturbation, like the clip.
    found = estimator.estimates(even, pairs.accumulated, numbers["sigma"])
    gradient = jnp.mean(found, axis=0) * numbers["sigma"]
    lanes = 2 * losses.shape[0] * numbers["truncation"]
    outer = outer._replace(
        scales=outer.scales.at[index].set(square), unrolled=outer.unrolled + lanes / 1000.0
    )
    return outer, gradient


def adam_step(
    settings: MetatrainSettings,
    vector: jax.Array,
    outer: Outer,
    gradient: jax.Array,
    step: jax.Array,
    numbers: Numbers,
) -> tuple[jax.Array, Outer]:
    """Adam on the clipped meta-gradient, and the running mean of the meta-parameters.

    ``optax.adam`` and ``optax.incremental_update`` round differently: their bits are not those of
    the trainings recorded before.
    """
    gradient = jnp.clip(gradient, -settings.clip, settings.clip)
    first = _MOMENTUM * outer.first + (1 - _MOMENTUM) * gradient
    second = _SECOND_MOMENT * outer.second + (1 - _SECOND_MOMENT) * gradient**2
    count = (step + 1).astype(jnp.float32)
    m = first / (1 - _MOMENTUM**count)
    v = second / (1 - _SECOND_MOMENT**count)
    vector = vector - numbers["learning_rate"] * m / (jnp.sqrt(v) + 1e-8)
    mean = settings.ema * outer.mean + (1 - settings.ema) * vector
    return vector, outer._replace(first=first, second=second, mean=mean)


def keep_best(state: TrainState, score: float) -> TrainState:
    """The state after a validation of its running mean; of equal scores the earlier counts."""
    outer: Outer = state.opt_state
    if not score < float(outer.best_score):
        return state
    outer = outer._replace(
        best=outer.mean, best_score=jnp.asarray(score, jnp.float32), best_step=state.step
    )
    return dataclasses.replace(state, opt_state=outer)


def place(state: TrainState, mesh: Mesh) -> TrainState:
    """The state on its devices: pairs spread evenly, everything else everywhere."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    spread = NamedSharding(mesh, PartitionSpec("pairs"))
    moved: TrainState = jax.tree.map(lambda x: jax.device_put(x, everywhere), state)
    pairs = jax.tree.map(lambda x: jax.device_put(x, spread), state.model_state)
    return dataclasses.replace(moved, model_state=pairs)
