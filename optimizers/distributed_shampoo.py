"""Distributed Shampoo: gradients preconditioned by inverse roots of block-diagonal statistics.

Boundary: settings and an optax transformation for one host; float32 state, whatever the parameters.

Sources: Gupta et al., "Shampoo: Preconditioned Stochastic Tensor Optimization", 2018,
https://arxiv.org/abs/1802.09568; Anil et al., "Scalable Second Order Optimization for Deep
Learning", 2020, https://arxiv.org/abs/2002.09018. The order of operations is that of AlgoPerf's
JAX version, https://github.com/mlcommons/algorithmic-efficiency. As submitted that version has no
preconditioner on any tensor (``skip_preconditioning_dim_size_gt=0``); ours has, by default.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Final, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.ranges import check, one_of
from timetrial.framework.roles import Role
from timetrial.framework.spaces import OneOf, Range, Space
from timetrial.optimizers.blocks import Blocks
from timetrial.optimizers.linalg import eigh
from timetrial.optimizers.settings import REGULARISATION, VECTORS, DecayedMomentSettings, by_role

HIGHEST: Final = jax.lax.Precision.HIGHEST
_TINY: Final = 1e-25  # added to norms

Graft = Literal["rmsprop_normalized", "rmsprop", "adam"]
Matrices = tuple[jax.Array, ...]
"""One stack of matrices ``(blocks, n, n)`` per axis."""


class Tensor(NamedTuple):
    """State of one tensor; every array is float32.

    Attributes:
        nu: second moment of the grafted optimizer.
        graft_momentum: momentum of the grafted optimizer's updates.
        momentum: momentum of the preconditioned updates.
        statistics: averages of ``G G^T`` by block.
        roots: their inverse roots.
    """

    nu: jax.Array
    graft_momentum: jax.Array
    momentum: jax.Array
    statistics: Matrices
    roots: Matrices


class ShampooState(NamedTuple):
    """State of Shampoo.

    Attributes:
        step: updates made, int32.
        tensors: a ``Tensor`` in place of every tensor.
    """

    step: jax.Array
    tensors: Any


@dataclasses.dataclass(frozen=True)
class Rule:
    """Shampoo's direction, before the learning rate: ``init`` and ``update`` of optax.

    The direction of a tensor is that of Shampoo, its norm that of the grafted optimizer's update.
    Inverse roots are computed in a branch that other updates do not run.

    Attributes:
        b1: decay of the momentum of updates, in [0, 1).
        b2: decay of the statistics and of the grafted second moment, in [0, 1).
        graft: optimizer that gives the norm: ``rmsprop_normalized`` (RMSProp on gradients of norm
            1), ``rmsprop``, or ``adam`` (RMSProp with Adam's bias correction).
        eps: added to the root of the grafted second moment, > 0.
        matrix_eps: share of the largest eigenvalue that is added to the statistics, > 0.
        weight_decay: added to the update before the momentum, times the parameters, >= 0.
        nesterov: true looks ahead along the momentum.
        block_size: longest axis of a preconditioned block, >= 1.
        merge_dims: neighbouring axes are merged while their product is at most this, >= 0.
        max_precond_dim: tensors with a longer axis get the grafted update, as scalars do, >= 0.
        precondition_frequency: updates from one inverse root to the next, >= 1.
        start_step: number of updates by the grafted optimizer alone, >= 0.
    """

    b1: float = 0.9
    b2: float = 0.999
    graft: Graft = "rmsprop_normalized"
    eps: float = 1e-8
    matrix_eps: float = 1e-6
    weight_decay: float = 0.0
    nesterov: bool = True
    block_size: int = 128
    merge_dims: int = 4096
    max_precond_dim: int = 4096
    precondition_frequency: int = 20
    start_step: int = 101

    def init(self, params: optax.Params) -> ShampooState:
        return ShampooState(jnp.zeros((), jnp.int32), jax.tree.map(self._start, params))

    def update(
        self, grads: optax.Updates, state: ShampooState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ShampooState]:
        """Updates and state; ``params`` are needed for weight decay."""
        if self.weight_decay and params is None:
            raise ValueError("params: expected them for the weight decay, got None")
        tree: Any
        given, tree = jax.tree.flatten(grads)
        leaves = [leaf.astype(jnp.float32) for leaf in given]
        held = tree.flatten_up_to(grads if params is None else params)
        olds = tree.flatten_up_to(state.tensors)
        olds = [self._averaged(leaf, old) for leaf, old in zip(leaves, olds, strict=True)]
        olds = jax.lax.cond(
            state.step % self.precondition_frequency == 0,
            functools.partial(_with_roots, self.matrix_eps),
            lambda same: same,
            olds,
        )
        made = [
            self._direction(leaf, old, param.astype(jnp.float32), state.step)
            for leaf, old, param in zip(leaves, olds, held, strict=True)
        ]
        updates = [u.astype(leaf.dtype) for (u, _), leaf in zip(made, given, strict=True)]
        tensors = tree.unflatten([tensor for _, tensor in made])
        return tree.unflatten(updates), ShampooState(optax.safe_increment(state.step), tensors)

    def _blocks(self, shape: tuple[int, ...]) -> Blocks | None:
        """The blocks of a tensor; None without preconditioner."""
        if not shape or not math.prod(shape) or max(shape) > self.max_precond_dim:
            return None
        return Blocks(shape, self.block_size, self.merge_dims)

    def _start(self, param: jax.Array) -> Tensor:
        blocks, zeros = self._blocks(param.shape), jnp.zeros(param.shape, jnp.float32)
        roots: Matrices = ()
        if blocks is not None:
            eyes = [jnp.eye(size, dtype=jnp.float32) for size in blocks.block]
            roots = tuple(jnp.tile(eye, (blocks.number, 1, 1)) for eye in eyes)
        return Tensor(zeros, zeros, zeros, tuple(self.matrix_eps * root for root in roots), roots)

    def _averaged(self, grad: jax.Array, old: Tensor) -> Tensor:
        """The state with the statistics of a gradient."""
        blocks = self._blocks(grad.shape)
        if blocks is None:
            return old
        parts = blocks.split(grad)
        return old._replace(
            statistics=tuple(
                self.b2 * average + (1 - self.b2) * _grams(parts, axis)
                for axis, average in enumerate(old.statistics, start=1)
            )
        )

    def _grafted(
        self, grad: jax.Array, nu: jax.Array, count: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Update and second moment of the grafted optimizer."""
        if self.graft == "rmsprop_normalized":
            grad = grad / (_norm(grad) + _TINY)
        nu = self.b2 * nu + (1 - self.b2) * grad**2
        made = (count + 1).astype(jnp.float32)
        bias = 1 - self.b2**made if self.graft == "adam" else 1.0
        return grad / (jnp.sqrt(nu / bias) + self.eps), nu

    def _direction(
        self, grad: jax.Array, old: Tensor, param: jax.Array, count: jax.Array
    ) -> tuple[jax.Array, Tensor]:
        """Direction and state of a tensor."""
        plain, nu = self._grafted(grad, old.nu, count)
        blocks, shampoo = self._blocks(grad.shape), plain
        if blocks is not None:
            turned = blocks.join(_preconditioned(blocks.split(grad), old.roots))
            shampoo = turned * (_norm(plain) / (_norm(turned) + _TINY))
        if self.weight_decay:
            decay = self.weight_decay * param
            plain, shampoo = plain + decay, shampoo + decay
        slow = self.b1 * old.graft_momentum + (1 - self.b1) * plain
        fast = self.b1 * old.momentum + (1 - self.b1) * shampoo
        started = count >= self.start_step
        momentum, now = jnp.where(started, fast, slow), jnp.where(started, shampoo, plain)
        ahead = self.b1 * momentum + (1 - self.b1) * now if self.nesterov else momentum
        return ahead, Tensor(nu, slow, fast, old.statistics, old.roots)


def scale_by_shampoo(rule: Rule) -> optax.GradientTransformation:
    """The direction of Shampoo as an optax transformation; see ``Rule``."""
    return optax.GradientTransformation(rule.init, rule.update)


def _norm(tensor: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(tensor**2))


def _grams(blocks: jax.Array, axis: int) -> jax.Array:
    """Products of the slices of every block along an axis; shape ``(blocks, n, n)``."""
    rows = jnp.moveaxis(blocks, axis, 1).reshape(blocks.shape[0], blocks.shape[axis], -1)
    return jnp.matmul(rows, rows.mT, precision=HIGHEST)


def _preconditioned(blocks: jax.Array, roots: Matrices) -> jax.Array:
    """Every block times the root of each of its axes."""
    for axis, root in enumerate(roots, start=1):
        moved = jnp.moveaxis(blocks, axis, 1)
        rows = moved.reshape(*moved.shape[:2], -1)
        turned = jnp.matmul(root, rows, precision=HIGHEST).reshape(moved.shape)
        blocks = jnp.moveaxis(turned, 1, axis)
    return blocks


def _with_roots(matrix_eps: float, tensors: list[Tensor]) -> list[Tensor]:
    """The tensors with new inverse roots of their statistics."""
    return [
        old._replace(
            roots=tuple(
                _inverse_root(average, 2 * len(old.statistics), matrix_eps, root)
                for average, root in zip(old.statistics, old.roots, strict=True)
            )
        )
        for old in tensors
    ]


def _inverse_root(
    matrices: jax.Array, order: int, matrix_eps: float, before: jax.Array
) -> jax.Array:
    """``(A + matrix_eps * max(lambda_max, 1e-6) I)^(-1/order)`` of each matrix.

    A root that is not finite is replaced by the one before.

    Args:
        matrices: symmetric, positive semi-definite, of shape ``(blocks, n, n)``.
        order: 2 times the number of preconditioned axes.
        matrix_eps: see ``scale_by_shampoo``.
        before: the roots before, of the same shape.
    """
    values, vectors = jax.vmap(eigh)(matrices)
    ridge = matrix_eps * jnp.maximum(values[:, -1:], 1e-6)
    powers = jnp.maximum(values + ridge, ridge) ** (-1 / order)
    roots = jnp.matmul(vectors * powers[:, None, :], vectors.mT, precision=HIGHEST)
    fine = jnp.all(jnp.isfinite(roots), axis=(1, 2), keepdims=True)
    return jnp.where(fine, roots, before)


@dataclasses.dataclass(frozen=True)
class ShampooSettings(DecayedMomentSettings):
    """Settings of Distributed Shampoo; see DecayedMomentSettings for the others.

    Attributes:
        weight_decay: added to the update before the momentum, times the parameters, >= 0.
        b1: decay of the momentum of updates, in [0, 1).
        b2: decay of the statistics and of the grafted second moment, in [0, 1).
        eps: added to the root of the grafted second moment, > 0.
        graft: optimizer that gives the norm of an update: ``rmsprop_normalized`` (RMSProp on
            gradients of norm 1), ``rmsprop``, or ``adam`` (RMSProp with Adam's bias correction).
        matrix_eps: share of the largest eigenvalue that is added to the statistics, > 0.
        nesterov: true looks ahead along the momentum.
        block_size: longest axis of a preconditioned block, >= 1.
        merge_dims: neighbouring axes are merged while their product is at most this, >= 0.
        max_precond_dim: tensors with a longer axis get the grafted update, as scalars do, >= 0.
        precondition_frequency: updates from one inverse root to the next, >= 1.
        start_step: number of updates by the grafted optimizer alone, >= 0.
        embeddings: true preconditions embeddings, too; false gives them the grafted update.
    """

    graft: Graft = "rmsprop_normalized"
    matrix_eps: float = 1e-6
    nesterov: bool = True
    block_size: int = 128
    merge_dims: int = 4096
    max_precond_dim: int = 4096
    precondition_frequency: int = 20
    start_step: int = 101
    embeddings: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, graft=Graft)
        check(self, matrix_eps="> 0", block_size=">= 1", merge_dims=">= 0", max_precond_dim=">= 0")
        check(self, precondition_frequency=">= 1", start_step=">= 0")


