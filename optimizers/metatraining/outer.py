"""The outer step: every lane of one family goes on for a while, then the meta-parameters move.

Boundary: pure functions of arrays; the order of families and all files are for the caller.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from timetrial.framework.types import TrainState
from timetrial.optimizers.metatraining import estimator
from timetrial.optimizers.metatraining.families import FAMILIES
from timetrial.optimizers.metatraining.rules import velo_rule
from timetrial.optimizers.metatraining.settings import Knobs, MetatrainSettings
from timetrial.optimizers.metatraining.tasks import Family
from timetrial.optimizers.metatraining.unroll import Lane, fresh, unroll

PyTree = Any

_MOMENTUM, _SECOND_MOMENT, _SCALE_DECAY = 0.9, 0.99, 0.95


class Pairs(NamedTuple):
    """The antithetic pairs of one family; all arrays have a leading axis of pairs.

    Attributes:
        lanes: the inner trainings, with a second axis of 2, plus and minus.
        step: inner steps made.
        length: inner steps that VeLO is told of.
        stop: inner steps after which the pair is given a new task.
        episode: tasks before this one.
        accumulated: (pairs, size) sum of the perturbations since the task began.
    """

    lanes: Lane
    step: jax.Array
    length: jax.Array
    stop: jax.Array
    episode: jax.Array
    accumulated: jax.Array


class Outer(NamedTuple):
    """State of the outer optimizer.

    Attributes:
        first, second: averages of the meta-gradient and of its square.
        mean: running mean of the meta-parameters.
        scales: per family, mean square of the loss differences; 0 before the first.
        unrolled: inner steps of all lanes so far, in thousands.
        best: running mean at the best validation so far.
        best_score, best_step: its score, infinite before the first validation, and when it was.
    """

    first: jax.Array
    second: jax.Array
    mean: jax.Array
    scales: jax.Array
    unrolled: jax.Array
    best: jax.Array
    best_score: jax.Array
    best_step: jax.Array


Sizes = tuple[int, int]
"""Hidden size and bank size."""

OuterStep = Callable[[TrainState, Knobs], tuple[TrainState, dict[str, jax.Array]]]


def init_state(settings: MetatrainSettings, vector: jax.Array, sizes: Sizes) -> TrainState:
    """The state before the first outer step; every pair begins a task at its first."""

    def pairs(family: Family) -> Pairs:
        params = family.shapes()
        lane = jax.eval_shape(
            lambda v, p: fresh(velo_rule(v, *sizes), p, jnp.int32(10)), vector, params
        )
        n = settings.pairs
        lanes = jax.tree.map(lambda x: jnp.zeros((n, 2, *x.shape), x.dtype), lane)
        return Pairs(
            lanes=lanes,
            step=jnp.zeros(n, jnp.int32),
            length=jnp.zeros(n, jnp.int32),
            stop=jnp.zeros(n, jnp.int32),
            episode=jnp.full(n, -1, jnp.int32),
            accumulated=jnp.zeros((n, vector.size)),
        )

    vector = jnp.array(vector, jnp.float32)
    families = {name: pairs(FAMILIES[name]) for name in settings.families}
    outer = Outer(
        first=jnp.zeros_like(vector),
        second=jnp.zeros_like(vector),
        mean=vector,
        scales=jnp.zeros(len(families)),
        unrolled=jnp.zeros(()),
        best=vector,
        best_score=jnp.full((), jnp.inf),
        best_step=jnp.zeros((), jnp.int32),
    )
    key = jax.random.key(settings.seed)
    return TrainState(jnp.zeros((), jnp.int32), vector, families, outer, key)


def _go_on(
    family: Family,
    sizes: Sizes,
    vector: jax.Array,
    pair: Pairs,
    number: jax.Array,
    keys: tuple[jax.Array, jax.Array],
    numbers: dict[str, jax.Array],
) -> tuple[Pairs, jax.Array]:
    """Some steps of one pair, in a new task where the old one is over; (2,) losses."""
    of_family, of_step = keys
    over = pair.step >= pair.stop
    episode = pair.episode + over
    key = jax.random.fold_in(jax.random.fold_in(of_family, number), episode)
    for_task, for_params, for_batches, for_length, for_stop = jax.random.split(key, 5)
    task = family.task(for_task)

    # Uniform in 1 / length: runs of 100 to 200 steps get as many inner steps as those of 1,000 to
    # 2,000, which are fewer. Of logarithms, the longest would get nearly all of them.
    low, high = 1.0 / numbers["longest"], 1.0 / numbers["shortest"]
    length = (1.0 / jax.random.uniform(for_length, minval=low, maxval=high)).astype(jnp.int32)
    # First tasks end early by a random share, so that pairs are at different points of their runs.
    share = jnp.where(episode == 0, jax.random.uniform(for_stop), 1.0)
    stop = jnp.maximum(1, (share * length).astype(jnp.int32))
    length, stop = jnp.where(over, length, pair.length), jnp.where(over, stop, pair.stop)
    step = jnp.where(over, 0, pair.step)

    noise = estimator.perturbations(
        jax.random.fold_in(of_step, number), 1, vector.size, numbers["sigma"]
    )[0]
    accumulated = jnp.where(over, 0.0, pair.accumulated) + noise
    params = family.initial(task, for_params)

    def one(own: jax.Array, lane: Lane) -> tuple[Lane, jax.Array]:
        rule = velo_rule(own, *sizes)
        new = fresh(rule, params, length)
        lane = jax.tree.map(lambda a, b: jnp.where(over, a, b), new, lane)
        return unroll(family, rule, task, lane, for_batches, step, numbers["truncation"], length)

    lanes, losses = jax.vmap(one)(estimator.antithetic(vector, noise), pair.lanes)
    step = step + numbers["truncation"]
    return Pairs(lanes, step, length, stop, episode, accumulated), losses


def make_outer_step(settings: MetatrainSettings, name: str, sizes: Sizes, mesh: Mesh) -> OuterStep:
    """The compiled outer step of one family; the state that it is given is used up.

    Args:
        settings: of the meta-training.
        name: of the family.
        sizes: hidden and bank size.
        mesh: devices with one axis ``pairs``, over which the pairs are spread evenly.
    """
    family, index = FAMILIES[name], settings.families.index(name)
    spread, same = PartitionSpec("pairs"), PartitionSpec()

    def share(
        vector: jax.Array,
        pairs: Pairs,
        indices: jax.Array,
        keys: tuple[jax.Array, jax.Array],
        numbers: dict[str, jax.Array],
    ) -> tuple[Pairs, jax.Array]:
        def go_on(pair: Pairs, i: jax.Array) -> tuple[Pairs, jax.Array]:
            return _go_on(family, sizes, vector, pair, i, keys, numbers)

        return jax.vmap(go_on)(pairs, indices)

    spread_out = jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(same, spread, spread, same, same),
        out_specs=(spread, spread),
        check_vma=False,
    )

    def step(
        state: TrainState, pairs: Pairs, numbers: dict[str, jax.Array]
    ) -> tuple[TrainState, Pairs, dict[str, jax.Array]]:
        keys = (
            jax.random.fold_in(jax.random.fold_in(state.key, 0), index),
            jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step),
        )
        indices = jnp.arange(settings.pairs)
        pairs, losses = spread_out(state.params, pairs, indices, keys, numbers)
        outer: Outer = state.opt_state
        square = jnp.mean((losses[:, 0] - losses[:, 1]) ** 2)
        old = outer.scales[index]
        square = jnp.where(old == 0, square, _SCALE_DECAY * old + (1 - _SCALE_DECAY) * square)
        even = estimator.normalised(losses, jnp.sqrt(square))
        # Times sigma: a gradient in units of the perturbation, which the clip is in as well.
        found = estimator.estimates(even, pairs.accumulated, numbers["sigma"])
        gradient = jnp.mean(found, axis=0) * numbers["sigma"]
        lanes = 2 * settings.pairs * numbers["truncation"]
        outer = outer._replace(
            scales=outer.scales.at[index].set(square),
            unrolled=outer.unrolled + lanes / 1000.0,
        )
        vector, outer = adam_step(settings, state.params, outer, gradient, state.step, numbers)
        metrics = {
            "loss": jnp.mean(losses),
            "gradient_rms": jnp.sqrt(jnp.mean(gradient**2)),
            "frozen": jnp.mean(pairs.lanes.frozen.astype(jnp.float32)),
        }
        return TrainState(state.step + 1, vector, {}, outer, state.key), pairs, metrics

    compiled = jax.jit(step, donate_argnums=1)

    def outer_step(state: TrainState, knobs: Knobs) -> tuple[TrainState, dict[str, jax.Array]]:
        numbers = {
            "truncation": jnp.int32(knobs.truncation),
            "shortest": jnp.float32(settings.shortest),
            "longest": jnp.float32(knobs.longest),
            "sigma": jnp.float32(settings.sigma),
            "learning_rate": jnp.float32(knobs.learning_rate),
        }
        core = TrainState(state.step, state.params, {}, state.opt_state, state.key)
        new, pairs, metrics = compiled(core, state.model_state[name], numbers)
        everyone = {**state.model_state, name: pairs}
        return TrainState(new.step, new.params, everyone, new.opt_state, new.key), metrics

    return outer_step


def adam_step(
    settings: MetatrainSettings,
    vector: jax.Array,
    outer: Outer,
    gradient: jax.Array,
    step: jax.Array,
    numbers: dict[str, jax.Array],
) -> tuple[jax.Array, Outer]:
    """Adam on the clipped meta-gradient, and the running mean of what comes of it."""
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
    """The state after a validation of its running mean; of equal scores the earlier is kept."""
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
    return TrainState(moved.step, moved.params, pairs, moved.opt_state, moved.key)
