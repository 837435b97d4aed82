"""Antithetic pairs of lanes: the inner trainings of one family, continued piece by piece.

Boundary: pure functions of arrays; ``outer`` makes a gradient of the losses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from timetrial.optimizers.metatraining import estimator
from timetrial.optimizers.metatraining.rules import MakeRule
from timetrial.optimizers.metatraining.tasks import Family
from timetrial.optimizers.metatraining.unroll import Lane, fresh, unroll

Keys = tuple[jax.Array, jax.Array]
"""Keys of the family, for tasks and lengths, and of the outer step, for perturbations."""

Numbers = dict[str, jax.Array]
"""Scalars of one outer step: truncation, shortest, longest, sigma, learning_rate."""

Advance = Callable[[jax.Array, "Pairs", jax.Array, Keys, Numbers], tuple["Pairs", jax.Array]]


class Pairs(NamedTuple):
    """The antithetic pairs of one family; all arrays have a leading axis of pairs.

    Attributes:
        lanes: the inner trainings, with a second axis of 2, plus and minus.
        step: inner steps made.
        length: inner steps in all, as the rule is told.
        stop: inner steps after which the pair gets a new task.
        episode: number of tasks before this one.
        accumulated: (pairs, size) sum of the perturbations since the task began.
    """

    lanes: Lane
    step: jax.Array
    length: jax.Array
    stop: jax.Array
    episode: jax.Array
    accumulated: jax.Array


def init_pairs(family: Family, pairs: int, vector: jax.Array, make_rule: MakeRule) -> Pairs:
    """Pairs that begin their first task at the first outer step."""
    params = family.shapes()
    lane = jax.eval_shape(lambda v, p: fresh(make_rule(v), p, jnp.int32(10)), vector, params)
    lanes = jax.tree.map(lambda x: jnp.zeros((pairs, 2, *x.shape), x.dtype), lane)
    return Pairs(
        lanes=lanes,
        step=jnp.zeros(pairs, jnp.int32),
        length=jnp.zeros(pairs, jnp.int32),
        stop=jnp.zeros(pairs, jnp.int32),
        episode=jnp.full(pairs, -1, jnp.int32),
        accumulated=jnp.zeros((pairs, vector.size)),
    )


def make_advance(family: Family, make_rule: MakeRule, mesh: Mesh) -> Advance:
    """The function that continues all pairs of a family.

    It maps the meta-parameters (size,), the pairs, their numbers (pairs,), keys and numbers to the
    pairs after ``truncation`` more inner steps and to their losses (pairs, 2).

    Args:
        family: of the tasks.
        make_rule: maps meta-parameters (size,) to an update rule.
        mesh: devices with one axis ``pairs``, over which the pairs are spread evenly.
    """
    spread, same = PartitionSpec("pairs"), PartitionSpec()

    def advance(
        vector: jax.Array, pairs: Pairs, indices: jax.Array, keys: Keys, numbers: Numbers
    ) -> tuple[Pairs, jax.Array]:
        def advance_one(pair: Pairs, i: jax.Array) -> tuple[Pairs, jax.Array]:
            return _advance_pair(family, make_rule, vector, pair, i, keys, numbers)

        return jax.vmap(advance_one)(pairs, indices)

    spread_out: Advance = jax.shard_map(
        advance,
        mesh=mesh,
        in_specs=(same, spread, spread, same, same),
        out_specs=(spread, spread),
        check_vma=False,
    )
    return spread_out


def _advance_pair(
    family: Family,
    make_rule: MakeRule,
    vector: jax.Array,
    pair: Pairs,
    index: jax.Array,
    keys: Keys,
    numbers: Numbers,
) -> tuple[Pairs, jax.Array]:
    """Some steps of one pair, in a new task where the old one is over; (2,) losses."""
    of_family, of_step = keys
    over = pair.step >= pair.stop
    episode = pair.episode + over
    key = jax.random.fold_in(jax.random.fold_in(of_family, index), episode)
    for_task, for_params, for_batches, for_length, for_stop = jax.random.split(key, 5)
    task = family.task(for_task)
    length, stop = _lengths(for_length, for_stop, episode, numbers)
    length, stop = jnp.where(over, length, pair.length), jnp.where(over, stop, pair.stop)
    step = jnp.where(over, 0, pair.step)

    noise = estimator.perturbations(
        jax.random.fold_in(of_step, index), 1, vector.size, numbers["sigma"]
    )[0]
    accumulated = jnp.where(over, 0.0, pair.accumulated) + noise
    params = family.initial(task, for_params)

    def advance_lane(own: jax.Array, lane: Lane) -> tuple[Lane, jax.Array]:
        rule = make_rule(own)
        new = fresh(rule, params, length)
        lane = jax.tree.map(lambda a, b: jnp.where(over, a, b), new, lane)
        return unroll(family, rule, task, lane, for_batches, step, numbers["truncation"], length)

    lanes, losses = jax.vmap(advance_lane)(estimator.antithetic(vector, noise), pair.lanes)
    step = step + numbers["truncation"]
    return Pairs(lanes, step, length, stop, episode, accumulated), losses


def _lengths(
    for_length: jax.Array, for_stop: jax.Array, episode: jax.Array, numbers: Numbers
) -> tuple[jax.Array, jax.Array]:
    """Inner steps of a new task: in all, and those made before the next task."""
    # Uniform in 1 / length: runs of 100 to 200 steps get as many inner steps as those of 1,000 to
    # 2,000, which are fewer. Uniform in its logarithm, the longest would get nearly all of them.
    low, high = 1.0 / numbers["longest"], 1.0 / numbers["shortest"]
    length = (1.0 / jax.random.uniform(for_length, minval=low, maxval=high)).astype(jnp.int32)
    # First tasks end early by a random share, so that pairs are at different points of their runs.
    share = jnp.where(episode == 0, jax.random.uniform(for_stop), 1.0)
    return length, jnp.maximum(1, (share * length).astype(jnp.int32))
