"""Reads texts by type: dataclass fields give the keys, their annotations the types.

Pure: trees in, frozen dataclasses out.

    int      decimal digits with a sign: ``300``; ``010`` is 10; ``1e3`` and ``1_000`` are errors
    float    ``3``, ``.5``, ``1e-3``; ``inf`` or ``.inf`` (outside most ranges); never ``nan``
    bool     ``true`` or ``false``, in any case
    str      as typed, also when it looks like a number
    X | None as X; unquoted ``null``, ``none``, ``~`` and empty text are None
    tuple    ``[1, 2]``, ``1,2``, or one value
    path     as typed, with ``~`` expanded
"""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from timetrial.framework import paths
from timetrial.framework.errors import ConfigError
from timetrial.framework.suggestions import nearest, unknown
from timetrial.framework.yaml_files import NULLS, Scalar, Tree, parse_yaml

_WHOLE = re.compile(r"[+-]?[0-9]{1,1000}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?\.?inf(inity)?", re.IGNORECASE)


def convert(value: Any, hint: Any, path: str) -> Any:
    """Reads a value by the type of its setting.

    Args:
        value: a text, list or tree as typed, or a value of the right type.
        hint: annotation of the setting.
        path: dotted name of the setting, for errors.

    Raises:
        ConfigError: the type is wrong, or a key of a dataclass is unknown, missing or invalid.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if _is_none(value) and type(None) in args:
            return None
        return _one_of(value, [a for a in args if a is not type(None)], path)
    if origin is Annotated:
        return _expanded(convert(value, args[0], path), hint.__metadata__, path)
    if origin is tuple:
        return _tuple(value, args, path)
    if origin is collections.abc.Mapping:
        found = _mapping(value, path, "")
        return {str(key): convert(v, args[1], at(path, key)) for key, v in found.items()}
    if origin is typing.Literal:
        return _choice(value, args, path)
    if dataclasses.is_dataclass(hint):
        cls = typing.cast(type, hint)
        return construct(cls, fields_of(_mapping(value, path, _example(cls)), cls, path), path)
    return _scalar(value, hint, path)


def fields_of(tree: Mapping[str, Any], cls: type, path: str) -> dict[str, Any]:
    """The settings of a dataclass from a tree, each read by its type.

    Raises:
        ConfigError: keys are unknown (all are named), or a value has another type.
    """
    known = hints(cls)
    refuse_unknown(unknown_keys(tree, known, path))
    return {str(key): convert(value, known[key], at(path, key)) for key, value in tree.items()}


def construct(cls: Any, parts: Mapping[str, Any], path: str) -> Any:
    """Makes a dataclass from its settings.

    Raises:
        ConfigError: a setting is missing or invalid.
    """
    for field in dataclasses.fields(cls):
        default = field.default is dataclasses.MISSING
        required = default and field.default_factory is dataclasses.MISSING and field.init
        if required and field.name not in parts:
            raise ConfigError(
                f"{at(path, field.name)}: expected a value, as it has no default; got none"
            )
    try:
        return cls(**parts)
    except ValueError as error:
        raise ConfigError(prefixed(str(error), cls, path)) from error


def prefixed(message: str, cls: type, path: str) -> str:
    """The message of a dataclass, preceded by the dotted name of the setting."""
    first = re.match(r"\w*", message)
    if first and first[0] in hints(cls):
        return at(path, message)
    return message if not path or message.startswith(f"{path}.") else f"{path}: {message}"


def hints(cls: type) -> dict[str, Any]:
    """Type of every field of a dataclass, by name."""
    resolved = typing.get_type_hints(cls, include_extras=True)
    return {field.name: resolved[field.name] for field in dataclasses.fields(cls)}


def at(path: str, key: str) -> str:
    """Dotted name of a key."""
    return f"{path}.{key}" if path else str(key)


@dataclasses.dataclass(frozen=True)
class Unknown:
    """An unknown key.

    Attributes:
        name: dotted name.
        where: file and line, or "".
        known: dotted names of the known keys at its place.
    """

    name: str
    where: str
    known: tuple[str, ...]


def unknown_keys(tree: Mapping[str, Any], known: Mapping[str, Any], path: str) -> Iterator[Unknown]:
    """Unknown keys of a tree, nested dataclasses included."""
    for key, value in tree.items():
        if key not in known:
            names = tuple(at(path, name) for name in known)
            yield Unknown(at(path, key), getattr(key, "where", ""), names)
        elif dataclasses.is_dataclass(known[key]) and isinstance(value, dict):
            inner = hints(typing.cast(type, known[key]))
            yield from unknown_keys(value, inner, at(path, key))


def refuse_unknown(found: collections.abc.Iterable[Unknown], hidden: tuple[str, ...] = ()) -> None:
    """Raises a ConfigError that names all unknown keys; suggests ``hidden`` keys, too."""
    keys = list(found)
    if not keys:
        return
    if len(keys) == 1:
        (key,) = keys
        text = unknown("config key", key.name, key.known, hidden)
        raise ConfigError(f"{key.where}: {text}" if key.where else text)
    texts = []
    for key in keys:
        near = nearest(key.name, [*key.known, *hidden])
        notes = [key.where] * bool(key.where) + [f"did you mean {near!r}?"] * bool(near)
        texts.append(f"{key.name!r}" + (f" ({'; '.join(notes)})" if notes else ""))
    raise ConfigError(f"unknown config keys {', '.join(texts)}")


def _is_none(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() in NULLS and not getattr(value, "quoted", False)
    return value is None


def _one_of(value: Any, options: list[Any], path: str) -> Any:
    """Reads a value by the first type that fits."""
    for option in options[:-1]:
        try:
            return convert(value, option, path)
        except ConfigError:
            continue
    return convert(value, options[-1], path)


def _tuple(value: Any, args: tuple[Any, ...], path: str) -> tuple[Any, ...]:
    items = _listed(value, path)
    of = args[:1] * len(items) if args[1:] == (...,) else args
    if len(items) != len(of):
        raise ConfigError(f"{path}: expected {len(of)} values, got {len(items)}")
    pairs = zip(items, of, strict=True)
    return tuple(convert(item, hint, f"{path}[{i}]") for i, (item, hint) in enumerate(pairs))


def _expanded(text: str, notes: tuple[Any, ...], path: str) -> str:
    for expand in (paths.expanded, paths.expanded_uri):
        if expand in notes:
            try:
                text = expand(text)
            except ValueError as error:
                raise ConfigError(f"{path}: {error}") from error
    return text


def _listed(value: Any, path: str) -> list[Any]:
    """The items of a list in any notation."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if not isinstance(value, str):
        raise refused(path, "a list such as [1,2]", value)
    if getattr(value, "quoted", False):
        return [value]
    if not value.startswith("["):
        return [item.strip() for item in value.split(",")]
    try:
        found = parse_yaml(value, path)
    except ConfigError as error:
        raise refused(path, "a list such as [1,2]", value) from error
    return found if isinstance(found, list) else [value]


