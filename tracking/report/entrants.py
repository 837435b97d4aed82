"""Recorded facts about each optimizer of a race: name, learned or not, colour, prompt.

Pure: from tags and settings of runs, never from labels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

from timetrial.framework.records import RunRecord
from timetrial.tracking.record import schema

TOLD_STEPS: Final = "velo.num_steps"
"""Tag of VeLO's runs: the number of steps in the prompt."""

_WEIGHTS: Final = "velo.weights"  # tag; marks learned optimizers among runs without the tag learned
_SETTING: Final = "optimizer."  # prefix of an optimizer's settings
_PROMPT: Final = "optimizer.prompt"  # setting: share of the budget's steps in VeLO's prompt


@dataclasses.dataclass(frozen=True)
class Entrant:
    """One optimizer of a race.

    Attributes:
        label: name in the report, which tells variants apart (``velo[embedded]``).
        name: registry name.
        learned: True for a learned optimizer.
        color: recorded colour on a light background; empty = none.
        prompt: share of the budget's steps that it is built for, > 0; NaN = takes no prompt.
        fed: True when it takes the remaining share of the budget at every step instead.
    """

    label: str
    name: str
    learned: bool = False
    color: str = ""
    prompt: float = math.nan
    fed: bool = False

    @property
    def is_full(self) -> bool:
        """True when it is prompted with all steps of the budget."""
        return self.prompt == 1.0

    @property
    def is_variant(self) -> bool:
        """True when it is prompted with another number of steps, or fed."""
        return self.fed or not (math.isnan(self.prompt) or self.is_full)


def entrants_of(records: Sequence[RunRecord]) -> dict[str, Entrant]:
    """Entrants by label; the first run of each optimizer gives its facts."""
    first: dict[str, RunRecord] = {}
    for run in records:
        first.setdefault(run.optimizer, run)
    return {label: _entrant(run) for label, run in first.items()}


def unrecorded(label: str) -> Entrant:
    """An optimizer known by its label only."""
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
