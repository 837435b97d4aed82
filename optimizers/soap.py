"""SOAP: Adam in the eigenbasis of Shampoo's preconditioners.

Boundary: settings and an optax transformation; float32 state, whatever the parameters.

Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024, Algorithm 3,
https://arxiv.org/abs/2409.11321; defaults: https://github.com/nikhilvyas/SOAP. Updates are
counted as in https://github.com/haydn-jones/SOAP_JAX. That code drops the second moment of every
update that does not refresh the basis, so that sparse gradients diverge; here it is kept.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.ranges import check
from timetrial.framework.roles import Role
from timetrial.framework.spaces import OneOf, Range, Space
from timetrial.optimizers.linalg import eigh, orthonormal
from timetrial.optimizers.settings import (
    REGULARISATION,
    DecayedMomentSettings,
    by_role,
    decayed,
)

HIGHEST: Final = jax.lax.Precision.HIGHEST

Matrices = tuple[jax.Array, ...]
"""One square matrix per preconditioned axis of a tensor."""


_ROUNDING: Final = 1e-6
"""Smaller elements of a rotated tensor, as a share of the largest, are taken for rounding errors.

Adam would divide them by a root just as small, and walk at full speed along directions in which
there is no gradient.
"""


class Tensor(NamedTuple):
    """State of one tensor; every array is float32.

    Attributes:
        mu: first moment, in the basis of the tensor.
        nu: second moment, in the eigenbasis.
        statistics: averages of ``G G^T`` over all other axes, one per preconditioned axis.
        bases: their approximate eigenvectors, as columns.
    """

    mu: jax.Array
    nu: jax.Array
    statistics: Matrices
    bases: Matrices


class SoapState(NamedTuple):
    """State of SOAP.

    Attributes:
        step: updates made, int32.
        tensors: a ``Tensor`` in place of every tensor.
    """

    step: jax.Array
    tensors: Any


def scale_by_soap(
    b1: float = 0.95,
    b2: float = 0.95,
    statistics_decay: float | None = None,
    eps: float = 1e-8,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10_000,
    *,
    vectors: bool = False,
) -> optax.GradientTransformation:
    """SOAP's direction, before weight decay and learning rate.

    The first update is zero: it sets the eigenbasis. Later the basis is refreshed by one step of
    power iteration and a QR decomposition, in a branch that other updates do not run.

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        statistics_decay: decay of the preconditioners' averages, in [0, 1); None takes ``b2``.
        eps: added to the root of the second moment, > 0.
        precondition_frequency: updates from one refresh of the basis to the next, >= 1.
        max_precond_dim: longer axes keep the identity as basis.
        vectors: True gives vectors a basis, too. Else they are updated by Adam, as scalars are.
    """
    decay = b2 if statistics_decay is None else statistics_decay
    rule = _Rule(b1, b2, decay, eps, precondition_frequency, max_precond_dim, vectors)
    return optax.GradientTransformation(rule.init, rule.update)


class _Rule(NamedTuple):
    """The two functions of the transformation; fields as the arguments of ``scale_by_soap``."""

    b1: float
    b2: float
    decay: float
    eps: float
    frequency: int
    longest: int
    vectors: bool

    @property
    def largest(self) -> float:
        """10 times the largest ratio of the moments, before bias correction, in a fixed basis.

        Only after a refresh it can be larger: the second moment does not turn with the basis, and
        may be 0 where the first is not, as for embeddings whose rows mostly have no gradient.
        """
        share = 1 - self.b1**2 / self.b2 if self.b2 else 1.0  # by Cauchy-Schwarz
        return 10 * (1 - self.b1) / ((1 - self.b2) * share) ** 0.5 if share > 0 else math.inf

    def init(self, params: optax.Params) -> SoapState:
        return SoapState(jnp.zeros((), jnp.int32), jax.tree.map(self._start, params))

    def update(
        self, grads: optax.Updates, state: SoapState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, SoapState]:
        del params
        count = optax.safe_increment(state.step)
        tree: Any
        leaves, tree = jax.tree.flatten(grads)
        olds = tree.flatten_up_to(state.tensors)
        pairs = [self._step(leaf, old, count) for leaf, old in zip(leaves, olds, strict=True)]
        axes = [self._axes(leaf.shape) for leaf in leaves]
        tensors = jax.lax.switch(
            jnp.where(count == 1, 1, jnp.where(count % self.frequency == 0, 2, 0)),
            (lambda same: same, _first_bases, functools.partial(_refreshed, axes)),
            [tensor for _, tensor in pairs],
        )
        updates = tree.unflatten([update for update, _ in pairs])
        return updates, SoapState(count, tree.unflatten(tensors))

    def _axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The axes with a preconditioner."""
        if len(shape) == 1 and not self.vectors:
            return ()
        return tuple(i for i, size in enumerate(shape) if 1 < size <= self.longest)

    def _start(self, param: jax.Array) -> Tensor:
        zeros = jnp.zeros(param.shape, jnp.float32)
        sizes = [param.shape[i] for i in self._axes(param.shape)]
        squares = tuple(jnp.zeros((size, size), jnp.float32) for size in sizes)
        return Tensor(zeros, zeros, squares, tuple(jnp.eye(n, dtype=jnp.float32) for n in sizes))

    def _step(self, grad: jax.Array, old: Tensor, count: jax.Array) -> tuple[jax.Array, Tensor]:
        """Update of one tensor, and its state in the present basis."""
        axes, gradient = self._axes(grad.shape), grad.astype(jnp.float32)
        projected = _clean(_rotated(gradient, old.bases, axes, 0), axes)
        mu = self.b1 * old.mu + (1 - self.b1) * gradient
        nu = self.b2 * old.nu + (1 - self.b2) * projected**2
        adam = _clean(_rotated(mu, old.bases, axes, 0), axes) / (jnp.sqrt(nu) + self.eps)
        adam = jnp.clip(adam, -self.largest, self.largest)
        first, t = count == 1, count.astype(jnp.float32)
        corrected = jnp.sqrt(1 - self.b2**t) / (1 - self.b1**t)
        update = jnp.where(first, 0.0, corrected) * _rotated(adam, old.bases, axes, 1)
        statistics = tuple(
            self.decay * average + (1 - self.decay) * _gram(gradient, axis)
            for average, axis in zip(old.statistics, axes, strict=True)
        )
        mu, nu = jnp.where(first, old.mu, mu), jnp.where(first, old.nu, nu)
        return update.astype(grad.dtype), Tensor(mu, nu, statistics, old.bases)


