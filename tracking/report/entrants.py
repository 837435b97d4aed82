"""Recorded facts about each optimizer of a race: name, learned or not, colour, prompt.

Pure: from tags and settings of runs, never from labels; only the reference runs are known by the
label that suites and the paper give them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from timetrial.framework.records import RunRecord
from timetrial.tracking.record import schema

TOLD_STEPS: Final = "velo.num_steps"
"""Tag of VeLO's runs: the number of steps in the prompt."""

REFERENCE: Final = "hpo"
"""Label of reference runs: another hand-made optimizer for each workload, with tuned settings."""

_WEIGHTS: Final = "velo.weights"  # tag; marks learned optimizers among runs without the tag learned
_GOOGLE: Final = "google"
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
        origin: whose weights these are, in words; empty = not recorded.
        cost: compute of their meta-training, in words; empty = unknown.
        trained_on: tasks of their meta-training, in words; empty = unknown.
    """

    label: str
    name: str
    learned: bool = False
    color: str = ""
    prompt: float = math.nan
    fed: bool = False
    weights: str = ""
    origin: str = ""
    cost: str = ""
    trained_on: str = ""

    @property
    def is_full(self) -> bool:
        """True when it is prompted with all steps of the budget."""
        return self.prompt == 1.0

    @property
    def is_variant(self) -> bool:
        """True when it is prompted with another number of steps, or fed."""
        return self.fed or not (math.isnan(self.prompt) or self.is_full)

    @property
    def is_reference(self) -> bool:
        """True for the reference runs with settings tuned on each workload: no baseline."""
        return self.label == REFERENCE and not self.learned

    @property
    def is_google(self) -> bool:
        """True when it runs with the weights that Google released, fetched by the program."""
        return self.weights == _GOOGLE


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


def fully_prompted(entrants: Iterable[Entrant]) -> str | None:
    """Label of the learned optimizer prompted with all its steps: VeLO as the paper runs it.

    Of several the one with Google's weights, then the first by label.
    """
    full = sorted((not one.is_google, one.label) for one in entrants if one.learned and one.is_full)
    return full[0][1] if full else None


def contender(ranked: Sequence[Entrant]) -> str | None:
    """Label of the learned optimizer in question: VeLO where it was raced, else the first one."""
    return fully_prompted(ranked) or next((one.label for one in ranked if one.learned), None)


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
        origin=tags.get(schema.WEIGHTS, ""),
        cost=tags.get(schema.WEIGHTS_COST, ""),
        trained_on=tags.get(schema.WEIGHTS_TRAINED_ON, ""),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
