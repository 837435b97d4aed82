"""What lists show of an entry, and built-in entries that are imported when they are looked up.

Boundary: texts and names of modules; ``registry`` looks up names. Importing an optimizer or a
workload loads JAX, which takes longer than all the rest of ``timetrial list``.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

from timetrial.framework.entries import Entry, available

E = TypeVar("E", bound=Entry[Any])


@dataclasses.dataclass(frozen=True)
class Listed:
    """What lists show of an entry without importing it.

    Attributes:
        place: module and name of the entry, ``module:NAME``, below the package of its registry; ""
            for an entry that is there already.
        line: description in one line; that of the entry.
        unavailable: as ``OptimizerEntry.unavailable``.
        roles: roles of a workload's tensors, and how many have them; "" if unknown.
    """

    place: str
    line: str
    unavailable: Callable[[], str] = available
    roles: str = ""


class BuiltIn(MutableMapping[str, E]):
    """The entries of this package by name; each is imported at its first lookup.

    Args:
        package: package of the places.
        declared: entries, or what is known of them before they are imported.
    """

    def __init__(self, package: str, declared: Mapping[str, E | Listed]) -> None:
        self._package = package
        self._declared = dict(declared)
        self._first = dict(declared)
        self._imported: dict[str, E] = {}

    def __getitem__(self, name: str) -> E:
        found = self._declared[name]
        if not isinstance(found, Listed):
            return found
        if name not in self._imported:
            module, _, attribute = found.place.partition(":")
            entry: E = getattr(importlib.import_module(f"{self._package}.{module}"), attribute)
            self._imported[name] = entry
        return self._imported[name]

    def __setitem__(self, name: str, entry: E) -> None:
        again = name in self._imported and entry is self._imported[name]
        self._declared[name] = self._first[name] if again else entry

    def __delitem__(self, name: str) -> None:
        del self._declared[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __len__(self) -> int:
        return len(self._declared)

    def __contains__(self, name: object) -> bool:
        return name in self._declared

    def listed(self, name: str) -> Listed:
        """What lists show of an entry; imports nothing."""
        found = self._declared[name]
        return found if isinstance(found, Listed) else listed_entry(found)


def listed_entry(entry: Entry[Any]) -> Listed:
    """What lists show of an entry that is there."""
    return Listed("", entry.line, getattr(entry, "unavailable", available))
