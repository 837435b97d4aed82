"""Extra inputs of an optimizer's update: the loss, closures of it, the remaining budget.

Boundary: pure; ``step`` computes them, entries declare which ones they take.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import jax
import optax

from timetrial.framework.errors import ConfigError
from timetrial.framework.types import PyTree

FROM_STEP: Final = ("value", "grad", "value_fn", "grad_fn")
"""Extra inputs that every update can have; see ``of_step``."""

REMAINING_FRACTION: Final = "remaining_fraction"
"""Extra input fed by a callback: share of the budget that is left, a float32 scalar in [0, 1]."""

Gradients = Callable[[PyTree], tuple[jax.Array, PyTree]]
"""Maps parameters to the loss and its gradient, on one batch with one key."""


def of_step(gradients: Gradients, loss: jax.Array, grads: PyTree) -> dict[str, Any]:
    """The extra inputs of one update, by name, as optax calls them.

    ``value`` is the training loss at the present parameters, a scalar; ``grad`` its gradient.
    ``value_fn(params)`` and ``grad_fn(params, ...)`` compute both elsewhere, on the same batch with
    the same key: one more forward pass, or forward and backward pass, for each call.

    Args:
        gradients: loss and gradient at any parameters.
        loss: the loss at the present parameters.
        grads: its gradient.
    """

    def value_fn(params: PyTree) -> jax.Array:
        return gradients(params)[0]

    def grad_fn(params: PyTree, *unused: object) -> PyTree:
        return gradients(params)[1]  # SAM of optax passes a counter as well

    values = (loss, grads, value_fn, grad_fn)
    return dict(zip(FROM_STEP, values, strict=True))


def taken(
    tx: optax.GradientTransformation, takes: Sequence[str] | None, available: Mapping[str, Any]
) -> dict[str, Any]:
    """The extra inputs to pass to an update.

    Args:
        tx: the optimizer.
        takes: names declared; None passes those that ``tx.update`` names. Where it takes any
            keyword, that is ``value`` and all inputs from callbacks: no closures.
        available: values by name.

    Raises:
        ConfigError: a name is not available, or ``tx.update`` does not accept it.
    """
    named, accepts_all = _keywords(tx)
    if takes is None:
        unasked = ("grad", "value_fn", "grad_fn")
        return {
            name: value
            for name, value in available.items()
            if name in named or (accepts_all and name not in unasked)
        }
    for name in takes:
        if name not in available:
            known = ", ".join(available)
            raise ConfigError(f"takes: expected names among {known}, got {name!r}")
        if not (accepts_all or name in named):
            accepted = ", ".join(sorted(named & {*available})) or "none"
            raise ConfigError(
                f"takes: {name!r} is declared, but the optimizer's update does not accept it; "
                f"accepted: {accepted}"
            )
    return {name: available[name] for name in takes}


def _keywords(tx: optax.GradientTransformation) -> tuple[set[str], bool]:
    """Names of the extra arguments of an update, and whether it takes any other."""
    if not isinstance(tx, optax.GradientTransformationExtraArgs):
        return set(), False
    try:
        parameters = inspect.signature(tx.update).parameters.values()
    except (ValueError, TypeError):  # written in C, without a signature
        return set(), True
    named = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)