def make_shampoo(settings: ShampooSettings, horizon: Horizon) -> optax.GradientTransformation:
    """Distributed Shampoo; see ``Rule``."""
    shared = {field.name: getattr(settings, field.name) for field in dataclasses.fields(Rule)}
    rule = Rule(**shared)
    rules = {"shampoo": rule}
    part: dict[Role, str] = {}
    if not settings.embeddings:
        rules["grafted"] = dataclasses.replace(rule, max_precond_dim=0)
        part[Role.EMBEDDING] = "grafted"
    if not settings.decay_vectors:
        rules["undecayed"] = dataclasses.replace(rule, weight_decay=0.0)
        part |= dict.fromkeys(VECTORS, "undecayed")
    parts = {name: scale_by_shampoo(own) for name, own in rules.items()}
    direction = by_role(parts, lambda role: part.get(role, "shampoo"), horizon)
    return optax.chain(
        direction if part else scale_by_shampoo(rule),
        optax.scale_by_learning_rate(settings.learning_rates(horizon)),
    )


# ``shampoo/tuning_search_space.json`` in https://github.com/mlcommons/algorithmic-efficiency.
_SPACE: Space = {
    "learning_rate": Range(1e-4, 1e-2),
    "one_minus_b1": Range(0.01, 0.15),
    "b2": OneOf((0.999,)),
    "warmup_fraction": OneOf((0.05,)),
    "weight_decay": Range(0.005, 1.0),
    **REGULARISATION,
}

DISTRIBUTED_SHAMPOO = OptimizerEntry(
    "Distributed Shampoo grafted on RMSProp, warm-up + cosine, lr 1e-3",
    ShampooSettings,
    make_shampoo,
    space=_SPACE,
    learning_rates=ShampooSettings.learning_rates,
    takes=(),
    sets_targets=False,
)
