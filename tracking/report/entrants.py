"""What runs recorded about each optimizer of a race: its name, whether it is learned, its colour.

Pure: from tags and settings of runs; nothing is concluded from how an optimizer is called.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

from timetrial.framework.records import RunRecord
from timetrial.tracking.record import schema

TOLD_STEPS: Final = "velo.num_steps"
"""Tag of a run of VeLO: the number of steps that it was told of."""

_WEIGHTS: Final = "velo.weights"  # tag: older runs of learned optimizers have no tag but this one
_SETTING: Final = "optimizer."  # settings of an optimizer begin so
_PROMPT: Final = "optimizer.prompt"  # setting: share of the budget's steps that VeLO is told of


@dataclasses.dataclass(frozen=True)
class Entrant:
    """One optimizer of a race.

    Attributes:
        label: how the report calls it; tells variants apart (``velo[embedded]``).
        name: its name in the registry.
        learned: True for a learned optimizer.
        color: colour on a light background that its runs ask for; empty = none.
        prompt: share of the budget's steps that it is told of at its start, > 0; NaN = not told.
        fed: True when it is told the used share of its budget at every step instead.
    """

    label: str
    name: str
    learned: bool = False
    color: str = ""
    prompt: float = math.nan
    fed: bool = False

    @property
    def is_full(self) -> bool:
        """True when it is told of all the steps that the budget allows."""
        return self.prompt == 1.0

    @property
    def is_variant(self) -> bool:
        """True when it is told of another number of steps, or fed."""
        return self.fed or not (math.isnan(self.prompt) or self.is_full)


def entrants_of(records: Sequence[RunRecord]) -> dict[str, Entrant]:
    """The optimizers of some runs by label; the first run of each speaks for it."""
    first: dict[str, RunRecord] = {}
    for run in records:
        first.setdefault(run.optimizer, run)
    return {label: _entrant(run) for label, run in first.items()}


def unrecorded(label: str) -> Entrant:
    """An optimizer of which nothing but its label is known."""
    return Entrant(label, label.split("[")[0])


def _entrant(run: RunRecord) -> Entrant:
    named = run.tags.get(schema.OPTIMIZER_NAME) or run.config.get("optimizer")
    learned = run.tags.get(schema.LEARNED, str(_WEIGHTS in run.tags).lower()) == "true"
    told = TOLD_STEPS in run.tags and any(key.startswith(_SETTING) for key in run.config)
    return Entrant(
        label=run.optimizer,
        name=named or unrecorded(run.optimizer).name,
        learned=learned,
        color=run.tags.get(schema.COLOR, ""),
        prompt=_number(run.config.get(_PROMPT, "")) if told else math.nan,
        fed=told and _PROMPT not in run.config,
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
