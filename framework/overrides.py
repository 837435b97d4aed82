"""Settings as typed: command-line words and presets become trees and are merged.

Boundary: keys only, no types; values stay texts, ``framework.config`` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timetrial.framework.convert import shown
from timetrial.framework.errors import ConfigError
from timetrial.framework.paths import user_path
from timetrial.framework.suggestions import unknown
from timetrial.framework.yaml_files import Tree, read_yaml

CHOICES = ("workload", "optimizer")
"""Keys of registry entries: ``workload=NAME`` is short for ``workload.name=NAME``."""

_LIMITS = ("steps", "seconds", "calibration")  # of the budget; a new one replaces the others


def split_off(words: Sequence[str], name: str) -> tuple[Tree, list[str]]:
    """The settings ``NAME.KEY=VALUE`` as a tree, and the other words; ``NAME=X`` is its key name.

    Raises:
        ConfigError: as for ``parse``.
    """
    own = [word for word in words if word.startswith((f"{name}.", f"{name}="))]
    named = [word.replace(f"{name}=", f"{name}.name=", 1) for word in own]
    return dict(parse(named).get(name, {})), [word for word in words if word not in own]


def parse(overrides: Sequence[str]) -> Tree:
    """Turns ``["a.b=1", "c=x"]`` into ``{"a": {"b": "1"}, "c": "x"}``; values stay texts.

    Raises:
        ConfigError: a word is not ``key=value``, or a key has two values.
    """
    tree: Tree = {}
    given: dict[str, str] = {}
    for word in overrides:
        key, separator, value = word.partition("=")
        parts = key.split(".")
        if not separator or not all(parts):
            expected = "key=value (as in seed=1 or budget.steps=300)"
            raise ConfigError(f"expected {expected}, got {shown(word)}")
        if key in CHOICES:
            parts.append("name")
        first = given.setdefault(".".join(parts), value)
        if first != value:
            both = f"{shown(first)} and {shown(value)}"
            raise ConfigError(f"{key}: expected one value, got {both}")
        node = tree
        for part in parts[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or isinstance(node.get(parts[-1]), dict):
            raise ConfigError(f"{key}: expected a value or keys below it, got both")
        node[parts[-1]] = value
    return tree


def read_preset(path: Path) -> Tree:
    """Reads a run preset; ``workload: NAME`` becomes ``workload: {name: NAME}``.

    Raises:
        ConfigError: as ``read_yaml``.
    """
    tree = read_yaml(path)
    return {
        key: {"name": value} if key in CHOICES and isinstance(value, str) else value
        for key, value in tree.items()
    }


def file_of(what: str, name: str, known: Mapping[str, Path]) -> Path:
    """The file of a preset or suite, from its name or the path of a YAML file."""
    if name.endswith((".yaml", ".yml")):
        return user_path(name)
    if name not in known:
        raise ConfigError(unknown(what, name, known))
    return known[name]


def merge(*trees: Mapping[str, Any]) -> Tree:
    """Lays later trees over earlier ones.

    Choosing another name discards the old entry's settings. A limit of the budget replaces the
    other limits.
    """
    result: Tree = {}
    for tree in trees:
        for key in CHOICES:
            new, old = tree.get(key), result.get(key)
            if not (isinstance(new, dict) and isinstance(old, dict) and "name" in old):
                continue
            if new.get("name", old["name"]) != old["name"]:
                del result[key]
        budget, before = tree.get("budget"), result.get("budget")
        if isinstance(budget, dict) and isinstance(before, dict) and budget.keys() & set(_LIMITS):
            result["budget"] = {k: v for k, v in before.items() if k not in _LIMITS}
        result = _laid_over(result, tree)
    return result


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _laid_over(result[key], value) if both else value
    return result
