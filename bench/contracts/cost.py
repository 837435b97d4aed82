"""Cost of an optimizer's update beside Adam's: CPU time and bytes of state.

Boundary: runs updates on random gradients; trains nothing and writes nothing.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial.bench.contracts.optimizers import Subject
from timetrial.framework.entries import Optimizer
from timetrial.framework.extra_inputs import REMAINING_FRACTION, of_step, taken
from timetrial.framework.memory import bytes_of
from timetrial.framework.types import PyTree
from timetrial.workloads import WORKLOADS

TREE: Final = "flights_dlrm"
"""Workload whose parameters are updated."""

REPEATS: Final = 9
_LEAST_SECONDS: Final = 0.02  # CPU time of one repeat, so that the clock's steps do not matter
_MOST_UPDATES: Final = 50  # of one repeat

Step = Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of one update of an optimizer and of Adam, on the same parameters.

    Attributes:
        seconds, adam_seconds: CPU seconds per update, of all threads; medians over repeats.
        ratio: median over repeats of the ratio of the two.
        bytes, adam_bytes: bytes of optimizer state per parameter.
        tree: name, number of parameters and number of tensors, in words.
    """

    seconds: float
    adam_seconds: float
    ratio: float
    bytes: float
    adam_bytes: float
    tree: str

    def __str__(self) -> str:
        return (
            f"CPU time of an update {_short(self.ratio)} x Adam's "
            f"({1e3 * self.seconds:.3g} ms, Adam {1e3 * self.adam_seconds:.3g} ms), state "
            f"{_short(self.bytes / self.adam_bytes)} x Adam's ({_short(self.bytes)} and "
            f"{_short(self.adam_bytes)} bytes per parameter), on {self.tree}"
        )


def cost(subject: Subject, params: PyTree | None = None, name: str = TREE) -> Cost:
    """Measures an optimizer against Adam; repeats alternate, so that other load affects both.

    Args:
        subject: the optimizer.
        params: parameters to update; by default those of the workload ``TREE``.
        name: their name.
    """
    params = _parameters(TREE) if params is None else params
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(0, 1e-2, p.shape), p.dtype), params)
    built = (subject.built, Optimizer(optax.adam(1e-3)))
    racers = [_Racer(each, params, grads) for each in built]
    for _ in range(REPEATS):
        for racer in racers:
            racer.repeat()
    seconds, adam = (racer.seconds for racer in racers)
    number = sum(leaf.size for leaf in jax.tree.leaves(params))
    sizes = [bytes_of(racer.state) / number for racer in racers]
    return Cost(
        statistics.median(seconds),
        statistics.median(adam),
        statistics.median(one / other for one, other in zip(seconds, adam, strict=True)),
        sizes[0],
        sizes[1],
        f"{name} ({number:,} parameters in {len(jax.tree.leaves(params))} tensors)",
    )


class _Racer:
    """A compiled optimizer with its parameters and state."""

    def __init__(self, optimizer: Optimizer, params: PyTree, grads: PyTree) -> None:
        tx = optimizer.tx
        update = optax.with_extra_args_support(tx).update

        def step(grads: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
            value = jnp.float32(1.0)
            available = of_step(lambda params: (value, grads), value, grads)
            available[REMAINING_FRACTION] = jnp.float32(0.5)
            extra = taken(tx, optimizer.takes, available)
            updates, state = update(grads, state, params, **extra)
            return optax.apply_updates(params, updates), state

        self.params, self.state, self._grads = params, jax.jit(tx.init)(params), grads
        self._step: Any = jax.jit(step).lower(grads, self.state, params).compile()
        self.seconds: list[float] = []
        self._updates = 1
        self.repeat()  # warms up
        needed = math.ceil(_LEAST_SECONDS / max(self.seconds.pop(), 1e-6))
        self._updates = min(_MOST_UPDATES, needed)

    def repeat(self) -> None:
        """Makes some updates, and notes the CPU seconds of one."""
        before = time.process_time()
        for _ in range(self._updates):
            self.params, self.state = self._step(self._grads, self.state, self.params)
        jax.block_until_ready((self.params, self.state))
        self.seconds.append((time.process_time() - before) / self._updates)


def _parameters(name: str) -> PyTree:
    """Initial parameters of a built-in workload with its default settings."""
    entry = WORKLOADS.built_in[name]
    workload = (entry.without_data or entry.make)(entry.settings())
    params, _ = jax.jit(workload.init)(jax.random.key(0))
    return params


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
