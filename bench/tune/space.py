"""What a search space means to a run: its keys are checked, its points become configurations.

Boundary: pure but for reading a file of points or a file of a space; knows no study.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timetrial.framework import config as configuration
from timetrial.framework.config import Choice, ConfigError, RunConfig
from timetrial.framework.errors import UserError
from timetrial.framework.spaces import OneOf, Range, Space
from timetrial.optimizers import OPTIMIZERS

Point = Mapping[str, Any]
"""Value by key of the space."""

_WORKLOAD = "workload."
_COMPLEMENT = "one_minus_"


def setting(key: str, value: Any) -> tuple[str, str, Any]:
    """What a key of a space sets: ``("optimizer", "b1", 0.9)`` for ``one_minus_b1`` at 0.1."""
    room = "workload" if key.startswith(_WORKLOAD) else "optimizer"
    name = key.removeprefix(_WORKLOAD)
    if name.startswith(_COMPLEMENT):
        return room, name.removeprefix(_COMPLEMENT), 1.0 - float(value)
    return room, name, value


def configured(config: RunConfig, point: Point) -> RunConfig:
    """The configuration with the settings of a point.

    Raises:
        ConfigError: an unknown setting, a wrong type, a value out of range.
    """
    changes: dict[str, dict[str, Any]] = {"optimizer": {}, "workload": {}}
    for key, value in point.items():
        room, name, value = setting(key, value)
        settings = getattr(config, room).settings
        known = configuration.hints(type(settings))
        if name not in known:
            names = [_WORKLOAD * (room == "workload") + n for n in known]
            raise ConfigError(configuration.unknown("parameter", key, names))
        changes[room][name] = configuration.convert(value, known[name], f"{room}.{name}")
    return dataclasses.replace(
        config,
        optimizer=_changed(config.optimizer, "optimizer", changes["optimizer"]),
        workload=_changed(config.workload, "workload", changes["workload"]),
    )


def _changed(choice: Choice, room: str, parts: Mapping[str, Any]) -> Choice:
    try:
        settings = dataclasses.replace(choice.settings, **parts)
    except ValueError as error:
        raise ConfigError(f"{room}.{error}") from error
    return dataclasses.replace(choice, settings=settings)


def searched(config: RunConfig, *, fixed: Sequence[str], regularisation: bool) -> Space:
    """The optimizer's own space, without what the user has set and what does not apply.

    Args:
        config: the run that is tuned.
        fixed: settings of the optimizer that the user has set.
        regularisation: whether settings of the workload are searched, where it has them.

    Raises:
        UserError: nothing is left to tune.
    """
    space = OPTIMIZERS[config.optimizer.name].space
    if space is None:
        raise UserError(
            f"optimizer {config.optimizer.name} has no search space of its own: expected "
            "study.space=FILE or study.points=FILE"
        )
    found: dict[str, Range | OneOf] = {}
    for key, values in space.items():
        room, name, _ = setting(key, 0.0)
        if room == "workload":
            applies = regularisation and hasattr(config.workload.settings, name)
        else:
            applies = name not in fixed
        if applies:
            found[key] = values
    return found


def read_space(path: Path) -> Space:
    """Reads a space from a YAML or JSON file: ``{KEY: {low, high, scale} | {choices: [...]}}``.

    Raises:
        UserError: the file cannot be read or is no space.
    """
    tree = configuration.read_yaml(path)
    return {key: _values(f"{path}: {key}", value) for key, value in tree.items()}


def _values(name: str, tree: Any) -> Range | OneOf:
    try:
        if (
            isinstance(tree, dict)
            and set(tree) == {"choices"}
            and isinstance(tree["choices"], list)
        ):
            return OneOf(tuple(tree["choices"]))
        if isinstance(tree, dict) and {"low", "high"} <= set(tree) <= {"low", "high", "scale"}:
            return Range(float(tree["low"]), float(tree["high"]), str(tree.get("scale", "log")))
    except (ValueError, TypeError) as error:
        raise UserError(f"search space {name}: {error}") from error
    raise UserError(
        f"search space {name}: expected low and high (and scale: log or linear), or choices: "
        f"[...]; got {tree!r}"
    )


def read_points(path: Path) -> list[Point]:
    """Reads a list of fixed points, ``[{KEY: VALUE, ...}, ...]``, from a JSON file.

    Raises:
        UserError: the file cannot be read or is no such list.
    """
    try:
        points = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"study.points: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"study.points: {path} is not valid JSON: {error}") from error
    if not isinstance(points, list) or not points or not all(isinstance(p, dict) for p in points):
        raise UserError(
            f"study.points: {path}: expected a list of objects such as [{{KEY: VALUE}}]"
        )
    for number, point in enumerate(points):
        if set(point) != set(points[0]) or not point:
            raise UserError(
                f"study.points: {path}: expected the keys of the first point, "
                f"{', '.join(points[0]) or 'at least one'}; got {', '.join(point) or 'none'} in "
                f"point {number}"
            )
    return points


def space_of(points: Sequence[Point]) -> Space:
    """The smallest space that holds all points."""
    space: dict[str, Range | OneOf] = {}
    for key in points[0]:
        values = list(dict.fromkeys(point[key] for point in points))
        numbers = all(isinstance(v, float) for v in values)
        space[key] = (
            Range(min(values), max(values), "linear")
            if numbers and len(values) > 1
            else OneOf(tuple(values))
        )
    return space


def check(space: Space, config: RunConfig) -> None:
    """Makes sure that every value of a space gives a configuration that can be run.

    Settings are checked one at a time against their ranges, at both ends of theirs.

    Raises:
        UserError: an unknown parameter, nothing to tune, or a value that is not allowed.
    """
    if all(isinstance(values, OneOf) and len(values.choices) == 1 for values in space.values()):
        raise UserError(
            "search space: expected at least one parameter with several values, got "
            f"{', '.join(space) or 'none'}"
        )
    targets = [setting(key, 0.0)[:2] for key in space]
    for key, target in zip(space, targets, strict=True):
        if targets.count(target) > 1:
            raise UserError(f"search space: {key}: {'.'.join(target)} is set twice")
    for key, values in space.items():
        ends = values.choices if isinstance(values, OneOf) else (values.low, values.high)
        for value in ends:
            try:
                configured(config, {key: value})
            except ConfigError as error:
                raise UserError(f"search space: {key} = {value}: {error}") from error


def tree_of(space: Space) -> dict[str, Any]:
    """The space as plain data; ``read_space`` reads it back."""
    return {
        key: {"choices": list(values.choices)}
        if isinstance(values, OneOf)
        else dataclasses.asdict(values)
        for key, values in space.items()
    }
