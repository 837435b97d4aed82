"""Registries: entries by name, built in, from plug-ins, or as ``package.module:entry``.

Boundary: imports a plug-in only at the lookup of its name; reads the entry points of installed
packages only for names that are not built in.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import metadata
from typing import Any, TypeVar

from timetrial.framework.entries import Entry
from timetrial.framework.errors import UserError

E = TypeVar("E", bound=Entry[Any])

_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class PluginError(UserError):
    """A plug-in is not usable; ``reason`` is the cause, in one line."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(f"{message}: {reason}")
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Plugin:
    """An entry point of an installed package.

    Attributes:
        name: declared name.
        point: location of its entry.
        origin: distribution and version, as in ``timetrial-lion 0.1``.
    """

    name: str
    point: metadata.EntryPoint
    origin: str


class Registry(MutableMapping[str, E]):
    """Entries by name, as a mapping; iterates over built-in names, then those of plug-ins.

    Names are looked up among the built-in entries, then among the entry points
    ``timetrial.<what>s`` of installed packages, then as ``package.module:entry``. A plug-in is an
    entry, a function without parameters that returns one, or a factory. A factory is a function or
    class with its first parameter annotated as the dataclass of its settings.

    Args:
        what: ``optimizer`` or ``workload``.
        kind: class of the entries.
        built_in: entries of this package.

    Raises:
        KeyError: at lookup, the name is unknown.
        PluginError: at lookup, the plug-in is not usable.
    """

    def __init__(self, what: str, kind: type[E], built_in: Mapping[str, E]) -> None:
        self.what = what
        self.kind = kind
        self.built_in = dict(built_in)
        self._loaded: dict[str, E] = {}

    def __getitem__(self, name: str) -> E:
        if name in self.built_in:
            return self.built_in[name]
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        if name in self.built_in or name in self._loaded:
            return True
        return isinstance(name, str) and bool(self._declared(name) or _TARGET.fullmatch(name))

    def is_installed(self, name: str) -> bool:
        """Whether looking a name up imports nothing but this package and installed plug-ins.

        Names in recorded runs may be a stranger's: ``package.module:entry`` would run code.
        """
        return name in self.built_in or name in self._loaded or bool(self._declared(name))

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*self.built_in, *(plugin.name for plugin in self.plugins())])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __setitem__(self, name: str, entry: E) -> None:
        self.built_in[name] = entry

    def __delitem__(self, name: str) -> None:
        del self.built_in[name]

    def plugins(self) -> list[Plugin]:
        """Plug-ins of installed packages, by name; imports nothing."""
        found: dict[tuple[str, str], Plugin] = {}
        for distribution in metadata.distributions():
            try:
                points = distribution.entry_points.select(group=f"timetrial.{self.what}s")
                origin = f"{distribution.name} {distribution.version}" if points else ""
            except Exception:  # damaged metadata of any package
                continue
            for point in points:  # Python imports the first of two installations of a package
                key = (point.name, origin.split(" ")[0])
                found.setdefault(key, Plugin(point.name, point, origin))
        return [found[key] for key in sorted(found)]

    def origin(self, name: str) -> str:
        """Origin of an entry: ``built in``, a distribution, or the name itself."""
        if name in self.built_in:
            return "built in"
        return ", ".join(plugin.origin for plugin in self._declared(name)) or name

    def _declared(self, name: str) -> list[Plugin]:
        return [plugin for plugin in self.plugins() if plugin.name == name]

    def _load(self, name: str) -> E:
        declared = self._declared(name)
        if not declared and not _TARGET.fullmatch(name):
            raise KeyError(name)
        origin = f" of {declared[0].origin}" if declared else ""
        message = f"{self.what} {name}{origin} cannot be used"
        if len(declared) > 1:
            owners = " and ".join(plugin.origin for plugin in declared)
            raise PluginError(message, f"expected one package that declares it, got {owners}")
        try:
            point = declared[0].point if declared else _point_here(name)
            return entry_of(point.load(), self.kind)
        except (Exception, SystemExit) as error:  # plug-ins may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise PluginError(message, reason) from error


def _point_here(target: str) -> metadata.EntryPoint:
    """Entry point of ``package.module:entry``; also finds modules of this directory."""
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    return metadata.EntryPoint(target, target, "")


def entry_of(found: Any, kind: type[E]) -> E:
    """The entry of a plug-in; see ``Registry``.

    Raises:
        TypeError: the object has none of the allowed forms.
    """
    if isinstance(found, kind):
        return found
    if callable(found) and not isinstance(found, Entry):
        parameters = list(inspect.signature(found, eval_str=True).parameters.values())
        hint = parameters[0].annotation if parameters else None
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return kind(_summary(found), hint, found)
        if all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
               for p in parameters):  # fmt: skip
            made = found()
            if isinstance(made, kind):
                return made
            raise TypeError(f"expected it to return {_a(kind)}, got {type(made).__name__}")
    got = getattr(found, "__qualname__", type(found).__name__)
    raise TypeError(
        f"expected {_a(kind)}, a function without parameters that returns one, or a factory "
        f"whose first parameter is annotated with its settings' dataclass; got {got}"
    )


def _a(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


def _summary(found: Any) -> str:
    """First line of the docstring, else the name."""
    return (inspect.getdoc(found) or found.__qualname__).split("\n")[0]
