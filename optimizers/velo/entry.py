"""VeLO as the race runs it: prompted with the steps of the budget, or fed what remains of it.

Boundary: settings and registry functions; the optimizer itself is in ``optimizers.velo``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import optax

from timetrial.framework.entries import Horizon
from timetrial.framework.errors import UserError
from timetrial.framework.ranges import check
from timetrial.optimizers.velo import accumulation_steps, velo
from timetrial.optimizers.velo.weights import (
    Weights,
    WeightsError,
    embedded_weights,
    google_weights,
    google_weights_path,
    load_weights,
)

PAPER_MAX_TRAINING_STEPS = 200_000
"""What the paper's VeLO was run with; the released wrapper's own default is 150,000."""


def best_available() -> str:
    """``google`` where Google's weights have been fetched, otherwise ``embedded``."""
    return "google" if google_weights_path().exists() else "embedded"


@dataclasses.dataclass(frozen=True)
class VeloSettings:
    """Settings of VeLO.

    Attributes:
        weights: ``google``, ``embedded`` or the path of a checkpoint; by default Google's where
            they have been fetched (``timetrial fetch velo``), otherwise the embedded ones.
        weight_decay: L2 regularisation inside the optimizer, >= 0.
        prompt: share of the steps that the budget allows that VeLO is told of, > 0.
        max_training_steps: longer trainings accumulate gradients, >= 1; see ``velo``.
        weights_sha256: of the file that ``weights`` names, so that runs with other weights of the
            same name are other runs. Filled in where it is not given, compared where it is.
    """

    weights: str = dataclasses.field(default_factory=best_available)
    weight_decay: float = 0.0
    prompt: float = 1.0
    max_training_steps: int = PAPER_MAX_TRAINING_STEPS
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        check(self, weight_decay=">= 0", prompt="> 0", max_training_steps=">= 1")
        if not self.weights:
            raise ValueError("weights: expected google, embedded or a path, got nothing")
        found = load(self.weights).sha256
        if self.weights_sha256 not in ("", found):
            raise ValueError(
                f"weights_sha256: expected {self.weights_sha256}, but the weights "
                f"{self.weights!r} here have {found}"
            )
        object.__setattr__(self, "weights_sha256", found)


@dataclasses.dataclass(frozen=True)
class VeloShortSettings(VeloSettings):
    """Settings of VeLO Short; see VeloSettings."""

    prompt: float = 0.75


@dataclasses.dataclass(frozen=True)
class VeloFeedSettings:
    """Settings of fed VeLO.

    Attributes:
        weights: as in VeloSettings.
        weight_decay: as in VeloSettings.
        max_training_steps: as in VeloSettings.
        weights_sha256: as in VeloSettings.
    """

    weights: str = dataclasses.field(default_factory=best_available)
    weight_decay: float = 0.0
    max_training_steps: int = PAPER_MAX_TRAINING_STEPS
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        checked = VeloSettings(**dataclasses.asdict(self))
        object.__setattr__(self, "weights_sha256", checked.weights_sha256)


@functools.lru_cache(maxsize=2)
def load(weights: str) -> Weights:
    """The weights that a setting names.

    Raises:
        UserError: they are missing, damaged or not VeLO's.
    """
    try:
        if weights == "google":
            return google_weights()
        return embedded_weights() if weights == "embedded" else load_weights(Path(weights))
    except WeightsError as error:
        raise UserError(f"optimizer.weights: {error}") from error


def variant(settings: VeloSettings | VeloFeedSettings) -> str:
    """Which weights: tables say ``velo[google]`` or ``velo[embedded]``."""
    named = settings.weights in ("google", "embedded")
    return settings.weights if named else Path(settings.weights).stem


def prompted_steps(settings: VeloSettings, horizon: Horizon) -> int:
    """Updates that VeLO is told of: its share of those that the budget allows, rounded down.

    Raises:
        UserError: it is not known how many the budget allows.
    """
    if horizon.steps is None:
        raise UserError(
            "VeLO is prompted with the number of steps: expected budget.steps, or "
            "budget.expected_steps with budget.seconds; velo_feed needs neither"
        )
    return max(1, int(settings.prompt * horizon.steps))


def told_steps(settings: VeloSettings | VeloFeedSettings, horizon: Horizon) -> int:
    """``num_steps`` of ``velo``; the fed variant only spaces its loss features by it.

    It takes the steps of the budget where they are known and the workload's step hint elsewhere.
    """
    if isinstance(settings, VeloSettings):
        return prompted_steps(settings, horizon)
    return horizon.steps or horizon.step_hint


def make_velo(settings: VeloSettings, horizon: Horizon) -> optax.GradientTransformation:
    """VeLO that is prompted: it does not look at the fed share of the budget."""
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
    """VeLO that is fed: an update without ``remaining_fraction`` fails by name."""
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


def _make(
    settings: VeloSettings | VeloFeedSettings, horizon: Horizon
) -> optax.GradientTransformationExtraArgs:
    return velo(
        told_steps(settings, horizon),
        meta_params=load(settings.weights).meta_params,
        weight_decay=settings.weight_decay,
        max_training_steps=settings.max_training_steps,
    )


def notes(settings: VeloSettings | VeloFeedSettings, horizon: Horizon) -> Mapping[str, str]:
    """What a run's tags say about VeLO: weights, prompt, and the accumulation of gradients."""
    steps = told_steps(settings, horizon)
    merged = accumulation_steps(steps, settings.max_training_steps)
    tags = {
        "velo.weights": settings.weights,
        "velo.weights_sha256": settings.weights_sha256,
        "velo.num_steps": str(steps),
        "velo.accumulation_steps": str(merged),
    }
    if merged > 1:
        tags["warning"] = (
            f"VeLO was told of {steps} steps, more than max_training_steps = "
            f"{settings.max_training_steps}: it averages gradients over {merged} steps and moves "
            "the parameters only after the last of them, as its released wrapper does"
        )
    return tags
