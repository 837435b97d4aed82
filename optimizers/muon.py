"""Muon: orthogonalised momentum for hidden matrices and convolutions, AdamW for the rest.

Boundary: settings and optax's transformations; the workload's roles say which tensor is which.

Sources: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon; defaults: https://github.com/KellerJordan/Muon;
consistent RMS: Liu et al., "Muon is Scalable for LLM Training", 2025,
https://arxiv.org/abs/2502.16982.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.ranges import check
from timetrial.framework.roles import Role
from timetrial.framework.spaces import OneOf, Range, Space
from timetrial.framework.types import PyTree
from timetrial.optimizers.precision import in_float32
from timetrial.optimizers.settings import REGULARISATION, DecayedSettings, decayed


@dataclasses.dataclass(frozen=True)
class MuonSettings(DecayedSettings):
    """Settings of Muon and of the AdamW beside it; see DecayedSettings for the others.

    Attributes:
        learning_rate: peak of the schedule for what Muon updates, >= 0.
        weight_decay: decoupled, on what Muon updates, >= 0.
        momentum: decay of the momentum, in [0, 1).
        nesterov: true looks ahead along the momentum.
        newton_schulz_steps: iterations of the orthogonalisation, >= 1.
        convolutions: true updates convolutions, too, as matrices of shape
            ``(height * width * inputs, outputs)``.
        consistent_rms: root mean square of an update, >= 0; 0.2 is about AdamW's. null scales
            updates by ``sqrt(max(1, outputs / inputs))`` instead.
        adamw_learning_rate: peak of the schedule for all other tensors, >= 0; null takes
            ``learning_rate``.
        adamw_weight_decay: decoupled, on all other tensors, >= 0.
        b1, b2: decay of AdamW's first and second moment, in [0, 1).
        eps: added to the root of AdamW's second moment, > 0.
    """

    learning_rate: float = 0.02
    momentum: float = 0.95
    nesterov: bool = True
    newton_schulz_steps: int = 5
    convolutions: bool = True
    consistent_rms: float | None = None
    adamw_learning_rate: float | None = 3e-4
    adamw_weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-10

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, momentum="[0, 1)", newton_schulz_steps=">= 1", consistent_rms=">= 0")
        check(self, adamw_learning_rate=">= 0", adamw_weight_decay=">= 0")
        check(self, b1="[0, 1)", b2="[0, 1)", eps="> 0")

    @property
    def adamw(self) -> DecayedSettings:
        """Learning rate, schedule and weight decay of the AdamW part."""
        rate = self.adamw_learning_rate
        return DecayedSettings(
            self.learning_rate if rate is None else rate,
            self.warmup_fraction,
            self.end_factor,
            self.adamw_weight_decay,
            self.decay_vectors,
        )


def make_muon(settings: MuonSettings, horizon: Horizon) -> optax.GradientTransformation:
    """Muon for hidden matrices and convolutions; AdamW for embeddings, heads, norms and the rest.

    Hidden tensors of other ranks than 2, such as attention with split heads, are AdamW's as well.
    """

    def parts(params: PyTree) -> PyTree:
        return jax.tree.map(part, params, horizon.roles(params))

    def part(param: Any, role: Role) -> str:
        hidden = role is Role.HIDDEN and len(param.shape) == 2
        convolution = role is Role.CONVOLUTION and settings.convolutions
        return "muon" if hidden or convolution else "adamw"

    orthogonal = optax.contrib.scale_by_muon(
        ns_steps=settings.newton_schulz_steps,
        beta=settings.momentum,
        nesterov=settings.nesterov,
        weight_dimension_numbers=_as_matrices,
    )
    scaled = optax.chain(orthogonal, _scaled(settings.consistent_rms))
    adam = optax.scale_by_adam(settings.b1, settings.b2, settings.eps)
    rules = {
        "muon": decayed(scaled, settings, horizon),
        "adamw": decayed(adam, settings.adamw, horizon),
    }
    return in_float32(optax.partition(rules, parts))


def _scaled(consistent_rms: float | None) -> optax.GradientTransformation:
    """Orthogonal updates, scaled by their shape; see MuonSettings."""

    def scaled(update: jax.Array) -> jax.Array:
        inputs, outputs = math.prod(update.shape[:-1]), update.shape[-1]
        if consistent_rms is None:
            return update * math.sqrt(max(1.0, outputs / inputs))
        return update * consistent_rms * math.sqrt(max(inputs, outputs))

    return optax.stateless(lambda updates, params: jax.tree.map(scaled, updates))


def _as_matrices(tensors: PyTree) -> PyTree:
    """Every tensor as a matrix: the last axis are the outputs, all others the inputs."""

    def numbers(tensor: Any) -> MuonDimensionNumbers:
        rank = len(tensor.shape)
        return MuonDimensionNumbers(tuple(range(rank - 1)), (rank - 1,))

    return jax.tree.map(numbers, tensors)


# Our own, around the defaults; nothing is published.
_SPACE: Space = {
    "learning_rate": Range(2e-3, 0.1),
    "one_minus_momentum": Range(0.02, 0.2),
    "adamw_learning_rate": Range(1e-4, 1e-2),
    "warmup_fraction": OneOf((0.05,)),
    "weight_decay": Range(1e-3, 0.3),
    **REGULARISATION,
}

MUON = OptimizerEntry(
    "Muon for hidden matrices, lr 0.02; AdamW for the rest, lr 3e-4; warm-up + cosine",
    MuonSettings,
    make_muon,
    space=_SPACE,
    learning_rates=MuonSettings.learning_rates,
    takes=(),
    sets_targets=False,
)
