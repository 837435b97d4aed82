"""Settings of a meta-training, and its curriculum of truncations, lengths and rates.

Boundary: numbers only; the command decides where results go.
"""

from __future__ import annotations

import dataclasses
import math

from timetrial.framework.paths import UserPath
from timetrial.framework.ranges import check
from timetrial.optimizers.metatraining.families import FAMILIES


@dataclasses.dataclass(frozen=True)
class MetatrainSettings:
    """Settings of a meta-training; the embedded weights were made with the defaults.

    Attributes:
        start: initial meta-parameters: ``warm`` (made by hand, see ``warm_start``), ``embedded``
            or the path of a weights file.
        hidden_size, bank_size: sizes of a ``warm`` start; a weights file has its own.
        seed: of tasks, perturbations and lengths, in [0, 2**32).
        families: names of the task families, in order of rotation.
        steps: outer steps in all, each on one family.
        pairs: antithetic pairs of lanes per family; there are twice as many lanes.
        truncation: inner steps per outer step at the start; twice as many at the end.
        shortest, longest: range of the steps of an inner run, uniform in the inverse.
        longest_at_first: ``longest`` in the first outer step; it grows until half of the outer
            steps are made.
        sigma: standard deviation of the perturbations of one outer step.
        learning_rate: of Adam on the meta-gradient; falls along a cosine to a tenth.
        clip: largest element of the meta-gradient, in units of the usual loss difference.
        ema: decay of the running mean of the meta-parameters; the mean is validated and exported.
        validate_every: outer steps between validations.
        validation_tasks: fixed tasks per family.
        horizons: inner steps of the validation runs.
    """

    start: UserPath = "warm"
    hidden_size: int = 32
    bank_size: int = 16
    seed: int = 0
    families: tuple[str, ...] = tuple(FAMILIES)
    steps: int = 3_000
    pairs: int = 16
    truncation: int = 40
    shortest: int = 100
    longest_at_first: int = 6_000
    longest: int = 6_000
    sigma: float = 0.01
    learning_rate: float = 1e-4
    clip: float = 3.0
    ema: float = 0.998
    validate_every: int = 1_500
    validation_tasks: int = 6
    horizons: tuple[int, ...] = (300, 1_000, 3_000)

    def __post_init__(self) -> None:
        check(
            self,
            hidden_size=">= 4",
            bank_size=">= 1",
            seed="[0, 4294967295]",
            steps=">= 1",
            pairs=">= 1",
            truncation=">= 1",
            shortest=">= 10",
            sigma="> 0",
            learning_rate="> 0",
            clip="> 0",
            ema="[0, 1)",
            validate_every=">= 1",
            validation_tasks=">= 1",
        )
        if not self.shortest <= self.longest_at_first <= self.longest:
            raise ValueError(
                "shortest, longest_at_first, longest: expected each at least the one before, "
                f"got {self.shortest}, {self.longest_at_first}, {self.longest}"
            )
        known = ", ".join(FAMILIES)
        unknown = [name for name in self.families if name not in FAMILIES]
        if unknown or not self.families or len(set(self.families)) < len(self.families):
            raise ValueError(
                f"families: expected one or more different ones of {known}, "
                f"got {', '.join(self.families) or 'none'}"
            )
        if not self.horizons or min(self.horizons) < 10:
            raise ValueError(f"horizons: expected step counts >= 10, got {list(self.horizons)}")
        if not self.start:
            raise ValueError("start: expected embedded, warm or a path, got nothing")


@dataclasses.dataclass(frozen=True)
class Knobs:
    """The scheduled settings at one outer step."""

    truncation: int
    longest: float
    learning_rate: float


def knobs(settings: MetatrainSettings, step: int) -> Knobs:
    """The curriculum: truncation, longest inner run and rate of an outer step."""
    done = step / settings.steps
    short = float(settings.longest_at_first)
    grown = min(1.0, 2.0 * done)
    cosine = 0.5 * (1.0 + math.cos(math.pi * done))
    return Knobs(
        truncation=round(settings.truncation * 2.0**done),
        longest=short * (settings.longest / short) ** grown,
        learning_rate=settings.learning_rate * (0.1 + 0.9 * cosine),
    )
