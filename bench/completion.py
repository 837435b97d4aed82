"""Shell completion: keys from the help texts, names and settings from the source.

Boundary: reads files of this package and lists entry points; imports neither JAX nor a plug-in.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

SHELLS = ("bash", "zsh", "fish")
_BENCH = Path(__file__).parent
_KEY = re.compile(r"(?<![\w.])([a-z_]+(?:\.[a-z_]+)?)=")
_CHOICES = {"workload": ("workloads", "WORKLOADS"), "optimizer": ("optimizers", "OPTIMIZERS")}


def script(shell: str) -> str:
    """The script that switches completion on in a shell, one of ``SHELLS``."""
    import argcomplete.shell_integration

    return str(argcomplete.shell_integration.shellcode(["timetrial"], shell=shell))


def complete(action: argparse.Action, *names: Callable[[], Sequence[str]]) -> None:
    """Lets argcomplete complete an argument with the names that the functions return."""

    def completer(prefix: str, **context: object) -> list[str]:
        return [name for found in names for name in found() if name.startswith(prefix)]

    action.completer = completer  # type: ignore[attr-defined]  # argcomplete's own interface


def complete_overrides(action: argparse.Action, text: str) -> None:
    """Lets argcomplete complete ``key=value`` words.

    Args:
        action: the argument of the words.
        text: help text of the command; its ``key=`` words are the keys.
    """

    def completer(prefix: str, parsed_args: argparse.Namespace, **context: object) -> list[str]:
        given = [word for word in getattr(parsed_args, "overrides", None) or [] if "=" in word]
        return [word for word in words(text, given, prefix) if word.startswith(prefix)]

    action.completer = completer  # type: ignore[attr-defined]  # argcomplete's own interface


def words(text: str, given: Sequence[str], prefix: str) -> list[str]:
    """The words that may follow: keys of the command, or names where a key has been typed."""
    key, separator, value = prefix.partition("=")
    if not separator:
        chosen = dict(word.split("=", 1) for word in given)
        known = [*keys(text), *_settings_keys(text, chosen)]
        return [f"{key}=" for key in known if key not in chosen]
    head = value[: max(value.rfind("["), value.rfind(",")) + 1] if key.endswith("s") else ""
    return [f"{key}={head}{name}" for name in _names(key)]


def keys(text: str) -> list[str]:
    """The keys that a help text names, in its order."""
    return list(dict.fromkeys(_KEY.findall(text)))


def optimizers() -> list[str]:
    """Names of all optimizers, plug-ins included."""
    return _names("optimizer")


def workloads() -> list[str]:
    """Names of all workloads, plug-ins included."""
    return _names("workload")


def _names(key: str) -> list[str]:
    """The names that a key takes; empty where it takes anything."""
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
    """``optimizer.KEY`` and ``workload.KEY`` of the entries that have been chosen."""
    for choice, (room, registry) in _CHOICES.items():
        entry = _registry(room, registry).get(chosen.get(choice, ""))
        if entry is not None and choice in keys(text):
            source = _source(f"timetrial.{room}")
            yield from (f"{choice}.{field}" for field in _settings_of(entry, source))


def _registry(room: str, registry: str) -> dict[str, ast.expr]:
    """The dict literal of a registry: source of each entry by name."""
    for node in _source(f"timetrial.{room}").body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        named = any(isinstance(target, ast.Name) and target.id == registry for target in targets)
        if named and isinstance(value, ast.Dict):
            pairs = zip(value.keys, value.values, strict=True)
            return {str(k.value): v for k, v in pairs if isinstance(k, ast.Constant)}
    return {}


def _settings_of(entry: ast.expr, module: ast.Module) -> list[str]:
    """Fields of the settings class that an entry names: its second argument, or ``settings=``."""
    if not isinstance(entry, ast.Call):
        return []
    named = [keyword.value for keyword in entry.keywords if keyword.arg == "settings"]
    settings = [*named, *entry.args[1:2]]
    return _fields(ast.unparse(settings[0]), module) if settings else []


def _fields(name: str, module: ast.Module) -> list[str]:
    """Fields of a dataclass, with those of the classes that it inherits from."""
    head, _, rest = name.partition(".")
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                if head == (alias.asname or alias.name):
                    if rest:
                        return _fields(rest, _source(f"{node.module}.{alias.name}"))
                    return _fields(alias.name, _source(str(node.module)))
        if isinstance(node, ast.ClassDef) and node.name == name:
            found = [field for base in node.bases for field in _fields(ast.unparse(base), module)]
            own = [n.target for n in node.body if isinstance(n, ast.AnnAssign)]
            found += [target.id for target in own if isinstance(target, ast.Name)]
            return list(dict.fromkeys(found))
    return []


def _source(module: str) -> ast.Module:
    """The parsed source of a module of ours, which is not imported."""
    path = _BENCH.parent.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8") if file.exists() else "")
