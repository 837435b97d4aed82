"""Optimizers of other libraries by the names of their classes; entries of the registry.

Boundary: imports a library only to build an optimizer of it, never to read settings.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import optax

from timetrial.framework.entries import Horizon, OptimizerEntry, WholeStep
from timetrial.framework.errors import ConfigError, UserError
from timetrial.framework.paths import UserPath
from timetrial.framework.ranges import check
from timetrial.framework.source import FILE, digest_of, find, is_target, reason
from timetrial.framework.workload import Workload
from timetrial.optimizers.adapters.algoperf import Submission
from timetrial.optimizers.adapters.algoperf_points import (
    REGULARISATION,
    SEARCH_SPACE,
    constants_of,
    read_point,
    search_space_of,
)
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
    # Where PyYAML is missing, the registry is still loaded.
    from timetrial.framework.convert import convert
    from timetrial.framework.yaml_files import parse_yaml

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


@dataclasses.dataclass(frozen=True)
class AlgoperfSettings:
    """Settings of an AlgoPerf submission.

    Attributes:
        file: its Python file, for JAX.
        point: number of the point in its search space, from 0, >= 0.
        search_space: JSON file of its search space; by default ``tuning_search_space.json`` beside
            the file or in the folder above, if there is one.
        hyperparameters: those of the point, as JSON, "" without a search space. Filled in by
            default, checked if given.
        file_sha256: digest of the file; part of the run's identity. Filled in by default, checked
            if given.
    """

    file: UserPath
    point: int = 0
    search_space: UserPath = ""
    hyperparameters: str = ""
    file_sha256: str = ""

    def __post_init__(self) -> None:
        check(self, point=">= 0")
        path = Path(self.search_space) if self.search_space else search_space_of(Path(self.file))
        values = json.dumps(read_point(path, self.point)) if path else ""
        found = {"file_sha256": digest_of(self.file), "hyperparameters": values}
        for name, value in found.items():
            if getattr(self, name) not in ("", value):
                raise ValueError(
                    f"{name}: expected {getattr(self, name)}, but {self.file} here has {value}"
                )
            object.__setattr__(self, name, value)
        if self.point and not path:
            raise ValueError(f"point: expected 0 without a {SEARCH_SPACE}, got {self.point}")


def make_submission(settings: AlgoperfSettings, horizon: Horizon, workload: Workload) -> WholeStep:
    """A submission on a workload.

    Raises:
        UserError: its file cannot be run, or lacks one of its functions.
    """
    point = json.loads(settings.hyperparameters) if settings.hyperparameters else None
    return Submission(settings.file, point, horizon, workload)


def regularisation(settings: AlgoperfSettings) -> Mapping[str, float]:
    """Dropout and label smoothing of the point, or of the submission's own constants."""
    text = settings.hyperparameters
    given = json.loads(text) if text else constants_of(Path(settings.file))
    return {
        name: float(given[name])
        for name in REGULARISATION
        if isinstance(given.get(name), (int, float))
    }


def submission_variant(settings: AlgoperfSettings) -> str:
    """Name of the submission, its point, and the first digits of its digest."""
    path = Path(settings.file).absolute()
    folder = path.parent.parent if path.parent.name == "jax" else path.parent
    name = folder.name if path.stem == "submission" else path.stem
    point = f",point {settings.point}" if settings.hyperparameters else ""
    return f"{name}{point},{settings.file_sha256[:8]}"


ALGOPERF = OptimizerEntry(
    "an AlgoPerf submission for JAX: optimizer.file=submission.py optimizer.point=0",
    AlgoperfSettings,
    step=make_submission,
    variant=submission_variant,
    workload_settings=regularisation,
    sets_targets=False,
)
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