def _gram(tensor: jax.Array, axis: int) -> jax.Array:
    """Products of all slices along an axis, summed over the others; shape ``(n, n)``."""
    others = [i for i in range(tensor.ndim) if i != axis]
    return jnp.tensordot(tensor, tensor, (others, others), precision=HIGHEST)


def _rotated(
    tensor: jax.Array, bases: Matrices, axes: tuple[int, ...], contracted: int
) -> jax.Array:
    """A tensor turned into the eigenbasis (``contracted=0``), or back from it (1)."""
    for basis, axis in zip(bases, axes, strict=True):
        turned = jnp.tensordot(tensor, basis, ((axis,), (contracted,)), precision=HIGHEST)
        tensor = jnp.moveaxis(turned, -1, axis)
    return tensor


def _clean(tensor: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """A rotated tensor without rounding errors: 0 where there is nothing else."""
    if not axes:
        return tensor
    largest = jnp.max(jnp.abs(tensor), axes, keepdims=True, initial=0.0)
    return jnp.where(jnp.abs(tensor) <= _ROUNDING * largest, 0.0, tensor)


def _first_bases(tensors: list[Tensor]) -> list[Tensor]:
    """Bases of eigenvectors, the largest eigenvalue first."""
    return [
        old._replace(bases=tuple(eigh(a)[1][:, ::-1] for a in old.statistics)) for old in tensors
    ]


def _refreshed(axes: list[tuple[int, ...]], tensors: list[Tensor]) -> list[Tensor]:
    """Bases after one step of power iteration, sorted by their estimated eigenvalues."""
    found = []
    for own, (mu, nu, statistics, bases) in zip(axes, tensors, strict=True):
        turned = []
        for axis, average, basis in zip(own, statistics, bases, strict=True):
            ahead = jnp.matmul(average, basis, precision=HIGHEST)
            order = jnp.argsort(jnp.sum(basis * ahead, axis=0), descending=True)
            nu = jnp.take(nu, order, axis=axis)
            turned.append(orthonormal(ahead[:, order]))
        found.append(Tensor(mu, nu, statistics, tuple(turned)))
    return found


@dataclasses.dataclass(frozen=True)
class SoapSettings(DecayedMomentSettings):
    """Settings of SOAP; see DecayedMomentSettings for the others.

    Attributes:
        statistics_decay: decay of the preconditioners' averages, in [0, 1); null takes ``b2``.
        precondition_frequency: updates from one refresh of the eigenbasis to the next, >= 1.
        max_precond_dim: longer axes of a tensor keep the identity as basis, >= 0.
        vectors: true gives vectors an eigenbasis, too; false updates them by Adam.
        embeddings: true gives embeddings an eigenbasis, too; false updates them by Adam.
    """

    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    b1: float = 0.95
    b2: float = 0.95
    statistics_decay: float | None = None
    precondition_frequency: int = 10
    max_precond_dim: int = 10_000
    vectors: bool = False
    embeddings: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, statistics_decay="[0, 1)", precondition_frequency=">= 1")
        check(self, max_precond_dim=">= 0")


def make_soap(settings: SoapSettings, horizon: Horizon) -> optax.GradientTransformation:
    """SOAP with decoupled weight decay; see ``scale_by_soap``."""
    rule = functools.partial(
        scale_by_soap,
        settings.b1,
        settings.b2,
        settings.statistics_decay,
        settings.eps,
        settings.precondition_frequency,
        vectors=settings.vectors,
    )
    direction = rule(settings.max_precond_dim)
    if not settings.embeddings:
        rules = {"soap": direction, "adam": rule(0)}  # no axis is short enough for a basis
        part = {Role.EMBEDDING: "adam"}
        direction = by_role(rules, lambda role: part.get(role, "soap"), horizon)
    return decayed(direction, settings, horizon)


# Learning rates: Vyas et al., 2024, appendix A (3.16e-4 to 1e-2); the others are our own.
_SPACE: Space = {
    "learning_rate": Range(3.16e-4, 1e-2),
    "one_minus_b1": Range(0.02, 0.2),
    "one_minus_b2": Range(0.005, 0.1),
    "warmup_fraction": OneOf((0.05,)),
    "weight_decay": Range(1e-4, 1.0),
    **REGULARISATION,
}

SOAP = OptimizerEntry(
    "SOAP: Adam in the eigenbasis of Shampoo, warm-up + cosine, lr 3e-3, weight decay 0.01",
    SoapSettings,
    make_soap,
    space=_SPACE,
    learning_rates=SoapSettings.learning_rates,
    takes=(),
    sets_targets=False,
)
