"""Celo2 in the race: the harness ``celo2``, and ``celo2_base`` for every tensor alike.

Boundary: settings and entries of the registry; the optimizer itself is in ``optimizers.celo2``.

Moudgil, Knyazev and Belilovsky, "Celo2: Towards Learned Optimization Free Lunch", 2026,
https://arxiv.org/abs/2602.19142.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

import jax
import jax.numpy as jnp
import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.errors import UserError
from timetrial.framework.paths import UserPath
from timetrial.framework.ranges import check
from timetrial.framework.roles import Role, Roles
from timetrial.framework.spaces import Range, Space
from timetrial.framework.types import PyTree
from timetrial.optimizers.celo2.transform import scale_by_celo2
from timetrial.optimizers.settings import CosineSettings
from timetrial.optimizers.weights import choice
from timetrial.optimizers.weights.catalogue import is_fetched, published
from timetrial.optimizers.weights.files import LearnedWeights, load_celo2
from timetrial.optimizers.weights.origins import PUBLISHED_ORIGINS, Origin, origin_of_file
from timetrial.optimizers.weights.trees import WeightsError

EMBEDDED: Final[dict[str, tuple[str, str]]] = {
    "celo2": (
        "celo2_base.state",
        "a8733d51e965051cb167a94c5574b310103f0034f72af62a02b8303e8b2e4567",
    ),
    "celo2-base": (
        "celo2_base.state",
        "a8733d51e965051cb167a94c5574b310103f0034f72af62a02b8303e8b2e4567",
    ),
}
"""File in ``embedded`` and its sha256, by the name of the published weights that it stands for.

