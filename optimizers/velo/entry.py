"""VeLO in the race: prompted with the steps of the budget, or fed the remaining share.

Boundary: settings and entries of the registry; the optimizer itself is in ``optimizers.velo``.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import optax

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.errors import UserError
from timetrial.framework.paths import UserPath
from timetrial.framework.ranges import check
from timetrial.framework.spaces import Range, Space
from timetrial.optimizers.velo import accumulation_steps, velo
from timetrial.optimizers.velo.tiling.kernels import KERNELS
from timetrial.optimizers.velo.weights import (
    Weights,
    WeightsError,
    embedded_weights,
    google_weights,
    has_google_weights,
    load_weights,
)
from timetrial.optimizers.weights import choice
from timetrial.optimizers.weights.origins import PUBLISHED_ORIGINS, Origin, origin_of_file

PAPER_MAX_TRAINING_STEPS = 200_000
"""The paper's value; the released wrapper's own default is 150,000."""


def best_available() -> str:
    """``google`` if Google's weights have been fetched, otherwise ``embedded``."""
    return "google" if has_google_weights() else "embedded"


@dataclasses.dataclass(frozen=True)
class VeloFeedSettings:
    """Settings of fed VeLO.

    Attributes:
        weights: ``google``, ``embedded`` or the path of a checkpoint; by default Google's if
            they have been fetched (``timetrial fetch velo``), otherwise the embedded ones.
        weight_decay: L2 regularisation inside the optimizer, >= 0.
        max_training_steps: longer trainings accumulate gradients, >= 1; see ``velo``.
        weights_sha256: digest of the file of the weights; part of the run's identity. Filled in
            by default, checked if given.
    """

    weights: UserPath = dataclasses.field(default_factory=best_available)
    weight_decay: float = 0.0
    max_training_steps: int = PAPER_MAX_TRAINING_STEPS
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        check(self, weight_decay=">= 0", max_training_steps=">= 1")
        if not self.weights:
            raise ValueError("weights: expected google, embedded or a path, got nothing")
        found = load(self.weights).sha256
        choice.checked_digest(self.weights, self.weights_sha256, found)
        object.__setattr__(self, "weights_sha256", found)


@dataclasses.dataclass(frozen=True)
class VeloSettings(VeloFeedSettings):
    """Settings of VeLO.

    Attributes:
        prompt: VeLO's prompt, as a factor of the budget's steps, > 0.
    """

    prompt: float = 1.0

    def __post_init__(self) -> None:
        check(self, prompt="> 0")
        super().__post_init__()


@dataclasses.dataclass(frozen=True)
class VeloShortSettings(VeloSettings):
    """Settings of VeLO Short; see VeloSettings."""

    prompt: float = 0.75


@functools.lru_cache(maxsize=2)
def load(weights: str) -> Weights:
    """Loads the weights of a setting.

    Raises:
        UserError: they are missing, damaged or not VeLO's.
    """
    try:
        if weights == "google":
            return google_weights()
        return embedded_weights() if weights == "embedded" else load_weights(Path(weights))
    except WeightsError as error:
        raise UserError(f"optimizer.weights: {error}") from error


def variant(settings: VeloFeedSettings) -> str:
    """Name of the weights, as in ``velo[google]`` or ``velo[embedded]``."""
    named = settings.weights in ("google", "embedded")
    return settings.weights if named else Path(settings.weights).stem


def prompted_steps(settings: VeloSettings, horizon: Horizon) -> int:
    """Steps in VeLO's prompt: ``prompt`` times the steps of the budget, rounded down, >= 1.

    Raises:
        UserError: the number of steps of the budget is unknown.
    """
    unknown = (
        "VeLO is prompted with the number of steps: expected budget.steps, or "
        "budget.expected_steps with budget.seconds; velo_feed needs neither"
    )
    return choice.prompted_steps(settings.prompt, horizon, unknown)


def told_steps(settings: VeloFeedSettings, horizon: Horizon) -> int:
    """``num_steps`` of ``velo``; for fed VeLO it only spaces the loss features.

    Fed VeLO takes the steps of the budget if they are known, else the workload's step hint.
    """
    if isinstance(settings, VeloSettings):
        return prompted_steps(settings, horizon)
    return horizon.steps or horizon.step_hint


def make_velo(settings: VeloSettings, horizon: Horizon) -> optax.GradientTransformation:
    """Prompted VeLO; it ignores ``remaining_fraction``."""
    tx = _make(settings, horizon)

    def update(
        grads: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        remaining_fraction: object = None,
        **extra: object,
    ) -> tuple[optax.Updates, optax.OptState]:
        del remaining_fraction
        updates, state = tx.update(grads, state, params, **extra)
        return updates, state

    return optax.GradientTransformationExtraArgs(tx.init, update)


