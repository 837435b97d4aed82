"""Roles of parameters: hidden matrix, convolution, embedding, head, norm, bias, scalar.

Boundary: pure functions of names and shapes; workloads override them where names say too little.
Lists of optimizers import it, so JAX is imported inside the functions.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from typing import Any

from timetrial.framework.types import PyTree


class Role(enum.StrEnum):
    """The part of a tensor in a model; some optimizers update parts by different rules.

    ``HIDDEN`` are matrices between activations, ``HEAD`` the matrix or kernel that makes the
    outputs. ``NORM`` are scales and shifts of normalisation layers, ``BIAS`` all other vectors.
    """

    HIDDEN = "hidden"
    CONVOLUTION = "convolution"
    EMBEDDING = "embedding"
    HEAD = "head"
    NORM = "norm"
    BIAS = "bias"
    SCALAR = "scalar"


Roles = Callable[[PyTree], PyTree]
"""Maps parameters, or their shapes, to a tree of the same structure with a Role at every leaf."""

_EMBEDDING = re.compile(r"embed|(^|_)(wte|wpe|lookup)(_|$)")
_NORM = re.compile(r"norm|^(bn|ln)\d*$|(^|_)(bn|ln)\d*(_|$)")
_HEAD = re.compile(r"(^|_)(head|logits?|classifier|readout|output_projection)(_|\d|$)")
_KERNEL = ("kernel", "w", "weight")
_ATTENTION = re.compile(r"attention|attn|^(query|key|value|qkv)$")


def roles_by_name(params: PyTree) -> PyTree:
    """The roles of parameters by name and rank, with the names of Flax and Haiku in mind.

    Rank 0 is ``SCALAR`` outside norms. Names with ``embed`` are ``EMBEDDING`` from rank 2 on, those
    of norm layers ``NORM``, those with ``head``, ``logits``, ``classifier`` or ``readout`` ``HEAD``
    from rank 2 on. Other vectors are ``BIAS``, other matrices ``HIDDEN``. Kernels of rank 3 and
    more are ``CONVOLUTION``, but ``HIDDEN`` in attention layers, which split their heads, and
    ``BIAS`` where all axes but one have size 1 (class tokens).
    """
    from jax.tree_util import tree_map_with_path

    return tree_map_with_path(_role, params)


def last_layer(roles: PyTree, layer: str) -> PyTree:
    """The roles with ``HEAD`` for the kernel of the last layer that Flax numbers.

    Args:
        roles: as ``roles_by_name`` returns them, a nested mapping.
        layer: name without its number: ``Dense`` chooses the highest ``Dense_<number>`` at the top.

    Raises:
        ValueError: there is no such layer.
    """
    numbers = [int(m[1]) for key in roles if (m := re.fullmatch(rf"{layer}_(\d+)", str(key)))]
    if not numbers:
        raise ValueError(f"layer: expected a layer {layer}_0 at the top, got {', '.join(roles)}")
    head = f"{layer}_{max(numbers)}"

    def role(path: tuple[Any, ...], found: Role) -> Role:
        vector = found in (Role.BIAS, Role.SCALAR)
        return Role.HEAD if _names(path)[0] == head.lower() and not vector else found

    from jax.tree_util import tree_map_with_path

    return tree_map_with_path(role, roles)


def tensors(params: PyTree) -> list[str]:
    """The name of every tensor, in the order of the leaves: ``Dense_0/kernel``."""
    from jax.tree_util import keystr, tree_flatten_with_path

    leaves = tree_flatten_with_path(params)[0]
    return [keystr(path, simple=True, separator="/") for path, _ in leaves]


def _names(path: tuple[Any, ...]) -> list[str]:
    """The parts of a path in lower case; Haiku joins several with slashes."""
    from jax.tree_util import keystr

    parts = (keystr((key,), simple=True) for key in path)
    return [name for part in parts for name in part.lower().split("/")] or [""]


def _role(path: tuple[Any, ...], leaf: Any) -> Role:
    names, shape = _names(path), tuple(leaf.shape)
    rank = len(shape)
    if rank >= 2 and any(map(_EMBEDDING.search, names)):
        return Role.EMBEDDING
    if rank <= 1 and any(map(_NORM.search, names)):
        return Role.NORM
    if rank <= 1:
        return Role.BIAS if rank else Role.SCALAR
    if any(map(_ATTENTION.search, names)):
        return Role.HIDDEN
    if any(map(_HEAD.search, names)):
        return Role.HEAD
    if rank == 2:
        return Role.HIDDEN
    vector = max(shape) == math.prod(shape) and names[-1] not in _KERNEL
    return Role.BIAS if vector else Role.CONVOLUTION
