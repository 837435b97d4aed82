"""Nested mappings of learned weights: names, paths, and how messages show them.

Boundary: pure; names only, no arrays, no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from timetrial.framework.errors import UserError

Path = tuple[str, ...]
"""Keys from the top of the tree down to one tensor. ``rnn/linear`` is a single key."""

Leaf = TypeVar("Leaf")


class WeightsError(UserError, ValueError):
    """A file or a tree of arrays that is no usable set of weights; the message says why."""


def show(path: Sequence[str]) -> str:
    """A path as messages show it; long or unprintable keys are cut and escaped."""
    keys = (k if k.isprintable() and len(k) <= 40 else repr(k[:40])[1:-1] for k in path)
    return "/".join(keys)


def some(names: Sequence[str]) -> str:
    """At most four names as messages show them, and how many there are."""
    shown = ", ".join(names[:4]) + (f", ... ({len(names)} in all)" if len(names) > 4 else "")
    return shown or "none"


def one_line(text: object, limit: int = 200) -> str:
    """The text of others (a server, a library) as messages show it: printable and short."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:limit]


def nest(flat: Mapping[Path, Leaf]) -> dict[str, Any]:
    """The nested dict whose leaves by path are ``flat``."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return tree


def flatten(tree: Mapping[str, Any], paths: Sequence[Path], owner: str) -> dict[Path, Any]:
    """Leaves of a nested mapping by path, in the order of ``paths``.

    Args:
        tree: the mapping.
        paths: all expected paths.
        owner: whose names these are, for messages.

    Raises:
        WeightsError: a name is missing or unexpected, or a map is in the place of a tensor, or
            the reverse.
    """
    flat: dict[Path, Any] = {}
    _walk(tree, (), paths, owner, flat)
    return {path: flat[path] for path in paths}


def _walk(
    node: Any, prefix: Path, paths: Sequence[Path], owner: str, flat: dict[Path, Any]
) -> None:
    depth = len(prefix)
    expected = list(dict.fromkeys(p[depth] for p in paths if p[:depth] == prefix and p != prefix))
    if not expected:
        if isinstance(node, Mapping):
            raise WeightsError(f"{show(prefix)}: expected a tensor, got a map")
        flat[prefix] = node
        return
    where = show(prefix) or "top level"
    if not isinstance(node, Mapping):
        raise WeightsError(
            f"{where}: expected a map with {some(expected)}, got {type(node).__name__}"
        )
    missing = [name for name in expected if name not in node]
    unexpected = [show([str(name)]) for name in node if name not in expected]
    if missing or unexpected:
        raise WeightsError(
            f"{where}: names differ from {owner}'s: missing {some(missing)}, "
            f"unexpected {some(unexpected)}"
        )
    for name in expected:
        _walk(node[name], (*prefix, name), paths, owner, flat)
