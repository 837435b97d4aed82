"""The configuration of ``timetrial metatrain``: settings of the training, and of the command.

Boundary: words in, frozen dataclasses out; nothing is run and nothing written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from timetrial.framework import config as configuration
from timetrial.framework.config import ConfigError, Tracking
from timetrial.framework.convert import refuse_unknown, unknown_keys
from timetrial.framework.ranges import check
from timetrial.framework.suggestions import unknown
from timetrial.optimizers.metatraining.settings import RULES, MetatrainSettings
from timetrial.optimizers.metatraining.stage import Stage

EXPERIMENT = "timetrial-metatrain"
"""MLflow experiment of meta-trainings, unless another is given."""

FORMAT = 1
"""Version of the checkpoint format; part of the identity, so that older ones raise an error."""


@dataclasses.dataclass(frozen=True)
class Command:
    """Settings of the command; they do not change the result.

    Attributes:
        name: of the training; an existing checkpoint of that name is continued. By default the
            name of the rule.
        minutes: length of this piece, >= 0; the end is saved. None trains to the end.
        checkpoint_seconds: pause between two checkpoints, > 0.
        cores: CPU devices for the lanes; None takes the largest number that divides the pairs.
            The number decides the order of sums over lanes: a training continued with another
            number is as good, but not bitwise the same.
        tracking: store of the run, and directory of the checkpoints.
    """

    name: str = "velo"
    minutes: float | None = None
    checkpoint_seconds: float = 60.0
    cores: int | None = None
    tracking: Tracking = dataclasses.field(default_factory=lambda: Tracking(experiment=EXPERIMENT))

    def __post_init__(self) -> None:
        check(self, minutes=">= 0", checkpoint_seconds="> 0", cores=">= 1")
        if not re.fullmatch(r"[\w.\-]{1,80}", self.name) or self.name.startswith("."):
            raise ValueError(
                f"name: expected letters, digits, '_', '-' and '.', at most 80, got {self.name!r}"
            )

    @property
    def directory(self) -> Path:
        """Directory of the training."""
        return Path(self.tracking.root).absolute() / "metatrain" / self.name


def read(overrides: Sequence[str]) -> tuple[MetatrainSettings, Command]:
    """Reads the settings of a training and of its command from ``key=value`` words.

    Raises:
        ConfigError: an unknown key or rule, a wrong type or a value out of range.
    """
    tree = configuration.parse(overrides)
    rule = configuration.convert(tree.pop("rule", "velo"), str, "rule")
    if rule not in RULES:
        raise ConfigError(unknown("rule", rule, RULES))
    of_training, of_command = (configuration.hints(c) for c in (RULES[rule], Command))
    _refuse_keys_of_other_rules(rule, tree)
    refuse_unknown(unknown_keys(tree, {"rule": str, **of_training, **of_command}, ""))
    settings = {key: value for key, value in tree.items() if key in of_training}
    command = {key: value for key, value in tree.items() if key in of_command}
    tracking = command.get("tracking", {})
    if isinstance(tracking, dict):
        command["tracking"] = {"experiment": EXPERIMENT, **tracking}
    made = configuration.convert(settings, RULES[rule], "")
    named = {"name": made.default_name, **command}
    return made, configuration.convert(named, Command, "")


def _refuse_keys_of_other_rules(rule: str, tree: configuration.Tree) -> None:
    """Raises a ConfigError for a setting that only other rules have."""
    for key in tree:
        others = [name for name, cls in RULES.items() if key in configuration.hints(cls)]
        if others and rule not in others:
            raise ConfigError(
                f"{key}: expected only with rule={' or rule='.join(others)}, got rule={rule}"
            )


def identity(stage: Stage) -> str:
    """Digest of everything that decides the result; a checkpoint must have the same one."""
    settings = stage.settings
    tree = dataclasses.asdict(settings)
    tree["start"], tree["format"] = stage.origin, FORMAT
    if settings.rule != "velo":  # trainings of VeLO keep the identities that they have
        tree |= {"rule": settings.rule, "stage": stage.name}
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def devices(pairs: int, cores: int | None) -> int:
    """Number of CPU devices: ``cores``, else the most available cores that divide the pairs."""
    if cores is not None:
        if pairs % cores:
            raise ConfigError(f"cores: expected a divisor of pairs = {pairs}, got {cores}")
        return cores
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return max(n for n in range(1, available + 1) if pairs % n == 0)
