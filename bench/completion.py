"""Shell completion: keys from the help texts, names and settings from the source.

Boundary: reads files of this package and lists entry points; imports neither JAX nor a plug-in.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from timetrial.framework.source import FILE, FILLED

SHELLS = ("bash", "zsh", "fish")

SECTIONS = ("workloads", "optimizers", "suites", "presets", "launchers", "weights")
"""Sections of ``timetrial list``."""

_BENCH = Path(__file__).parent
_KEY = re.compile(r"(?<![\w.])([a-z_]+(?:\.[a-z_]+)?)=")
_CHOICES = {"workload": ("workloads", "WORKLOADS"), "optimizer": ("optimizers", "OPTIMIZERS")}


def script(shell: str) -> str:
    """The completion script of a shell, one of ``SHELLS``."""
    import argcomplete.shell_integration

    return str(argcomplete.shell_integration.shellcode(["timetrial"], shell=shell))


def complete(action: argparse.Action, *names: Callable[[], Sequence[str]]) -> None:
    """Adds completion to an argument, with the names returned by the functions."""

    def completer(prefix: str, **context: object) -> list[str]:
        return [name for found in names for name in found() if name.startswith(prefix)]

    action.completer = completer  # type: ignore[attr-defined]  # argcomplete's own interface


def complete_overrides(action: argparse.Action, text: str) -> None:
    """Adds completion of ``key=value`` words.

    Args:
        action: the argument of the words.
        text: help text of the command; its ``key=`` words are the keys.
    """

    def completer(prefix: str, parsed_args: argparse.Namespace, **context: object) -> list[str]:
        given = [word for word in getattr(parsed_args, "overrides", None) or [] if "=" in word]
        return [word for word in words(text, given, prefix) if word.startswith(prefix)]

    action.completer = completer  # type: ignore[attr-defined]  # argcomplete's own interface


def words(text: str, given: Sequence[str], prefix: str) -> list[str]:
    """Possible next words: keys of the command, or names after a key."""
    key, separator, value = prefix.partition("=")
    if not separator:
        chosen = dict(word.split("=", 1) for word in given)
        known = [*keys(text), *_settings_keys(text, chosen)]
        return [f"{key}=" for key in known if key not in chosen]
    head = value[: max(value.rfind("["), value.rfind(",")) + 1] if key.endswith("s") else ""
    return [f"{key}={head}{name}" for name in _names(key)]


def keys(text: str) -> list[str]:
    """The keys in a help text, in order."""
    return list(dict.fromkeys(_KEY.findall(text)))


def listed() -> list[str]:
    """Sections, and names of all workloads, optimizers, suites and presets, plug-ins included."""
    names = [name for key in ("workload", "optimizer", "suite", "preset") for name in _names(key)]
    return [*SECTIONS, *names]


def workloads() -> list[str]:
    """Names of all workloads, plug-ins included."""
    return _names("workload")


def _names(key: str) -> list[str]:
    """Allowed names of a key; empty if any value is allowed."""
    if key in ("preset", "suite"):
        directory = _BENCH / f"{key}s"
        found = sorted(directory.rglob("*.yaml"))
        return [path.relative_to(directory).with_suffix("").as_posix() for path in found]
    choice = key.removesuffix("s")
    if choice not in _CHOICES:
        return []
    room, registry = _CHOICES[choice]
    plugins = importlib.metadata.entry_points(group=f"timetrial.{room}")
    return [*_registry(room, registry), *(plugin.name for plugin in plugins)]


def _settings_keys(text: str, chosen: dict[str, str]) -> Iterator[str]:
    """``optimizer.KEY`` and ``workload.KEY`` of the chosen built-in entries, or files."""
    for choice, (room, registry) in _CHOICES.items():
        if choice not in keys(text):
            continue
        entry = _registry(room, registry).get(chosen.get(choice, ""))
        found = _settings_at(entry, room) if entry is not None else []
        if target := FILE.fullmatch(chosen.get(choice, "")):
            found = _settings_in(Path(os.path.expanduser(target["path"])), target["name"])
        yield from (f"{choice}.{field}" for field in found)


def _settings_in(file: Path, name: str) -> list[str]:
    """Settings of an entry or a function in a Python file, which is parsed, not run."""
    try:
        module = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    found = _definition(name, module)
    if found is None or not isinstance(found[0], ast.FunctionDef):
        return _settings_of(ast.Name(name), module)
    arguments = found[0].args
    positional = [*arguments.posonlyargs, *arguments.args]
    if positional and positional[0].annotation is not None:
        settings = _fields(ast.unparse(positional[0].annotation).strip("'\""), module)
        if settings:
            return settings
    names = [argument.arg for argument in (*positional, *arguments.kwonlyargs)]
    return [name for name in names if name not in FILLED]


def _registry(room: str, registry: str) -> dict[str, ast.expr]:
    """The dict literals of a registry: source of each entry by name."""
    found = _definition(registry, _source(room))
    literals = [node for node in ast.walk(found[0]) if isinstance(node, ast.Dict)] if found else []
    pairs = [pair for node in literals for pair in zip(node.keys, node.values, strict=True)]
    return {str(key.value): value for key, value in pairs if isinstance(key, ast.Constant)}


def _settings_at(listed: ast.expr, room: str) -> list[str]:
    """Settings of a built-in entry, from its ``Listed("module:NAME", ...)``."""
    if not (isinstance(listed, ast.Call) and isinstance(listed.args[0], ast.Constant)):
        return []
    module, _, name = str(listed.args[0].value).partition(":")
    return _settings_of(ast.Name(name), _source(f"{room}.{module}"))


def _settings_of(entry: ast.expr, module: ast.Module) -> list[str]:
    """Fields of the settings class of an entry: its second argument, or ``settings=``."""
    if not isinstance(entry, ast.Call):
        found = _definition(ast.unparse(entry), module)
        if found is None or not isinstance(found[0], ast.Assign | ast.AnnAssign):
            return []
        return _settings_of(found[0].value, found[1]) if found[0].value is not None else []
    named = [keyword.value for keyword in entry.keywords if keyword.arg == "settings"]
    settings = [*named, *entry.args[1:2]]
    return _fields(ast.unparse(settings[0]), module) if settings else []


def _fields(name: str, module: ast.Module) -> list[str]:
    """Fields of a dataclass, inherited ones included."""
    found = _definition(name, module)
    if found is None or not isinstance(found[0], ast.ClassDef):
        return []
    fields = [f for base in found[0].bases for f in _fields(ast.unparse(base), found[1])]
    own = [
        node.target
        for node in found[0].body
        if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation)
    ]
    return list(dict.fromkeys([*fields, *(t.id for t in own if isinstance(t, ast.Name))]))


def _definition(name: str, module: ast.Module) -> tuple[ast.stmt, ast.Module] | None:
    """The statement that defines a dotted name, and its module; imports are followed."""
    head, _, rest = name.partition(".")
    for node in module.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if head != (alias.asname or alias.name):
                    continue
                inside = f"{node.module}.{alias.name}" if rest else str(node.module)
                return _definition(rest or alias.name, _source(inside.removeprefix("timetrial.")))
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if name in [*names, getattr(node, "name", None)]:
            return node, module
    return None


def _source(module: str) -> ast.Module:
    """The parsed source of a module of this package, dotted; nothing is imported."""
    path = _BENCH.parent.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8") if file.exists() else "")
