"""Optimizers of google/learned_optimization as optax transformations, for the race and benchmarks.

Boundary: never imports that library. The caller builds one of its optimizers; the adapter needs
only the interface of its ``Optimizer`` class, see
https://github.com/google/learned_optimization/blob/main/learned_optimization/optimizers/base.py.

For example, on a machine where the library can be installed::

    from learned_optimization.research.general_lopt import prefab

    tx = from_learned_optimization(prefab.LearnedOptimizer(num_steps), num_steps)
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from timetrial.framework.types import PyTree


class Optimizer(Protocol):
    """The part of the library's ``Optimizer`` that the adapter uses."""

    def init(self, params: PyTree, *, num_steps: int | None, **kwargs: Any) -> Any: ...

    def update(self, opt_state: Any, grad: PyTree, *, loss: jax.Array, **kwargs: Any) -> Any: ...

    def get_params(self, state: Any) -> PyTree: ...

    def set_params(self, state: Any, params: PyTree) -> Any: ...


class LearnedOptimizationState(NamedTuple):
    """State of the transformation.

    Attributes:
        inner: the library's state, without the parameters where its optimizer can set them.
        key: PRNG key to split for the next update.
    """

    inner: Any
    key: jax.Array


def is_installed() -> bool:
    """Whether google/learned_optimization can be imported; does not import it."""
    return importlib.util.find_spec("learned_optimization") is not None


def from_learned_optimization(
    opt: Optimizer, num_steps: int | None, *, key: jax.Array | None = None
) -> optax.GradientTransformationExtraArgs:
    """Wraps any optimizer of that library.

    The library's optimizers own the parameters and return new ones; optax's return differences.
    Each update replaces the parameters in the library's state by those given to it, so that
    nothing drifts and nothing is stored twice. A few of its wrappers cannot set parameters: they
    keep their own, and the difference returned leads from the parameters given to these.

    Args:
        opt: instance of a subclass of ``learned_optimization.optimizers.base.Optimizer``.
        num_steps: expected number of updates, > 0; ``None`` for optimizers that need none.
        key: PRNG key, ``PRNGKey(0)`` by default; split for every ``update``, and for ``init`` where
            it has such a parameter.

    Returns:
        A transformation with ``update(grads, state, params, *, value)``; ``value`` is the training
        loss, a scalar. The trainer keeps batch statistics and the like (``model_state``).

    Raises:
        TypeError: ``opt`` lacks a method of the interface.
        ValueError: ``num_steps`` is not > 0.
    """
    _check_arguments(opt, num_steps)
    first_key = jax.random.PRNGKey(0) if key is None else key

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
        return _update(opt, grads, state, params, value)

    init = functools.partial(_init, opt, num_steps, first_key)
    return optax.GradientTransformationExtraArgs(init, update)


def _check_arguments(opt: Optimizer, num_steps: int | None) -> None:
    for method in ("init", "update", "get_params", "set_params"):
        if not callable(getattr(opt, method, None)):
            raise TypeError(
                f"expected an optimizer of learned_optimization, with a method {method}, "
                f"got {type(opt).__name__}"
            )
    if num_steps is not None and num_steps <= 0:
        raise ValueError(f"num_steps: expected a whole number > 0 or None, got {num_steps}")


def _init(
    opt: Optimizer, num_steps: int | None, key: jax.Array, params: PyTree
) -> LearnedOptimizationState:
    init_key, next_key = jax.random.split(key)
    # The library's wrappers pass all keywords on, also to optimizers that refuse a key.
    takes_key = "key" in inspect.signature(opt.init).parameters
    inner = opt.init(params, num_steps=num_steps, **({"key": init_key} if takes_key else {}))
    stripped = _without_params(opt, inner)
    inner = inner if stripped is None else stripped
    return LearnedOptimizationState(_as_arrays(inner, copy=True), next_key)


def _update(
    opt: Optimizer,
    grads: PyTree,
    state: LearnedOptimizationState,
    params: PyTree,
    value: jax.Array,
) -> tuple[PyTree, LearnedOptimizationState]:
    update_key, next_key = jax.random.split(state.key)
    owns_params = _without_params(opt, state.inner) is None
    inner = state.inner if owns_params else opt.set_params(state.inner, params)
    inner = opt.update(inner, grads, loss=value, model_state=None, key=update_key)
    new_params = opt.get_params(inner)
    updates = jax.tree.map(lambda new, old: (new - old).astype(old.dtype), new_params, params)
    if not owns_params:
        inner = opt.set_params(inner, ())
    return updates, LearnedOptimizationState(_as_arrays(inner), next_key)


def _without_params(opt: Optimizer, inner: Any) -> Any | None:
    """The state with ``()`` for parameters; ``None`` if the optimizer cannot set them."""
    try:
        stripped = opt.set_params(inner, ())
        return stripped if jax.tree.leaves(opt.get_params(stripped)) == [] else None
    except (AttributeError, TypeError, ValueError):
        return None


def _as_arrays(inner: Any, *, copy: bool = False) -> Any:
    """Turns counters that are Python numbers into typed arrays, as compiled steps need them.

    The first state is copied: an optimizer may keep the very parameters given to it, whose buffers
    could not be donated twice.
    """

    def definite(leaf: Any) -> jax.Array:
        array = jnp.asarray(leaf)
        return jnp.array(array, array.dtype, copy=copy)

    return jax.tree.map(definite, inner)
