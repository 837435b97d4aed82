"""Recorded facts about each optimizer of a race: name, learned or not, colour, prompt.

Pure: from tags and settings of runs, never from labels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
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
        weights: name or file of a learned optimizer's weights; empty = not recorded.
    """

    label: str
    name: str
    learned: bool = False
    color: str = ""
    prompt: float = math.nan
    fed: bool = False
    weights: str = ""

    @property
    def is_full(self) -> bool:
        """True when it is prompted with all steps of the budget."""
        return self.prompt == 1.0

    @property
    def is_variant(self) -> bool:
        """True when it is prompted with another number of steps, or fed."""
        return self.fed or not (math.isnan(self.prompt) or self.is_full)


def entrants_of(records: Sequence[RunRecord]) -> dict[str, Entrant]:
    """Entrants by label; of differing facts in the runs of an optimizer the first one holds."""
    runs: dict[str, list[RunRecord]] = {}
    for run in records:
        runs.setdefault(run.optimizer, []).append(run)
    return {
        label: _entrant(
            label,
            {key: value for run in reversed(some) for key, value in run.tags.items()},
            {key: value for run in reversed(some) for key, value in run.config.items()},
        )
        for label, some in runs.items()
    }


def unrecorded(label: str) -> Entrant:
    """An optimizer known by its label only."""
    return Entrant(label, label.split("[")[0])


def _entrant(label: str, tags: Mapping[str, str], config: Mapping[str, str]) -> Entrant:
    named = tags.get(schema.OPTIMIZER_NAME) or config.get("optimizer")
    told = TOLD_STEPS in tags and any(key.startswith(_SETTING) for key in config)
    return Entrant(
        label=label,
        name=named or unrecorded(label).name,
        learned=tags.get(schema.LEARNED, str(_WEIGHTS in tags).lower()) == "true",
        color=tags.get(schema.COLOR, ""),
        prompt=_number(config.get(_PROMPT, "")) if told else math.nan,
        fed=told and _PROMPT not in config,
        weights=tags.get(_WEIGHTS, config.get("optimizer.weights", "")),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