def _mapping(value: Any, path: str, example: str) -> Tree:
    if isinstance(value, dict):
        return value
    raise refused(path, f"keys such as {at(path, example)}" if example else "keys", value)


def _example(cls: type) -> str:
    return next(iter(hints(cls)), "...")


def _int(value: Any) -> int | None:
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: Any) -> float | None:
    if isinstance(value, str):
        if _INFINITE.fullmatch(value):
            return float(value.replace(".", ""))
        number = float(value) if _NUMBER.fullmatch(value) else math.nan
        return number if math.isfinite(number) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, int):
        return float(value) if abs(value) < 2**1000 else None
    return None if math.isnan(value) else value


def _bool(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _str(value: Any) -> str | None:
    if not isinstance(value, str) or "\0" in value:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return str(value)


_READERS: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    int: ("a whole number", _int),
    float: ("a number", _float),
    bool: ("true or false", _bool),
    str: ("text", _str),
}


def _scalar(value: Any, hint: Any, path: str) -> Any:
    if hint not in _READERS:
        raise ConfigError(f"{path}: a setting of type {hint} cannot be read from text")
    expected, read = _READERS[hint]
    found = read(value)
    if found is None:
        raise refused(path, expected, value)
    if isinstance(found, int) and not -(2**63) <= found < 2**63:
        raise refused(path, "a whole number of at most 64 bits", value)
    return found


def _choice(value: Any, allowed: Sequence[str], path: str) -> str:
    """One of some texts."""
    found = _scalar(value, str, path)
    if found not in allowed:
        raise refused(path, f"one of {', '.join(allowed)}", value)
    return str(found)


def refused(path: str, expected: str, value: Any) -> ConfigError:
    """The error for a value of the wrong type."""
    where = f" ({value.where})" if isinstance(value, Scalar) else ""
    return ConfigError(f"{path}: expected {expected}, got {shown(value)}{where}")


def shown(value: Any) -> str:
    """A value in a message: short, on one line."""
    if isinstance(value, (dict, list, tuple)):
        return "keys" if isinstance(value, dict) else "a list"
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"
