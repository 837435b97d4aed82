"""Settings of a meta-training by rule, and the curriculum of truncations, lengths and rates.

Boundary: numbers and names only; the command decides where results go.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from timetrial.framework.paths import UserPath
from timetrial.framework.ranges import check
from timetrial.optimizers.metatraining.families import FAMILIES


@dataclasses.dataclass(frozen=True)
class MetatrainSettings:
    """Settings that every rule has.

    Attributes:
        rule: name of the rule that is meta-trained.
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

    rule: ClassVar[str] = ""

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
        _check_families(families=self.families)
        if not self.horizons or min(self.horizons) < 10:
            raise ValueError(f"horizons: expected step counts >= 10, got {list(self.horizons)}")

    @property
    def default_name(self) -> str:
        """Name of a training that is given none."""
        return self.rule


def _check_families(**lists: tuple[str, ...]) -> None:
    """Checks settings that name families."""
    for setting, names in lists.items():
        unknown = [name for name in names if name not in FAMILIES]
        if unknown or not names or len(set(names)) < len(names):
            raise ValueError(
                f"{setting}: expected one or more different ones of {', '.join(FAMILIES)}, "
                f"got {', '.join(names) or 'none'}"
            )


@dataclasses.dataclass(frozen=True)
class VeloMetatrainSettings(MetatrainSettings):
    """Settings of a meta-training of VeLO; its embedded weights were made with the defaults.

    Attributes:
        start: initial meta-parameters: ``warm`` (made by hand, see ``warm_start``), ``embedded``
            or the path of a weights file.
        hidden_size, bank_size: sizes of a ``warm`` start; a weights file has its own.
    """

    rule: ClassVar[str] = "velo"

    start: UserPath = "warm"
    hidden_size: int = 32
    bank_size: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, hidden_size=">= 4", bank_size=">= 1")
        if not self.start:
            raise ValueError("start: expected embedded, warm or a path, got nothing")


@dataclasses.dataclass(frozen=True)
class LinearStage:
    """The first stage of Celo2: a search among rules that are linear in the 30 inputs.

    Attributes:
        steps: outer steps; 0 leaves the stage out.
        sigma, learning_rate: as of the whole training.
        longest: longest inner run.
    """

    steps: int = 800
    sigma: float = 0.05
    learning_rate: float = 2e-3
    longest: int = 600

    def __post_init__(self) -> None:
        check(self, steps=">= 0", sigma="> 0", learning_rate="> 0", longest=">= 10")


_HELD_OUT = ("deep_perceptron", "denoiser", "autoencoder")


@dataclasses.dataclass(frozen=True)
class Celo2MetatrainSettings(MetatrainSettings):
    """Settings of a meta-training of Celo2.

    Attributes:
        start: ``linear`` (the hand-made linear rule, then the linear stage), ``random``,
            ``embedded`` or the path of a weights file; the last three have no linear stage.
        orthogonalize: Newton-Schulz for matrices and AdamW for vectors, scalars and embeddings;
            without it Celo2 updates all tensors.
        vector_rate: rate of that AdamW, as a factor of Celo2's.
        lowest_rate, highest_rate: range of the inner rate, log-uniform over tasks.
        linear: the linear stage.
        validation_families: families of the validation tasks, held-out ones among them.
        rates: inner rates of validation, ascending. The score of a family is the mean at its best
            rate, the last one excluded, and at the next rate.
    """

    rule: ClassVar[str] = "celo2"

    start: UserPath = "linear"
    orthogonalize: bool = False
    vector_rate: float = 1.0
    lowest_rate: float = 3e-3
    highest_rate: float = 3e-2
    linear: LinearStage = dataclasses.field(default_factory=LinearStage)
    families: tuple[str, ...] = tuple(name for name in FAMILIES if name not in _HELD_OUT)
    validation_families: tuple[str, ...] = tuple(FAMILIES)
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2, 1e-1)
    steps: int = 1_500
    pairs: int = 32
    longest_at_first: int = 600
    longest: int = 2_000
    sigma: float = 0.03
    learning_rate: float = 1e-3
    ema: float = 0.99
    validate_every: int = 500
    horizons: tuple[int, ...] = (300, 1_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, vector_rate="> 0", lowest_rate="> 0", highest_rate="> 0")
        _check_families(validation_families=self.validation_families)
        if self.lowest_rate > self.highest_rate:
            raise ValueError(
                "lowest_rate: expected at most highest_rate, got "
                f"{self.lowest_rate:g} and {self.highest_rate:g}"
            )
        ascending = all(a < b for a, b in zip(self.rates, self.rates[1:], strict=False))
        if len(self.rates) < 2 or min(self.rates) <= 0 or not ascending:
            raise ValueError(
                f"rates: expected two or more ascending numbers > 0, got {list(self.rates)}"
            )
        if self.vector_rate != 1.0 and not self.orthogonalize:
            raise ValueError(
                "vector_rate: expected only with orthogonalize=true: without it Celo2 updates "
                "vectors, too"
            )
        if self.linear.longest < self.shortest:
            raise ValueError(
                f"linear.longest: expected at least shortest = {self.shortest}, "
                f"got {self.linear.longest}"
            )
        if not self.start:
            raise ValueError("start: expected linear, random, embedded or a path, got nothing")

    @property
    def default_name(self) -> str:
        return "celo2" if self.orthogonalize else "celo2_base"

    def of_linear_stage(self) -> Celo2MetatrainSettings:
        """Settings of the linear stage alone; it does not depend on those of the second."""
        ours = dataclasses.asdict(self.linear)
        ours["longest_at_first"] = self.linear.longest
        ours["validate_every"] = self.linear.steps
        return dataclasses.replace(self, **ours, linear=LinearStage())


RULES: dict[str, type[MetatrainSettings]] = {
    settings.rule: settings for settings in (VeloMetatrainSettings, Celo2MetatrainSettings)
}
"""Settings by rule."""


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
