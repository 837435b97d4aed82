"""Optimizers of other libraries by the names of their classes; entries of the registry.

Boundary: imports a library only to build an optimizer of it, never to read settings.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, Final

import optax

from timetrial.framework.convert import convert
from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.errors import ConfigError, UserError
from timetrial.framework.source import FILE, digest_of, find, is_target, reason
from timetrial.framework.yaml_files import parse_yaml
from timetrial.optimizers.adapters.learned_optimization import from_learned_optimization

RELEASED_VELO: Final = "learned_optimization.research.general_lopt.prefab:LearnedOptimizer"
"""The library's VeLO with its released weights."""

_Value = int | float | bool | None | str | tuple[int | float | bool | str, ...]


@dataclasses.dataclass(frozen=True)
class LearnedOptimizationSettings:
    """Settings of an optimizer of google/learned_optimization.

    Attributes:
        make: the optimizer's class, or a function that returns one: ``package.module:Class`` or
            ``path/to/file.py:function``. Where it takes ``num_steps``, it gets the number of steps
            of the budget.
        arguments: further keyword arguments, such as ``{learning_rate: 1e-3}``.
        file_sha256: digest of the file of ``make``, "" for a module; part of the run's identity.
            Filled in by default, checked if given.
    """

    make: str
    arguments: str = "{}"
    file_sha256: str = ""

    def __post_init__(self) -> None:
        if not is_target(self.make):
            raise ValueError(
                "make: expected package.module:Class or path/to/file.py:function, "
                f"got {self.make!r}"
            )
        arguments_of(self.arguments)
        file = FILE.fullmatch(self.make)
        found = digest_of(file["path"]) if file else ""
        if self.file_sha256 not in ("", found):
            raise ValueError(
                f"file_sha256: expected {self.file_sha256}, but {self.make} here has {found}"
            )
        object.__setattr__(self, "file_sha256", found)


def arguments_of(text: str) -> dict[str, Any]:
    """Keyword arguments from their text, a mapping in YAML or JSON.

    Raises:
        ValueError: the text is no such mapping.
    """
    try:
        tree = parse_yaml(text, "arguments")
        found = convert({} if tree is None else tree, Mapping[str, _Value], "arguments")
    except ConfigError as error:
        raise ValueError(
            f"arguments: expected keyword arguments such as {{learning_rate: 1e-3}}: {error}"
        ) from error
    return dict(found)


def make_learned(
    settings: LearnedOptimizationSettings, horizon: Horizon
) -> optax.GradientTransformation:
    """The optimizer in its adapter.

    Raises:
        UserError: its class cannot be imported or called, or is no optimizer of the library.
    """
    file = FILE.fullmatch(settings.make)
    try:
        found, _ = find(settings.make)
        arguments = arguments_of(settings.arguments)
        if _takes_num_steps(found):
            arguments.setdefault("num_steps", horizon.steps)
        return from_learned_optimization(found(**arguments), horizon.steps)
    except (Exception, SystemExit) as error:  # the library may raise anything
        text = reason(error, file["path"] if file else "")
        raise UserError(f"optimizer.make={settings.make}: {text}") from error


def _takes_num_steps(function: Any) -> bool:
    try:
        return "num_steps" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # no function; written in C
        return False


def variant(settings: LearnedOptimizationSettings) -> str:
    """Name of the class; of a file with the first digits of its digest."""
    name = settings.make.split(":")[-1]
    return f"{name},{settings.file_sha256[:8]}" if settings.file_sha256 else name


def notes(settings: LearnedOptimizationSettings, horizon: Horizon) -> Mapping[str, str]:
    """The number of steps that the optimizer is told; which of ours makes the same updates."""
    tags = {"learned_optimization.num_steps": str(horizon.steps)}
    if settings.make == RELEASED_VELO and arguments_of(settings.arguments) == {}:
        tags["same_updates_as"] = "velo[google]"
    return tags


LEARNED_OPTIMIZATION = OptimizerEntry(
    "any optimizer of google/learned_optimization: optimizer.make=package.module:Class",
    LearnedOptimizationSettings,
    make_learned,
    needs_steps=True,
    variant=variant,
    notes=notes,
    sets_targets=False,
    learned=True,
)
