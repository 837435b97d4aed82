"""Pallas kernels over tiles on GPUs: every tile is read once and written once.

Boundary: launches a kernel, one program for each tile; the arithmetic is the caller's.

XLA drops optimization barriers on GPUs before it fuses: it then packs all tensors again in every
reading of the tiles. It fuses nothing into a Pallas kernel.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp

PyTree = Any
Kernel = Callable[[PyTree, PyTree, PyTree, PyTree], None]
"""Called with references to one tile: state and inputs to read, new state and results to write."""

KERNELS: Final = ("auto", "plain", "pallas")
"""``plain``: XLA only. ``pallas``: always, on a CPU interpreted. ``auto``: see ``compiles``."""

_ELEMENTS_PER_WARP = 512
_MOST_WARPS = 8


def launch(kernel: Kernel, state: PyTree, inputs: PyTree, found: PyTree) -> tuple[PyTree, PyTree]:
    """Runs a kernel for every tile; the new state takes the memory of the old one.

    Sizes of the arrays that a kernel computes with must be powers of two.

    Args:
        kernel: the kernel.
        state: arrays to update, with a leading axis of tiles, as all arrays here.
        inputs: arrays to read.
        found: shapes and dtypes of the further results.

    Returns:
        The new state and the further results.
    """
    # Not at the top: without Pallas, plain XLA must still work.
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    read, read_tree = jax.tree.flatten((state, inputs))
    made, made_tree = jax.tree.flatten((state, found))
    elements = max(math.prod(x.shape[1:]) for x in read)
    warps = max(1, min(_MOST_WARPS, elements // _ELEMENTS_PER_WARP))

    def body(*references: Any) -> None:
        kernel(
            *jax.tree.unflatten(read_tree, references[: len(read)]),
            *jax.tree.unflatten(made_tree, references[len(read) :]),
        )

    def tile_of(x: Any) -> Any:
        rest = x.shape[1:]
        return pallas.BlockSpec((None, *rest), lambda i: (i, *[0] * len(rest)))

    call = pallas.pallas_call(
        body,
        grid=(read[0].shape[0],),
        in_specs=[tile_of(x) for x in read],
        out_specs=[tile_of(x) for x in made],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in made],
        input_output_aliases={i: i for i in range(len(jax.tree.leaves(state)))},
        compiler_params=triton.CompilerParams(num_warps=warps),
        interpret=jax.default_backend() == "cpu",
    )
    done: tuple[PyTree, PyTree] = jax.tree.unflatten(made_tree, call(*read))
    return done


def check_choice(kernels: str) -> None:
    """Raises a ValueError unless it is one of ``KERNELS``."""
    if kernels not in KERNELS:
        raise ValueError(f"kernels: expected {', '.join(KERNELS)}, got {kernels!r}")


def chosen(kernels: str, weights: PyTree) -> bool:
    """Whether an update that is traced now takes Pallas kernels.

    Args:
        kernels: one of ``KERNELS``.
        weights: of the optimizer. Where they are traced, ``auto`` takes plain XLA, because kernels
            have no derivative.
    """
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(weights))
    return kernels == "pallas" or (kernels == "auto" and not traced and compiles())


def compiles() -> bool:
    """Whether Pallas kernels compile here, for a single GPU.

    Among several devices, XLA would gather all tiles on each of them before a kernel.
    """
    return jax.default_backend() == "gpu" and jax.device_count() == 1 and _trial()


@functools.cache
def _trial() -> bool:
    """Compiles a small kernel; warns where that fails."""
    tile = jax.ShapeDtypeStruct((1, 64, 64), jnp.float32)
    found = jax.ShapeDtypeStruct((1,), jnp.float32)
    try:
        jax.jit(lambda x: launch(_trial_kernel, x, (), found)).lower(tile).compile()
    except Exception as error:  # import, lowering and compilation raise many types
        warnings.warn(f"plain XLA instead of Pallas kernels, which fail: {error}", stacklevel=2)
        return False
    return True


def _trial_kernel(state: Any, inputs: Any, new: Any, found: Any) -> None:
    del inputs
    new[...] = jax.lax.rsqrt(jnp.exp(state[...]))
    found[...] = state[...].sum(0).sum(0)
