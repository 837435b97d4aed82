"""Celo2 as an update rule of one lane, alone or inside its harness.

Boundary: pure functions of one lane's arrays; the caller vectorises over lanes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax

from timetrial.optimizers.metatraining.celo2.lane import Celo2State, directions, init_state
from timetrial.optimizers.metatraining.celo2.vector import theta_of
from timetrial.optimizers.metatraining.rules import Rule
from timetrial.optimizers.metatraining.scheduled import (
    Moments,
    adam_directions,
    init_moments,
    schedule,
)

PyTree = Any

_BETA2 = 0.95
_EMBEDDINGS = ("embed", "table")


@dataclasses.dataclass(frozen=True)
class Harness:
    """Celo2 with Newton-Schulz for matrices, AdamW for vectors, scalars and embeddings.

    Attributes:
        rate_factor: AdamW's rate divided by Celo2's.
    """

    rate_factor: float = 1.0


class Celo2Lane(NamedTuple):
    """State of Celo2 in one lane; ``moments`` is empty without the harness."""

    learned: Celo2State
    moments: Moments


def by_adamw(params: PyTree) -> list[bool]:
    """Which tensors AdamW updates inside the harness: rank <= 1, or an embedding by its path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    names = [jax.tree_util.keystr(path).lower() for path, _ in leaves]
    return [
        leaf.ndim <= 1 or any(word in name for word in _EMBEDDINGS)
        for name, (_, leaf) in zip(names, leaves, strict=True)
    ]


def celo2_rule(
    vector: jax.Array, learning_rate: jax.Array | float, harness: Harness | None = None
) -> Rule:
    """Celo2 with the network of a vector, under the schedule, without weight decay.

    Args:
        vector: (329,), see ``vector``.
        learning_rate: after the warm-up: the root mean square of a step's elements.
        harness: None updates every tensor by Celo2 without Newton-Schulz ("celo2-base").
    """
    theta = theta_of(vector)

    def init(params: PyTree, num_steps: jax.Array) -> Celo2Lane:
        del num_steps
        ours, others = _split(params, harness)
        return Celo2Lane(init_state([p.shape for p in ours]), init_moments(others))

    def update(
        params: PyTree,
        state: Celo2Lane,
        grads: PyTree,
        loss: jax.Array,
        step: jax.Array,
        num_steps: jax.Array,
    ) -> tuple[PyTree, Celo2Lane]:
        del loss
        rate = learning_rate * schedule(step, num_steps)
        (ours, others), (slopes, others_slopes) = _split(params, harness), _split(grads, harness)
        found, learned = directions(theta, state.learned, slopes, ours, harness is not None)
        ours = [p - rate * u for p, u in zip(ours, found, strict=True)]
        moments = state.moments
        if harness and others:
            found, moments = adam_directions(moments, others_slopes, step, _BETA2)
            rate = harness.rate_factor * rate
            others = [p - rate * u for p, u in zip(others, found, strict=True)]
        return _joined(params, harness, ours, others), Celo2Lane(learned, moments)

    return Rule(init, update)


def _split(tree: PyTree, harness: Harness | None) -> tuple[list[jax.Array], list[jax.Array]]:
    """The tensors that Celo2 and those that AdamW updates."""
    leaves = jax.tree.leaves(tree)
    if harness is None:
        return leaves, []
    theirs = by_adamw(tree)
    both = list(zip(leaves, theirs, strict=True))
    return [x for x, adamw in both if not adamw], [x for x, adamw in both if adamw]


def _joined(
    like: PyTree, harness: Harness | None, ours: list[jax.Array], others: list[jax.Array]
) -> PyTree:
    """The inverse of ``_split``."""
    treedef = jax.tree.structure(like)
    if harness is None:
        return jax.tree.unflatten(treedef, ours)
    parts = {False: iter(ours), True: iter(others)}
    return jax.tree.unflatten(treedef, [next(parts[adamw]) for adamw in by_adamw(like)])
