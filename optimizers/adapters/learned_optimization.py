"""Optimizers of google/learned_optimization as optax transformations, for the race and benchmarks.

Boundary: optional. Nothing here imports that library: whoever has it installed builds one of its
optimizers and hands it over; all that is needed is the interface of its ``Optimizer`` class, see
https://github.com/google/learned_optimization/blob/main/learned_optimization/optimizers/base.py.

For example, on a machine where the library can be installed::

    from learned_optimization.research.general_lopt import prefab

    tx = from_learned_optimization(prefab.LearnedOptimizer(num_steps), num_steps)
"""

from __future__ import annotations

import importlib.util
import inspect
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from timetrial.framework.types import PyTree


class Optimizer(Protocol):
    """What this adapter uses of the library's ``Optimizer``."""

    def init(self, params: PyTree, *, num_steps: int | None, **kwargs: Any) -> Any: ...

    def update(self, opt_state: Any, grad: PyTree, *, loss: jax.Array, **kwargs: Any) -> Any: ...

    def get_params(self, state: Any) -> PyTree: ...

    def set_params(self, state: Any, params: PyTree) -> Any: ...


class LearnedOptimizationState(NamedTuple):
    """State of the transformation.

    Attributes:
        inner: the library's state; without the parameters where its optimizer allows to set them.
        key: PRNG key from which the next update's is split.
    """

    inner: Any
    key: jax.Array


def is_installed() -> bool:
    """Whether google/learned_optimization could be imported; does not import it."""
    return importlib.util.find_spec("learned_optimization") is not None


def from_learned_optimization(
    opt: Optimizer, num_steps: int | None, *, key: jax.Array | None = None
) -> optax.GradientTransformationExtraArgs:
    """Wraps any optimizer of that library.

    The library's optimizers own the parameters and return new ones; optax's return differences.
    The parameters that ``update`` is given are the truth: they replace those in the library's
    state at each update, so that nothing drifts and nothing is stored twice. A few of its wrappers
    cannot do that; they go on from parameters of their own, and the difference returned leads
    there from the parameters given.

    Args:
        opt: instance of a subclass of ``learned_optimization.optimizers.base.Optimizer``.
        num_steps: number of updates the optimizer is to expect, > 0; ``None`` for those that need
            no such number.
        key: PRNG key; ``PRNGKey(0)`` by default, which does where nothing random is drawn. Every
            ``update`` gets one, ``init`` gets one if it names such a parameter.

    Returns:
        A transformation with ``update(grads, state, params, *, value)``; ``value`` is the training
        loss, a scalar. Batch statistics and the like (the library's ``model_state``) are left to
        the trainer.

    Raises:
        TypeError: ``opt`` lacks a method of the interface.
        ValueError: ``num_steps`` is not > 0.
    """
    for method in ("init", "update", "get_params", "set_params"):
        if not callable(getattr(opt, method, None)):
            raise TypeError(
                f"expected an optimizer of learned_optimization, with a method {method}, "
                f"got {type(opt).__name__}"
            )
    if num_steps is not None and num_steps <= 0:
        raise ValueError(f"num_steps: expected a whole number > 0 or None, got {num_steps}")

    first_key = jax.random.PRNGKey(0) if key is None else key
    init_takes_key = "key" in inspect.signature(opt.init).parameters

    def init(params: PyTree) -> LearnedOptimizationState:
        init_key, next_key = jax.random.split(first_key)
        # The library's wrappers pass all keywords on, also to optimizers that refuse a key.
        keyword = {"key": init_key} if init_takes_key else {}
        inner = opt.init(params, num_steps=num_steps, **keyword)
        stripped = _without_params(opt, inner)
        inner = inner if stripped is None else stripped
        return LearnedOptimizationState(_as_arrays(inner, copy=True), next_key)

    def update(
        grads: PyTree,
        state: LearnedOptimizationState,
        params: PyTree | None = None,
        *,
        value: jax.Array,
        **extra: Any,
    ) -> tuple[PyTree, LearnedOptimizationState]:
        del extra
        if params is None:
            raise ValueError("params: expected the current parameters, got None")
        update_key, next_key = jax.random.split(state.key)
        owns_params = _without_params(opt, state.inner) is None
        inner = state.inner if owns_params else opt.set_params(state.inner, params)
        inner = opt.update(inner, grads, loss=value, model_state=None, key=update_key)
        new_params = opt.get_params(inner)
        updates = jax.tree.map(lambda new, old: (new - old).astype(old.dtype), new_params, params)
        if not owns_params:
            inner = opt.set_params(inner, ())
        return updates, LearnedOptimizationState(_as_arrays(inner), next_key)

    return optax.GradientTransformationExtraArgs(init, update)


def _without_params(opt: Optimizer, inner: Any) -> Any | None:
    """The state with ``()`` for parameters; ``None`` if its parameters cannot be set."""
    try:
        stripped = opt.set_params(inner, ())
        return stripped if jax.tree.leaves(opt.get_params(stripped)) == [] else None
    except (AttributeError, TypeError, ValueError):
        return None


def _as_arrays(inner: Any, *, copy: bool = False) -> Any:
    """Counters that are Python numbers as arrays of definite type, as compiled steps need them.

    Copies are for the first state: an optimizer may keep the very parameters it was given, whose
    buffers could then not be donated along with the parameters'.
    """

    def definite(leaf: Any) -> jax.Array:
        array = jnp.asarray(leaf)
        return jnp.array(array, array.dtype, copy=copy)

    return jax.tree.map(definite, inner)
