"""The configuration of a run: presets and ``key=value`` words become one frozen RunConfig.

Boundary: defines settings and their names; ``convert`` reads values, ``yaml_files`` reads files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timetrial.framework.budget import Budget
from timetrial.framework.calibration import check_fits, load_calibration
from timetrial.framework.convert import (
    construct,
    convert,
    hints,
    refuse_unknown,
    refused,
    unknown_keys,
)
from timetrial.framework.entries import Entry, OptimizerEntry
from timetrial.framework.errors import ConfigError
from timetrial.framework.overrides import CHOICES, file_of, merge, parse, read_preset
from timetrial.framework.parallel import Train
from timetrial.framework.paths import UserPath, UserUri
from timetrial.framework.suggestions import unknown
from timetrial.framework.types import Split
from timetrial.framework.yaml_files import Tree, read_yaml, yaml_of

__all__ = [
    "Choice",
    "ConfigError",
    "RunConfig",
    "Stop",
    "Tracking",
    "Tree",
    "calibrated_seconds",
    "construct",
    "convert",
    "digest",
    "file_of",
    "flat",
    "flat_tree",
    "hints",
    "load",
    "load_tree",
    "merge",
    "parse",
    "read_preset",
    "read_yaml",
    "to_yaml",
    "tree_of",
    "unknown",
    "without_place",
    "workload_texts",
    "yaml_of",
]


@dataclasses.dataclass(frozen=True)
class Choice:
    """Name of a registry entry and its settings (the frozen dataclass of that entry)."""

    name: str
    settings: Any


@dataclasses.dataclass(frozen=True)
class Stop:
    """When to end a run before its budget is used up.

    Attributes:
        target: value of the deciding metric at which the run ends; None never ends it.
        split: split of the metric compared with ``target``.
    """

    target: float | None = None
    split: str = Split.VALIDATION.value

    def __post_init__(self) -> None:
        allowed = tuple(Split)
        if self.target is not None and not math.isfinite(self.target):
            raise ValueError(f"target: expected a finite number, got {self.target}")
        if self.split not in allowed:
            raise ValueError(f"split: expected one of {', '.join(allowed)}, got {self.split!r}")


@dataclasses.dataclass(frozen=True)
class Tracking:
    """Place where runs are recorded; does not affect what is run.

    Attributes:
        uri: MLflow tracking URI; None takes MLFLOW_TRACKING_URI, else a database in ``root``.
        experiment: MLflow experiment.
        root: directory of all local files.
        queue: database of the claims of several workers, sqlite or PostgreSQL; None takes that of
            the store where it is PostgreSQL, else a file in ``root``.
        checkpoint_minutes: charged minutes between two checkpoints, > 0; runs are also saved at
            evaluations where that takes less than 1 % of their time, and when they end.
        final_checkpoint: keep the checkpoint of a finished run: its trained state.
    """

    uri: UserUri | None = dataclasses.field(default=None, repr=False)
    experiment: str = "timetrial"
    root: UserPath = "runs"
    queue: UserUri | None = dataclasses.field(default=None, repr=False)
    checkpoint_minutes: float = 10.0
    final_checkpoint: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.checkpoint_minutes < math.inf:
            raise ValueError(
                f"checkpoint_minutes: expected a finite number > 0, got {self.checkpoint_minutes}"
            )


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Configuration of a run: everything that determines its result, and its place of record.

    Attributes:
        workload, optimizer: registry entries and their settings.
        budget: limit of the run.
        seed: seed of initialisation and order of the data, in [0, 2**32).
        label: name shown instead of the optimizer's; "" shows the optimizer's.
        stop: conditions of an early end.
        train: devices and microbatches; affects results by float error only.
        tracking: place where the run is recorded.
    """

    workload: Choice
    optimizer: Choice
    budget: Budget
    seed: int = 0
    label: str = ""
    stop: Stop = dataclasses.field(default_factory=Stop)
    train: Train = dataclasses.field(default_factory=Train)
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
    """Builds a RunConfig from ``key=value`` words.

    Other words override ``preset=NAME`` (or the path of a YAML file); of ``preset=A,B`` the later
    one overrides the earlier one. ``workload=NAME`` is short for ``workload.name=NAME``,
    ``optimizer=NAME`` likewise.

    Raises:
        ConfigError: as ``load_tree``, or a word or file is not readable.
    """
    tree = parse(overrides)
    if "preset" in tree:
        names = convert(tree.pop("preset"), str, "preset").split(",")
        tree = merge(*(read_preset(file_of("preset", name, presets)) for name in names), tree)
    return load_tree(tree, workloads=workloads, optimizers=optimizers)


def load_tree(
    tree: Mapping[str, Any],
    *,
    workloads: Mapping[str, Entry[Any]],
    optimizers: Mapping[str, Entry[Any]],
) -> RunConfig:
    """Builds a RunConfig from a tree of settings, as ``parse`` and ``read_preset`` return them.

    Without a budget, the step hint of the workload is the number of steps.

    Raises:
        ConfigError: a key or name is unknown, or a value has a wrong type or is out of range. The
            message suggests the nearest known name.
    """
    rest = {key: value for key, value in tree.items() if key not in CHOICES}
    entries = {"workload": workloads, "optimizer": optimizers}
    names = {key: _name(key, tree.get(key), entries[key]) for key in CHOICES}
    settings = {key: {k: v for k, v in tree[key].items() if k != "name"} for key in CHOICES}
    types = {key: entries[key][names[key]].settings for key in CHOICES}
    _refuse_unknown_keys(rest, settings, types)
    optimizer = Choice(
        names["optimizer"], convert(settings["optimizer"], types["optimizer"], "optimizer")
    )
    given = {
        **_asked(optimizers[optimizer.name], optimizer, types["workload"]),
        **settings["workload"],
    }
    workload = Choice(names["workload"], convert(given, types["workload"], "workload"))
    parts = {"workload": workload, "optimizer": optimizer}
    rest["budget"] = _with_limit(rest.get("budget", {}), parts["workload"])
    of_rest = hints(RunConfig)
    found = {str(key): convert(value, of_rest[key], key) for key, value in rest.items()}
    return typing.cast(RunConfig, construct(RunConfig, {**parts, **found}, ""))