def make_velo_feed(settings: VeloFeedSettings, horizon: Horizon) -> optax.GradientTransformation:
    """Fed VeLO; an update without ``remaining_fraction`` raises a TypeError."""
    tx = _make(settings, horizon)

    def update(
        grads: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        remaining_fraction: object,
        **extra: object,
    ) -> tuple[optax.Updates, optax.OptState]:
        extra["remaining_fraction"] = remaining_fraction
        updates, state = tx.update(grads, state, params, **extra)
        return updates, state

    return optax.GradientTransformationExtraArgs(tx.init, update)


def _make(settings: VeloFeedSettings, horizon: Horizon) -> optax.GradientTransformationExtraArgs:
    return velo(
        told_steps(settings, horizon),
        meta_params=load(settings.weights).meta_params,
        weight_decay=settings.weight_decay,
        max_training_steps=settings.max_training_steps,
        kernels=chosen_kernels(),
    )


def chosen_kernels() -> str:
    """``kernels`` of ``velo``, from the environment variable TIMETRIAL_KERNELS; else ``plain``.

    No setting: results differ by float error, so it does not belong to the identity of a run.

    Raises:
        UserError: another word.
    """
    found = os.environ.get("TIMETRIAL_KERNELS") or "plain"
    if found not in KERNELS:
        raise UserError(f"TIMETRIAL_KERNELS: expected {', '.join(KERNELS)}, got {found!r}")
    return found


def notes(settings: VeloFeedSettings, horizon: Horizon) -> Mapping[str, str]:
    """Tags of a run of VeLO: weights, prompt, and the accumulation of gradients."""
    steps = told_steps(settings, horizon)
    merged = accumulation_steps(steps, settings.max_training_steps)
    tags = {
        "velo.weights": settings.weights,
        "velo.weights_sha256": settings.weights_sha256,
        "velo.num_steps": str(steps),
        "velo.accumulation_steps": str(merged),
        **_origin(settings.weights).tags(),
    }
    if chosen_kernels() != "plain":
        tags["velo.kernels"] = chosen_kernels()
    if merged > 1:
        tags["warning"] = (
            f"VeLO is built for {steps} steps, more than max_training_steps = "
            f"{settings.max_training_steps}: it averages gradients over {merged} steps and moves "
            "the parameters only after the last of them, like its released wrapper"
        )
    return tags


def _origin(weights: str) -> Origin:
    if weights == "google":
        return PUBLISHED_ORIGINS["velo"]
    return _EMBEDDED if weights == "embedded" else origin_of_file(Path(weights).name)


# embedded/CARD.md
_EMBEDDED: Final = Origin(
    "our own small embedded weights, not on Google's: no result here speaks for Google's VeLO",
    "29 CPU-minutes on 2 cores",
    "seven families of small synthetic tasks, from a start made by hand",
)

# VeLO's prompt, as a factor of the budget's steps, and weight decay.
# Rezk et al., "Is Scaling Learned Optimizers Worth It?", 2023, https://arxiv.org/abs/2310.18191,
# asks whether VeLO needs tuning and varies the former from 0.75 to 1.25. The lower end of weight
# decay is as good as none.
_SPACE: Space = {"prompt": Range(0.25, 2.0), "weight_decay": Range(1e-7, 1e-2)}

VELO = OptimizerEntry(
    "VeLO, a learned optimizer, prompted with all steps of the budget",
    VeloSettings,
    make_velo,
    needs_steps=True,
    takes=("value",),
    variant=variant,
    notes=notes,
    space=_SPACE,
    learned=True,
    color="#ba4b1b",
)
VELO_SHORT = OptimizerEntry(
    "VeLO prompted with 75 % of the budget's steps; ends after them",
    VeloShortSettings,
    make_velo,
    needs_steps=True,
    takes=("value",),
    variant=variant,
    notes=notes,
    last_step=prompted_steps,
    steps_from="velo",
    space=_SPACE,
    sets_targets=False,
    learned=True,
    color="#aa7fac",
)
VELO_FEED = OptimizerEntry(
    "VeLO fed the remaining share of the time budget, without an estimate of steps",
    VeloFeedSettings,
    make_velo_feed,
    needs_feed=True,
    takes=("value", "remaining_fraction"),
    variant=variant,
    notes=notes,
    space={"weight_decay": _SPACE["weight_decay"]},
    sets_targets=False,
    learned=True,
)
