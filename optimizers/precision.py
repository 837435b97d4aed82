"""Optimizers that compute in float32, whatever the parameters.

Boundary: a wrapper of optax transformations; no formula of its own.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax


def in_float32(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The transformation on float32 copies; updates have the dtypes of the gradients.

    States of optax in the dtype of bfloat16 or float16 parameters lose small moments, and a
    schedule turns some of them to float32 at the first update. Inside, everything is float32.

    Args:
        tx: any transformation. Extra inputs that are floating-point arrays are converted, too.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params: optax.Params) -> optax.OptState:
        return inner.init(_float32(params))

    def update(
        grads: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **inputs: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        given = {name: _float32(value) for name, value in inputs.items()}
        updates, state = inner.update(_float32(grads), state, _float32(params), **given)
        return jax.tree.map(lambda new, old: new.astype(old.dtype), updates, grads), state

    return optax.GradientTransformationExtraArgs(init, update)


def _float32(tree: Any) -> Any:
    """Copies of the floating-point arrays in a tree; other leaves as they are."""

    def converted(leaf: Any) -> Any:
        floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(jnp.float32) if floating else leaf

    return jax.tree.map(converted, tree)
