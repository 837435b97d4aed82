"""One stage of a meta-training: what is searched, on which tasks, and how the result is judged.

Boundary: values and functions; ``outer`` makes the steps, the command orders the stages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from timetrial.optimizers.metatraining.rules import MakeRule
from timetrial.optimizers.metatraining.settings import MetatrainSettings
from timetrial.optimizers.metatraining.tasks import Family
from timetrial.optimizers.metatraining.validation import Losses, Validation

Vector = np.ndarray[Any, np.dtype[np.float32]]


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """A search among the update rules of one kind.

    Attributes:
        name: of the stage; "" if it is the only one.
        settings: of this stage.
        start: meta-parameters (size,) to start from.
        origin: name or digest of that start; part of the training's identity.
        make_rule: maps meta-parameters (size,) to the update rule of a lane.
        families: of the training tasks, by name.
        selection: judges meta-parameters.
        save: writes meta-parameters (size,) to a file, with the training's name and outer step.
    """

    name: str
    settings: MetatrainSettings
    start: jax.Array
    origin: str
    make_rule: MakeRule
    families: Mapping[str, Family]
    selection: Selection
    save: Callable[[Path, Vector, str, int], None]


MakeStage = Callable[[Vector | None], Stage]
"""Maps the best meta-parameters of the stage before, None in the first, to a stage."""


class Selection:
    """Scores of meta-parameters on the fixed validation tasks; lower is better.

    Args:
        validation: runs the tasks.
        families: names of their families.
        horizons: inner steps of the runs.
        rates: inner rates, ascending; empty for rules without a rate.
    """

    def __init__(
        self,
        validation: Validation,
        families: tuple[str, ...],
        horizons: tuple[int, ...],
        rates: tuple[float, ...] = (),
    ) -> None:
        self.families = families
        self._validation, self._horizons, self._rates = validation, horizons, rates

    def scores(self, vector: jax.Array, name: str) -> Losses:
        """Mean scores of a family's tasks, (horizons,)."""
        if not self._rates:
            return self._mean(vector, name)
        rows = [self._mean((vector, np.float32(rate)), name) for rate in self._rates]
        return robust(np.stack(rows))

    def _mean(self, argument: Any, name: str) -> Losses:
        found: Losses = self._validation.losses(argument, name)[1].mean(1)
        return found

    def summary(self, scores: Losses) -> dict[str, float]:
        """Means of (families, horizons) scores in all, by horizon and by family, as metrics."""
        found = {"validation/score": float(scores.mean())}
        for i, steps in enumerate(self._horizons):
            found[f"validation/score_{steps}_steps"] = float(scores[:, i].mean())
        for name, row in zip(self.families, scores, strict=True):
            found[f"validation/score_{name}"] = float(row.mean())
        return found


def robust(scores: Losses) -> Losses:
    """The mean of the scores at the best rate and at the next higher one.

    A rule that is good at one rate only is of little use. The last rate is never the best one.

    Args:
        scores: (rates, horizons), rates ascending, at least two.

    Returns:
        (horizons,).
    """
    best = int(scores[:-1].mean(1).argmin())
    found: Losses = (scores[best] + scores[best + 1]) / 2
    return found
