"""Registries: entries by name, built in, from plug-ins or files, or as ``package.module:entry``.

Boundary: imports an entry only at the lookup of its name; reads the entry points of installed
packages only for names that are not built in. ``plugins`` makes entries of what it finds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import metadata
from typing import Any, TypeVar

from timetrial.framework.entries import Entry
from timetrial.framework.errors import UserError
from timetrial.framework.listed import BuiltIn, Listed, listed_entry
from timetrial.framework.plugins import entry_of, identified
from timetrial.framework.source import FILE, find, is_target, reason

E = TypeVar("E", bound=Entry[Any])


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


def declared_points(group: str) -> Iterator[tuple[metadata.EntryPoint, str]]:
    """The entry points of a group, each with its distribution and version; imports nothing.

    Unlike with ``importlib.metadata.entry_points``, damaged metadata hide one package only.
    """
    for distribution in metadata.distributions():
        try:
            points = distribution.entry_points.select(group=group)
            origin = f"{distribution.name} {distribution.version}" if points else ""
        except Exception:  # damaged metadata of any package
            continue
        yield from ((point, origin) for point in points)


class Registry(MutableMapping[str, E]):
    """Entries by name, as a mapping; iterates over built-in names, then those of plug-ins.

    Names are looked up among the built-in entries, then among the entry points
    ``timetrial.<what>s`` of installed packages, then as ``path/to/file.py:entry`` or
    ``package.module:entry``. ``plugins.entry_of`` says what may be found there.

    Args:
        what: ``optimizer`` or ``workload``.
        kind: class of the entries.
        built_in: entries of this package, or what lists show of those to be imported.
        adapters: likewise, entries that run code of others, named in their settings. They are
            found by name, but are not among all entries.

    Raises:
        KeyError: at lookup, the name is unknown.
        PluginError: at lookup, the plug-in is not usable.
    """

    def __init__(
        self,
        what: str,
        kind: type[E],
        built_in: Mapping[str, E | Listed],
        adapters: Mapping[str, E | Listed] | None = None,
    ) -> None:
        self.what = what
        self.kind = kind
        package = f"timetrial.{what}s"
        self.built_in: BuiltIn[E] = BuiltIn(package, built_in)
        self.adapters: BuiltIn[E] = BuiltIn(package, adapters or {})
        self._loaded: dict[str, E] = {}

    def __getitem__(self, name: str) -> E:
        if name in self.built_in:
            return self.built_in[name]
        if name in self.adapters:
            return self.adapters[name]
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        if name in self.built_in or name in self.adapters or name in self._loaded:
            return True
        return isinstance(name, str) and bool(self._declared(name) or is_target(name))

    def is_installed(self, name: str) -> bool:
        """Whether looking a name up imports nothing but this package and installed plug-ins.

        Names in recorded runs may be a stranger's: ``file.py:entry`` would run code, and so would
        the settings of an adapter.
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
        for point, origin in declared_points(f"timetrial.{self.what}s"):
            key = (point.name, origin.split(" ")[0])  # Python imports the first installation
            found.setdefault(key, Plugin(point.name, point, origin))
        return [found[key] for key in sorted(found)]

    def listed(self, name: str) -> Listed:
        """What lists show of an entry; imports a plug-in, and nothing for other names.

        Raises:
            KeyError, PluginError: as a lookup.
        """
        for entries in (self.built_in, self.adapters):
            if name in entries:
                return entries.listed(name)
        return listed_entry(self[name])

    def origin(self, name: str) -> str:
        """Origin of an entry: ``built in``, a distribution, or the name itself."""
        if name in self.built_in or name in self.adapters:
            return "built in"
        return ", ".join(plugin.origin for plugin in self._declared(name)) or name

    def _declared(self, name: str) -> list[Plugin]:
        return [plugin for plugin in self.plugins() if plugin.name == name]

    def _load(self, name: str) -> E:
        declared = self._declared(name)
        if not declared and not is_target(name):
            raise KeyError(name)
        origin = f" of {declared[0].origin}" if declared else ""
        message = f"{self.what} {name}{origin} cannot be used"
        if len(declared) > 1:
            owners = " and ".join(plugin.origin for plugin in declared)
            raise PluginError(message, f"expected one package that declares it, got {owners}")
        try:
            found, source = (declared[0].point.load(), None) if declared else find(name)
            entry = entry_of(found, self.kind)
            return entry if source is None else identified(entry, source)
        except (Exception, SystemExit) as error:  # plug-ins may raise anything
            file = FILE.fullmatch(name)
            raise PluginError(message, reason(error, file["path"] if file else "")) from error
