"""States inside states: of a transformation in ``optax.chain``, ``masked`` or ``partition``.

Boundary: pure functions of trees; entries build their ``eval_params`` from them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import optax

from timetrial.framework.types import PyTree

S = TypeVar("S")


def find_states(opt_state: PyTree, kind: type[S]) -> list[S]:
    """All states of a class inside an optimizer's state, from the outside in, in order.

    Args:
        opt_state: state of any combination of transformations.
        kind: class of the states looked for.

    Raises:
        LookupError: there is none.
    """
    found = [
        node
        for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kind))
        if isinstance(node, kind)
    ]
    if not found:
        raise LookupError(f"expected a {kind.__name__} inside the state, got {_names(opt_state)}")
    return found


def at_owned(function: Callable[..., Any], own: PyTree, params: PyTree) -> PyTree:
    """Parameters with ``function(own, param)`` where a transformation owns them.

    Args:
        function: maps the leaves of both trees to a parameter.
        own: tree of a transformation's state; ``optax.MaskedNode`` stands for a tensor, or several,
            of which it knows nothing.
        params: parameters, which stay as they are there.
    """

    def chosen(own: Any, param: PyTree) -> PyTree:
        return param if isinstance(own, optax.MaskedNode) else function(own, param)

    return jax.tree.map(chosen, own, params, is_leaf=lambda x: isinstance(x, optax.MaskedNode))


def _names(opt_state: PyTree) -> str:
    if isinstance(opt_state, tuple) and not hasattr(opt_state, "_fields"):
        return ", ".join(type(state).__name__ for state in opt_state) or "()"
    return type(opt_state).__name__
