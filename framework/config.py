"""Configuration: presets and ``key=value`` overrides become one frozen, validated RunConfig.

Boundary: the only importer of OmegaConf; everything behind ``load`` sees dataclasses.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from timetrial.framework.budget import Budget
from timetrial.framework.entries import Entry
from timetrial.framework.errors import UserError
from timetrial.framework.types import Split


class ConfigError(UserError):
    """A configuration that cannot be run."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A registry entry by name, with its settings (the frozen dataclass of that entry)."""

    name: str
    settings: Any


@dataclasses.dataclass(frozen=True)
class Stop:
    """When to end a run before its budget is used up.

    Attributes:
        target: value of the workload's metric to stop at; None trains on.
        split: split whose metric is compared with ``target``.
    """

    target: float | None = None
    split: str = Split.VALIDATION

    def __post_init__(self) -> None:
        allowed = tuple(Split)
        if self.split not in allowed:
            raise ValueError(f"split: expected one of {', '.join(allowed)}, got {self.split!r}")


@dataclasses.dataclass(frozen=True)
class Tracking:
    """Where runs are recorded; no part of what is run.

    Attributes:
        uri: MLflow tracking URI; None takes MLFLOW_TRACKING_URI, else a database in ``root``.
        experiment: MLflow experiment.
        root: directory of everything that is written locally.
    """

    uri: str | None = None
    experiment: str = "timetrial"
    root: str = "runs"


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes, and where it is recorded.

    Attributes:
        workload, optimizer: what is trained, and with what.
        budget: for how long.
        seed: initialisation and order of the data, in [0, 2**32).
        label: name to show in the place of the optimizer's; "" shows that.
        stop: when to end early.
        tracking: where the run is recorded.
    """

    workload: Choice
    optimizer: Choice
    budget: Budget
    seed: int = 0
    label: str = ""
    stop: Stop = dataclasses.field(default_factory=Stop)
    tracking: Tracking = dataclasses.field(default_factory=Tracking)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed: expected a whole number in [0, 2**32), got {self.seed}")


def load(
    overrides: Sequence[str],
    *,
    workloads: Mapping[str, Entry[Any]],
    optimizers: Mapping[str, Entry[Any]],
    presets: Mapping[str, Path],
) -> RunConfig:
    """Builds a RunConfig from ``key=value`` overrides.

    ``preset=NAME`` (or a path to a YAML file) is laid under the other overrides;
    ``workload=NAME`` is short for ``workload.name=NAME``, ``optimizer=NAME`` likewise. Without a
    budget a run makes as many steps as the workload's step hint.

    Raises:
        ConfigError: an unknown key or name (with the nearest known one), a wrong type, a value
            out of range, a file that cannot be read.
    """
    given = parse(overrides)
    tree: dict[str, Any] = {}
    if "preset" in given:
        tree = read_yaml(preset_path(str(given.pop("preset")), presets))
    tree = merge(tree, given)
    workload = _choose("workload", tree.pop("workload", None), workloads)
    optimizer = _choose("optimizer", tree.pop("optimizer", None), optimizers)
    budget = tree.setdefault("budget", {})
    if isinstance(budget, dict) and not {"steps", "seconds"} & budget.keys():
        if budget.get("calibration") is None:
            if not hasattr(workload.settings, "step_hint"):
                raise ConfigError(
                    "expected budget.steps=N or budget.seconds=S, got neither, and workload "
                    f"{workload.name} has no setting step_hint to take the steps from"
                )
            budget["steps"] = workload.settings.step_hint
        else:
            budget["seconds"] = _calibrated_seconds(str(budget["calibration"]), workload.name)
    rest = {key: value for key, value in hints(RunConfig).items() if key not in _CHOICES}
    _check_keys(tree, [*rest, *_CHOICES, "preset"], "")
    parts = {key: convert(value, rest[key], key) for key, value in tree.items()}
    config = _construct(RunConfig, {"workload": workload, "optimizer": optimizer, **parts}, "")
    return typing.cast(RunConfig, config)


_CHOICES = ("workload", "optimizer")
_LIMITS = ("steps", "seconds", "calibration")  # of the budget: one given replaces the others


def parse(overrides: Sequence[str]) -> dict[str, Any]:
    """Turns ``["a.b=1", ...]`` into ``{"a": {"b": 1}}``; values are YAML scalars or lists."""
    for item in overrides:
        key, separator, _ = item.partition("=")
        if not separator or not key or key.strip(".") != key:
            raise ConfigError(
                f"expected key=value (as in seed=1 or budget.steps=300), got {item!r}"
            )
    normal = []
    for item in overrides:
        key, _, value = item.partition("=")
        normal.append(f"{key}.name={value}" if key in _CHOICES else item)
    try:
        return typing.cast("dict[str, Any]", _container(OmegaConf.from_dotlist(normal)))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"cannot read {' '.join(overrides)!r}: {_first_line(error)}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a preset or suite file.

    Raises:
        ConfigError: the file is missing, unreadable or no mapping.
    """
    try:
        tree = _container(OmegaConf.load(path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {_first_line(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {_kind(tree)}")
    for key in _CHOICES:
        if isinstance(tree.get(key), str):
            tree[key] = {"name": tree[key]}
    return tree


def merge(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Lays later trees over earlier ones; another name drops the settings that went with it."""
    result: dict[str, Any] = {}
    for tree in trees:
        for key in _CHOICES:
            new, old = tree.get(key), result.get(key)
            if not (isinstance(new, dict) and isinstance(old, dict)):
                continue
            if new.get("name", old.get("name")) != old.get("name"):
                result.pop(key)
        new_budget = tree.get("budget")
        if isinstance(new_budget, dict) and new_budget.keys() & set(_LIMITS):
            old_budget = dict(result.get("budget") or {})
            result["budget"] = {k: v for k, v in old_budget.items() if k not in _LIMITS}
        result = typing.cast("dict[str, Any]", _container(OmegaConf.merge(result, dict(tree))))
    return result


def _calibrated_seconds(path: str, workload: str) -> Any:
    """The budget that a calibration file holds for the workload."""
    tree = read_yaml(Path(path))
    measured = tree.get("workload")
    if isinstance(measured, dict):  # as ``read_yaml`` spells out a choice
        measured = measured.get("name")
    if measured != workload or "budget_seconds" not in tree:
        raise ConfigError(
            f"budget.calibration: expected a calibration file of {workload} "
            f"(timetrial calibrate {workload}), got one of {measured} in {path}"
        )
    return tree["budget_seconds"]


def preset_path(name: str, presets: Mapping[str, Path]) -> Path:
    """The file of a preset, by its name or by the path of a YAML file."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    if name not in presets:
        raise ConfigError(unknown("preset", name, presets))
    return presets[name]


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Message for an unknown name: the nearest known one, then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}{hint} Known: {', '.join(names)}".replace("' Known", "'. Known")


def _choose(what: str, tree: Any, entries: Mapping[str, Entry[Any]]) -> Choice:
    if not isinstance(tree, dict) or "name" not in tree:
        raise ConfigError(f"{what}=NAME is missing. Known: {', '.join(sorted(entries))}")
    settings = dict(tree)
    name = str(settings.pop("name"))
    if name not in entries:
        raise ConfigError(unknown(what, name, entries))
    return Choice(name, convert(settings, entries[name].settings, what))


def _check_keys(tree: Mapping[str, Any], known: Sequence[str], path: str) -> None:
    for key in tree:
        if key not in known:
            name = f"{path}.{key}" if path else str(key)
            full = [f"{path}.{k}" if path else k for k in known]
            raise ConfigError(unknown("config key", name, full))


def convert(value: Any, hint: Any, path: str) -> Any:
    """Checks ``value`` against a type hint; the errors name the dotted ``path``."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (hint,) = (a for a in args if a is not type(None))
        return convert(value, hint, path)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(
                f"{path}: expected keys such as {path}.{_example(hint)}, got {value!r}"
            )
        known = hints(typing.cast(type, hint))
        _check_keys(value, list(known), path)
        parts = {k: convert(v, known[k], f"{path}.{k}") for k, v in value.items()}
        for field in dataclasses.fields(hint):
            if field.name not in parts and field.init and _is_required(field):
                raise ConfigError(f"{path}.{field.name}: expected a value, as it has no default")
        return _construct(hint, parts, path)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{path}: expected a list such as [1,2], got {value!r}")
        return tuple(convert(v, args[0], f"{path}[{i}]") for i, v in enumerate(value))
    return _scalar(value, hint, path)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _scalar(value: Any, hint: type, path: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and is_number:
        return float(value)
    if hint is int and is_number and float(value).is_integer():
        return int(value)
    if hint is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    if hint is bool and isinstance(value, bool):
        return value
    names = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
    raise ConfigError(f"{path}: expected {names.get(hint, hint)}, got {value!r} ({_kind(value)})")


def _construct(cls: Any, parts: Mapping[str, Any], path: str) -> Any:
    try:
        return cls(**parts)
    except ValueError as error:
        message = str(error)
        prefix = "" if not path or message.startswith(path) else f"{path}."
        raise ConfigError(f"{prefix}{message}") from error


def hints(cls: type) -> dict[str, Any]:
    """Type of every field of a dataclass, by name."""
    resolved = typing.get_type_hints(cls)
    return {field.name: resolved[field.name] for field in dataclasses.fields(cls)}


def _example(cls: Any) -> str:
    return next(iter(hints(cls)), "...")


def _container(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split())


def _kind(value: Any) -> str:
    return {dict: "keys", list: "a list", str: "text", type(None): "nothing"}.get(
        type(value), type(value).__name__
    )


def tree_of(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested dicts; ``load`` reads its YAML back as a preset."""
    tree = dataclasses.asdict(config)
    for key in _CHOICES:
        tree[key] = {"name": tree[key]["name"], **tree[key]["settings"]}
    return tree


def to_yaml(config: RunConfig) -> str:
    """The configuration as YAML."""
    return yaml_of(tree_of(config))


def yaml_of(tree: Mapping[str, Any]) -> str:
    """Nested dicts as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(tree)))


def flat(config: RunConfig) -> dict[str, str]:
    """The configuration as ``{"optimizer.learning_rate": "0.005", ...}``."""
    result: dict[str, str] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else key)
        else:
            result[path] = json.dumps(node) if isinstance(node, (list, tuple)) else str(node)

    tree = tree_of(config)
    for key in _CHOICES:  # as the user types it: workload=NAME
        result[key] = tree[key].pop("name")
    walk(tree, "")
    return result


def digest(config: RunConfig) -> str:
    """Identity of what is run: the same for equal configurations, wherever they are recorded."""
    tree = tree_of(config)
    del tree["tracking"]
    del tree["budget"]["calibration"]  # where the seconds come from is no part of what is run
    if not config.label:
        del tree["label"]
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
