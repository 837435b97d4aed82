"""Validates a search space; applies a point to a RunConfig.

Boundary: pure except for reading files of points and spaces; independent of studies.

A point holds the types of a study's storage: numbers, texts, true and false. A list setting, such
as ``workload.hidden_dims``, is a text there: ``[16, 8]``.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from timetrial.framework import config as configuration
from timetrial.framework.config import Choice, ConfigError, RunConfig, Tree
from timetrial.framework.convert import prefixed, shown
from timetrial.framework.errors import UserError
from timetrial.framework.spaces import OneOf, Range, Space
from timetrial.optimizers import OPTIMIZERS

Point = Mapping[str, Any]
"""Value by key of the space."""

MOST_CORNERS = 1024
"""Largest number of corners of a space that are checked before a study."""

_MOST_BYTES = 8 << 20  # of a file of points
_WORKLOAD = "workload."
_COMPLEMENT = "one_minus_"


def target(key: str) -> tuple[str, str]:
    """The setting that a key of a space sets: ``("optimizer", "b1")`` for ``one_minus_b1``."""
    room = "workload" if key.startswith(_WORKLOAD) else "optimizer"
    return room, key.removeprefix(_WORKLOAD).removeprefix(_COMPLEMENT)


def _is_complement(key: str) -> bool:
    return key.removeprefix(_WORKLOAD).startswith(_COMPLEMENT)


def type_of(key: str, config: RunConfig) -> Any:
    """The type of the setting that a key of a space sets.

    Raises:
        ConfigError: the run has no such setting.
    """
    room, name = target(key)
    known = configuration.hints(type(getattr(config, room).settings))
    if name not in known:
        names = [_WORKLOAD * (room == "workload") + n for n in known]
        raise ConfigError(configuration.unknown("parameter", key, names))
    return known[name]


def is_whole(key: str, config: RunConfig) -> bool:
    """Whether the values of a key are whole numbers."""
    return int in _kinds(type_of(key, config))


def _kinds(kind: Any) -> tuple[Any, ...]:
    """The types allowed for a setting: two for ``int | None``."""
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)


def _read(key: str, value: Any, config: RunConfig) -> Any:
    """A value of a key, by the type of its setting."""
    kind = type_of(key, config)
    return configuration.convert(
        value, float if _is_complement(key) else kind, ".".join(target(key))
    )


def configured(config: RunConfig, point: Point) -> RunConfig:
    """The configuration with the settings of a point.

    Raises:
        ConfigError: an unknown setting, a wrong type, a value out of range.
    """
    changes: dict[str, Tree] = {"optimizer": {}, "workload": {}}
    for key, value in point.items():
        room, name = target(key)
        found = _read(key, value, config)
        if _is_complement(key):
            found = configuration.convert(1.0 - found, type_of(key, config), f"{room}.{name}")
        if name in changes[room]:
            raise ConfigError(f"{room}.{name} is set twice")
        changes[room][name] = found
    return dataclasses.replace(
        config,
        optimizer=_changed(config.optimizer, "optimizer", changes["optimizer"]),
        workload=_changed(config.workload, "workload", changes["workload"]),
    )


def _changed(choice: Choice, room: str, parts: Mapping[str, Any]) -> Choice:
    try:
        settings = dataclasses.replace(choice.settings, **parts)
    except ValueError as error:
        message = prefixed(str(error), type(choice.settings), room)
        raise ConfigError(message) from error
    return dataclasses.replace(choice, settings=settings)


def searched(config: RunConfig, *, fixed: Sequence[str], regularisation: bool) -> Space:
    """The optimizer's own space, without given settings and settings that do not apply.

    Args:
        config: the run to tune.
        fixed: given settings of the optimizer.
        regularisation: whether settings of the workload are searched, if it has them.

    Raises:
        UserError: the optimizer has no space.
    """
    space = OPTIMIZERS[config.optimizer.name].space
    if space is None:
        raise UserError(
            f"optimizer {config.optimizer.name} has no search space: expected "
            "study.space=FILE or study.points=FILE"
        )
    found: dict[str, Range | OneOf] = {}
    for key, values in space.items():
        room, name = target(key)
        if room == "workload":
            applies = regularisation and hasattr(config.workload.settings, name)
        else:
            applies = name not in fixed
        if applies:
            found[key] = values
    return found


def read_space(path: Path, config: RunConfig) -> Space:
    """Reads a space from a YAML or JSON file: ``{KEY: {low, high, scale} | {choices: [...]}}``.

    Raises:
        UserError: the file cannot be read, or it is no space for this run.
    """
    space: dict[str, Range | OneOf] = {}
    for key, tree in configuration.read_yaml(path).items():
        try:
            space[str(key)] = _values(str(key), tree, config)
        except (ConfigError, ValueError) as error:
            raise UserError(f"search space {path}: {key}: {error}") from error
    return space


def _values(key: str, tree: Any, config: RunConfig) -> Range | OneOf:
    keys = set(tree) if isinstance(tree, dict) else set()
    if keys == {"choices"} and isinstance(tree["choices"], list):
        choices = (_read(key, choice, config) for choice in tree["choices"])
        return OneOf(tuple(_stored(choice) for choice in choices))
    if {"low", "high"} <= keys <= {"low", "high", "scale"}:
        low, high = (configuration.convert(tree[end], float, end) for end in ("low", "high"))
        return Range(low, high, configuration.convert(tree.get("scale", "log"), str, "scale"))
    expected = "low and high (and scale: log or linear), or choices: [...]"
    got = f"the keys {', '.join(map(shown, tree))}" if isinstance(tree, dict) else shown(tree)
    raise ValueError(f"expected {expected}; got {got}")


def _stored(value: Any) -> Any:
    """A value in the type of a storage."""
    return json.dumps(value) if isinstance(value, (list, tuple)) else value


def read_points(path: Path) -> list[Point]:
    """Reads a list of fixed points, ``[{KEY: VALUE, ...}, ...]``, from a JSON file.

    Raises:
        UserError: the file cannot be read or is no such list.
    """
    name = f"study.points: {path}"
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"study.points: cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # a NUL character in its name
        raise UserError(f"study.points: cannot read {str(path)!r}: {error}") from error
    if len(data) > _MOST_BYTES:
        raise UserError(f"{name}: expected at most {_MOST_BYTES:,} bytes")
    try:
        points = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # too many digits; nested too deep
        raise UserError(f"{name} is not valid JSON: {error}") from error
    if not isinstance(points, list) or not points or not all(isinstance(p, dict) for p in points):
        raise UserError(f"{name}: expected a list of objects such as [{{KEY: VALUE}}]")
    for number, point in enumerate(points):
        if set(point) != set(points[0]) or not point:
            raise UserError(
                f"{name}: expected the keys of the first point, "
                f"{', '.join(points[0]) or 'at least one'}; got {', '.join(point) or 'none'} in "
                f"point {number}"
            )
    return points


def checked_points(points: Sequence[Point], config: RunConfig) -> list[Point]:
    """The points in the types of a storage; each must give a valid configuration.

    Raises:
        UserError: an unknown setting, a wrong type, a value out of range; the text has the point.
    """
    found: list[Point] = []
    for number, point in enumerate(points):
        try:
            configured(config, point)
        except ConfigError as error:
            raise UserError(f"study.points: point {number}: {error}") from error
        found.append({key: _stored(value) for key, value in point.items()})
    return found


def rounded(points: Sequence[Point], config: RunConfig) -> list[Point]:
    """Points of a space, with whole numbers for whole settings."""
    whole = {key for point in points[:1] for key in point if is_whole(key, config)}
    return [
        {k: round(v) if k in whole and isinstance(v, float) else v for k, v in point.items()}
        for point in points
    ]


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
    """Raises if values of a space do not give a valid configuration.

    Each setting is checked alone, at both ends of its range or with each of its choices; then
    together with the others, at up to ``MOST_CORNERS`` corners of the space.

    Raises:
        UserError: an unknown parameter, nothing to tune, or a value that is not allowed.
    """
    if all(isinstance(values, OneOf) and len(values.choices) == 1 for values in space.values()):
        raise UserError(
            "search space: expected at least one parameter with several values, got "
            f"{', '.join(space) or 'none'}"
        )
    for point in itertools.chain(_single_values(space), _corners(space)):
        try:
            for key in point:
                _refuse_range_of_text(space[key], type_of(key, config))
            configured(config, point)
        except ConfigError as error:
            where = ", ".join(f"{key} = {value}" for key, value in point.items())
            raise UserError(f"search space: {where}: {error}") from error


def _refuse_range_of_text(values: Range | OneOf, kind: Any) -> None:
    if isinstance(values, Range) and not {int, float} & set(_kinds(kind)):
        raise ConfigError("expected choices: [...], because the setting is no number; got a range")


def _single_values(space: Space) -> Iterator[Point]:
    for key, values in space.items():
        yield from ({key: value} for value in ends(values))


def _corners(space: Space) -> Iterator[Point]:
    products = itertools.product(*map(ends, space.values()))
    for values in itertools.islice(products, MOST_CORNERS):
        yield dict(zip(space, values, strict=True))


def ends(values: Range | OneOf) -> tuple[Any, ...]:
    """The choices, or both bounds."""
    return values.choices if isinstance(values, OneOf) else (values.low, values.high)


def tree_of(space: Space) -> dict[str, Any]:
    """The space as plain data; ``read_space`` reads it back."""
    return {
        key: {"choices": list(values.choices)}
        if isinstance(values, OneOf)
        else dataclasses.asdict(values)
        for key, values in space.items()
    }
