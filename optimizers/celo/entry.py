"""Celo and Celo-Adam in the race, with their published weights or a file's.

Boundary: settings and entries of the registry; the optimizers are in ``optimizers.celo``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.errors import UserError
from timetrial.framework.paths import UserPath
from timetrial.framework.ranges import check
from timetrial.framework.spaces import Range, Space
from timetrial.optimizers.celo.transform import celo, celo_adam
from timetrial.optimizers.weights import choice
from timetrial.optimizers.weights.catalogue import missing, published
from timetrial.optimizers.weights.files import LearnedWeights, load_celo, load_celo_adam
from timetrial.optimizers.weights.origins import PUBLISHED_ORIGINS, origin_of_file
from timetrial.optimizers.weights.trees import WeightsError


@dataclasses.dataclass(frozen=True)
class CeloSettings:
    """Settings of Celo.

    Attributes:
        weights: ``celo``, the published ones (``timetrial fetch celo``), or the path of a file.
        weight_decay: L2 regularisation inside the optimizer, >= 0.
        prompt: number of steps that it is built for, as a factor of the budget's steps, > 0.
        weights_sha256: digest of the file of the weights; part of the run's identity. Filled in
            by default where the file is there, checked if given.
    """

    published: ClassVar[str] = "celo"

    weights: UserPath = "celo"
    weight_decay: float = 0.0
    prompt: float = 1.0
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        check(self, weight_decay=">= 0", prompt="> 0")
        if not self.weights:
            raise ValueError(f"weights: expected {self.published} or a path, got nothing")
        try:
            found = load(self).sha256
        except UserError:
            # Without the published weights the settings are still worth showing; ``make`` fails.
            if self.weights != self.published:
                raise
            return
        object.__setattr__(self, "weights_sha256", found)


@dataclasses.dataclass(frozen=True)
class CeloAdamSettings(CeloSettings):
    """Settings of Celo-Adam.

    Attributes:
        weights: ``celo-adam``, the published ones (``timetrial fetch celo-adam``), or the path of a
            file, such as that of AlgoPerf's submission sinv6.
    """

    published: ClassVar[str] = "celo-adam"

    weights: UserPath = "celo-adam"


def load(settings: CeloSettings) -> LearnedWeights:
    """Loads the weights of the settings.

    Raises:
        UserError: they are missing, damaged, of another rule, or have another digest than given.
    """
    found = _read(settings.published, settings.weights)
    choice.checked_digest(settings.weights, settings.weights_sha256, found.sha256)
    return found


def _read(name: str, weights: str) -> LearnedWeights:
    """The published weights of this name, or those of a file for the same rule."""
    read = load_celo_adam if name == CeloAdamSettings.published else load_celo
    try:
        return published(name) if weights == name else read(Path(weights))
    except WeightsError as error:
        raise UserError(f"optimizer.weights: {error}") from error


def variant(settings: CeloSettings) -> str:
    """Name of the weights: ``celo[published]``, or the name of the file."""
    named = settings.weights == settings.published
    return "published" if named else Path(settings.weights).stem


def told_steps(settings: CeloSettings, horizon: Horizon) -> int:
    """``prompt`` times the steps of the budget, rounded down, >= 1.

    Raises:
        UserError: the number of steps of the budget is unknown.
    """
    unknown = (
        "Celo is built for a number of steps: expected budget.steps, or "
        "budget.expected_steps with budget.seconds"
    )
    return choice.prompted_steps(settings.prompt, horizon, unknown)


def make(settings: CeloSettings, horizon: Horizon) -> optax.GradientTransformation:
    """Celo, or Celo-Adam from its own settings."""
    rule = celo_adam if isinstance(settings, CeloAdamSettings) else celo
    return rule(
        told_steps(settings, horizon),
        meta_params=load(settings).meta_params,
        weight_decay=settings.weight_decay,
    )


def notes(settings: CeloSettings, horizon: Horizon) -> Mapping[str, str]:
    """Tags of a run: weights and their origin, and the number of steps it is built for."""
    named = settings.weights == settings.published
    origin = (
        PUBLISHED_ORIGINS[settings.published]
        if named
        else origin_of_file(Path(settings.weights).name)
    )
    return {
        "celo.weights": settings.weights,
        "celo.weights_sha256": settings.weights_sha256,
        "celo.num_steps": str(told_steps(settings, horizon)),
        **origin.tags(),
    }


# As for VeLO; AlgoPerf's submission sinv6_75 is sinv6 built for 75 % of the steps.
_SPACE: Space = {"prompt": Range(0.25, 2.0), "weight_decay": Range(1e-7, 1e-2)}

CELO = OptimizerEntry(
    "Celo, a learned optimizer with one learned schedule for all tensors",
    CeloSettings,
    make,
    needs_steps=True,
    takes=("value",),
    variant=variant,
    notes=notes,
    space=_SPACE,
    sets_targets=False,
    learned=True,
    unavailable=functools.partial(missing, CeloSettings.published),
)
CELO_ADAM = OptimizerEntry(
    "Adam with Celo's learned schedule; reads AlgoPerf's sinv6 too",
    CeloAdamSettings,
    make,
    needs_steps=True,
    takes=("value",),
    variant=variant,
    notes=notes,
    space=_SPACE,
    sets_targets=False,
    learned=True,
    unavailable=functools.partial(missing, CeloAdamSettings.published),
)
