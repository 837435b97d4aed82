"""Decompositions of many small matrices, one after the other on a CPU.

Boundary: wrappers of jax.numpy.linalg; pure, jittable.

jaxlib's batched LAPACK calls wait for helpers in the thread pool that they occupy themselves: two
of them at once never end on two cores (seen with jax 0.10.2), and many-core machines crash,
https://github.com/jax-ml/jax/issues/39292. Other devices keep the batched calls.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def eigh(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues, the smallest first, and eigenvectors as columns of a symmetric matrix.

    Args:
        matrix: of shape ``(n, n)``; ``jax.vmap`` adds axes.
    """
    values, vectors = jax.lax.platform_dependent(matrix, cpu=_one_by_one_eigh, default=_eigh)
    return values, vectors


def orthonormal(matrix: jax.Array) -> jax.Array:
    """Orthonormal columns of a QR decomposition.

    Args:
        matrix: of shape ``(n, n)``; ``jax.vmap`` adds axes.
    """
    found: jax.Array = jax.lax.platform_dependent(matrix, cpu=_one_by_one_qr, default=_qr)
    return found


def _eigh(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


def _qr(matrix: jax.Array) -> jax.Array:
    return jnp.linalg.qr(matrix)[0]


_one_by_one_eigh = jax.custom_batching.sequential_vmap(_eigh)
_one_by_one_qr = jax.custom_batching.sequential_vmap(_qr)