The harness has no weights of its own yet: it takes those of the base.
"""

_EMBEDDED_ORIGIN: Final = Origin(
    "our own small embedded weights of Celo2, not the published ones",
    "18 CPU-minutes on 2 cores",
    "small synthetic tasks, from a start made by hand",
)


def _best_available(name: str) -> str:
    """The published weights if they have been fetched, otherwise ``embedded``."""
    return name if is_fetched(name) else "embedded"


@dataclasses.dataclass(frozen=True)
class Celo2BaseSettings(CosineSettings):
    """Settings of Celo2-base; see CosineSettings for the others.

    Attributes:
        learning_rate: peak of the warm-up + cosine schedule, >= 0: the root mean square of the
            change of every matrix per update, before weight decay.
        weights: ``celo2-base``, the published ones (``timetrial fetch celo2-base``), ``embedded``
            or the path of a file; by default the published ones if they have been fetched.
        weights_sha256: digest of the file of the weights; part of the run's identity. Filled in
            by default, checked if given.
    """

    published: ClassVar[str] = "celo2-base"

    learning_rate: float = 1e-2
    weights: UserPath = dataclasses.field(
        default_factory=functools.partial(_best_available, "celo2-base")
    )
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.weights:
            raise ValueError(f"weights: expected {self.published}, embedded or a path, got nothing")
        found = load(self.published, self.weights).sha256
        choice.checked_digest(self.weights, self.weights_sha256, found)
        object.__setattr__(self, "weights_sha256", found)


@dataclasses.dataclass(frozen=True)
class Celo2Settings(Celo2BaseSettings):
    """Settings of Celo2's harness; see Celo2BaseSettings.

    Attributes:
        weights: ``celo2``, the published ones (``timetrial fetch celo2``), ``embedded`` or the path
            of a file; by default the published ones if they have been fetched.
        multiplier_1d: learning rate of AdamW, which updates embeddings, vectors and scalars, as a
            factor of the learning rate, > 0. The published weights were trained with 20; their
            card uses them with 1.
    """

    published: ClassVar[str] = "celo2"

    weights: UserPath = dataclasses.field(
        default_factory=functools.partial(_best_available, "celo2")
    )
    multiplier_1d: float = 1.0

    def __post_init__(self) -> None:
        check(self, multiplier_1d="> 0")
        super().__post_init__()


@functools.lru_cache(maxsize=4)
def load(name: str, weights: str) -> LearnedWeights:
    """Loads the weights of a setting.

    Args:
        name: of the published weights.
        weights: this name, ``embedded`` or a path.

    Raises:
        UserError: they are missing, damaged or not Celo2's.
    """
    try:
        if weights == name:
            return published(name)
        return _embedded(name) if weights == "embedded" else load_celo2(Path(weights))
    except WeightsError as error:
        raise UserError(f"optimizer.weights: {error}") from error


def _embedded(name: str) -> LearnedWeights:
    """The weights that come with the package, which ``embedded/CARD.md`` describes."""
    file, digest = EMBEDDED[name]
    path = Path(__file__).parent / "embedded" / file
    weights = load_celo2(path, source="embedded")
    if weights.sha256 != digest:
        raise WeightsError(
            f"{path}: the file has changed: expected sha256 {digest}, got {weights.sha256}; "
            "install timetrial again"
        )
    return weights


def variant(settings: Celo2BaseSettings) -> str:
    """Name of the weights: ``celo2[published]``, ``celo2[embedded]``, or the name of the file."""
    named = {settings.published: "published", "embedded": "embedded"}
    return named.get(settings.weights) or Path(settings.weights).stem


def notes(settings: Celo2BaseSettings, horizon: Horizon) -> Mapping[str, str]:
    """Tags of a run: the weights, their source and their digest."""
    del horizon
    return {
        "celo2.weights": settings.weights,
        "celo2.weights_source": load(settings.published, settings.weights).source,
        "celo2.weights_sha256": settings.weights_sha256,
        **_origin(settings).tags(),
    }


def _origin(settings: Celo2BaseSettings) -> Origin:
    if settings.weights == settings.published:
        return PUBLISHED_ORIGINS[settings.published]
    if settings.weights == "embedded":
        return _EMBEDDED_ORIGIN
    return origin_of_file(Path(settings.weights).name)


def make_celo2_base(settings: Celo2BaseSettings, horizon: Horizon) -> optax.GradientTransformation:
    """Celo2 without orthogonalization, on every tensor: ``p -= lr (u + weight_decay p)``."""
    return _celo2(settings, horizon, orthogonalize=False)


def make_celo2(settings: Celo2Settings, horizon: Horizon) -> optax.GradientTransformation:
    """Celo2's harness: matrices by Celo2 with orthogonalization, the rest by AdamW.

    AdamW, with decays 0.9 and 0.95, updates vectors, scalars and embeddings, at ``multiplier_1d``
    times the learning rate.
    """
    rates = settings.learning_rates(horizon)
    adam = optax.adamw(
        lambda count: jnp.asarray(rates(count)) * settings.multiplier_1d,
        b1=0.9,
        b2=0.95,
        eps=1e-8,
        weight_decay=settings.weight_decay,
    )
    rules = {"celo2": _celo2(settings, horizon, orthogonalize=True), "adam": adam}
    return optax.multi_transform(rules, functools.partial(_rules, horizon.roles))


def _celo2(
    settings: Celo2BaseSettings, horizon: Horizon, *, orthogonalize: bool
) -> optax.GradientTransformation:
    weights = load(settings.published, settings.weights).meta_params
    return optax.chain(
        scale_by_celo2(weights, orthogonalize=orthogonalize),
        optax.add_decayed_weights(settings.weight_decay),
        optax.scale_by_learning_rate(settings.learning_rates(horizon)),
    )


def _rules(roles: Roles, params: PyTree) -> PyTree:
    """``adam`` for embeddings and for rank below 2, else ``celo2``."""

    def rule(param: jax.Array, role: Role) -> str:
        return "adam" if jnp.ndim(param) < 2 or role is Role.EMBEDDING else "celo2"

    return jax.tree.map(rule, params, roles(params))


# With steps of a fixed size the useful rates are a third to a tenth of Adam's.
_SPACE: Space = {"learning_rate": Range(1e-3, 1e-1), "weight_decay": Range(1e-4, 1.0)}

CELO2 = OptimizerEntry(
    "Celo2, a learned optimizer: orthogonalized matrices, AdamW for the rest",
    Celo2Settings,
    make_celo2,
    takes=(),
    variant=variant,
    notes=notes,
    space={**_SPACE, "multiplier_1d": Range(0.3, 30.0)},
    learning_rates=Celo2Settings.learning_rates,
    sets_targets=False,
    learned=True,
)
CELO2_BASE = OptimizerEntry(
    "Celo2-base, a learned optimizer of 347 numbers, for all tensors alike",
    Celo2BaseSettings,
    make_celo2_base,
    takes=(),
    variant=variant,
    notes=notes,
    space=_SPACE,
    learning_rates=Celo2BaseSettings.learning_rates,
    sets_targets=False,
    learned=True,
)