def _asked(entry: Entry[Any], optimizer: Choice, workload: type) -> dict[str, Any]:
    """Settings of the workload that the optimizer asks for, where the workload has them."""
    if not isinstance(entry, OptimizerEntry):
        return {}
    asked = entry.workload_settings(optimizer.settings)
    return {name: value for name, value in asked.items() if name in hints(workload)}


def _name(what: str, tree: Any, entries: Mapping[str, Entry[Any]]) -> str:
    if tree is None or (isinstance(tree, dict) and "name" not in tree):
        raise ConfigError(f"{what}=NAME is missing. Known: {', '.join(sorted(entries))}")
    if not isinstance(tree, dict):
        raise refused(what, f"a name or keys such as {what}.name", tree)
    name: str = convert(tree["name"], str, f"{what}.name")
    if name not in entries:
        raise ConfigError(unknown(what, name, entries, getattr(entries, "adapters", ())))
    return name


def _refuse_unknown_keys(
    rest: Tree, settings: Mapping[str, Tree], types: Mapping[str, type]
) -> None:
    """Raises a ConfigError that names all unknown keys."""
    known = hints(RunConfig)
    found = [*unknown_keys(rest, known, "")]
    dotted = ["preset"]  # candidates to suggest for a key at the top
    for key in CHOICES:
        found += unknown_keys(settings[key], hints(types[key]), key)
        dotted += [f"{key}.{name}" for name in hints(types[key])]
    for key in ("budget", "stop", "train", "tracking"):
        dotted += [f"{key}.{name}" for name in hints(known[key])]
    refuse_unknown(found, tuple(dotted))


def _with_limit(budget: Any, workload: Choice) -> Any:
    """The budget; a missing limit is taken from its calibration or the step hint."""
    if not isinstance(budget, dict) or {"steps", "seconds"} & budget.keys():
        return budget
    file = convert(budget.get("calibration"), UserPath | None, "budget.calibration")
    if file is not None:
        found = calibrated_seconds(Path(file), workload, f"budget.calibration: {file}")
        return {**budget, "seconds": found}
    if not hasattr(workload.settings, "step_hint"):
        raise ConfigError(
            "expected budget.steps=N or budget.seconds=S, got neither, and workload "
            f"{workload.name} has no setting step_hint to take the steps from"
        )
    return {**budget, "steps": workload.settings.step_hint}


def calibrated_seconds(path: Path, workload: Choice, where: str) -> float:
    """The time budget in a calibration file, in charged seconds, checked against a workload.

    Raises:
        ConfigError: the file cannot be read, or is of another workload or other settings.
    """
    calibration = load_calibration(path)
    check_fits(calibration, workload.name, workload_texts(workload), where)
    return calibration.budget_seconds


def workload_texts(workload: Choice) -> dict[str, str]:
    """The settings of a workload as texts, by dotted name: ``workload.batch_size``."""
    return flat_tree({"workload": dataclasses.asdict(workload.settings)})


def tree_of(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested dicts; their YAML is a valid preset."""
    tree = dataclasses.asdict(config)
    for key in CHOICES:
        tree[key] = {"name": tree[key]["name"], **tree[key]["settings"]}
    return tree


def without_place(config: RunConfig) -> dict[str, Any]:
    """The tree of what affects the result: not where it is computed or recorded.

    Microbatches affect it through batch norm and dropout.
    """
    tree = tree_of(config)
    del tree["tracking"], tree["train"]
    if config.train.microbatches > 1:
        tree["train"] = {"microbatches": config.train.microbatches}
    return tree


def to_yaml(config: RunConfig) -> str:
    """The configuration as YAML."""
    tree = tree_of(config)
    return yaml_of(tree)


def flat(config: RunConfig) -> dict[str, str]:
    """The configuration as ``{"optimizer.learning_rate": "0.005", ...}``.

    ``train`` shows what differs from the default; the number of devices is a tag. Of checkpoints,
    too, only what differs is shown.
    """
    tree = tree_of(config)
    for key in ("queue", "checkpoint_minutes", "final_checkpoint"):
        if tree["tracking"][key] == getattr(Tracking(), key):
            del tree["tracking"][key]
    default = dataclasses.asdict(Train(devices=config.train.devices))
    tree["train"] = {key: value for key, value in tree["train"].items() if value != default[key]}
    names = {key: tree[key].pop("name") for key in CHOICES}  # as typed: workload=NAME
    return {**names, **flat_tree(tree)}


def flat_tree(tree: Mapping[str, Any]) -> dict[str, str]:
    """A tree of settings as texts by dotted name."""
    result: dict[str, str] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else key)
        else:
            result[path] = json.dumps(node) if isinstance(node, (list, tuple)) else str(node)

    walk(tree, "")
    return result


def digest(config: RunConfig) -> str:
    """Identity of a configuration; independent of the place of record."""
    tree = without_place(config)
    del tree["budget"]["calibration"]  # the origin of the seconds does not affect the run
    if not config.label:
        del tree["label"]
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
