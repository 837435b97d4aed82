"""Messages about unknown names: the nearest known name, then all known names.

Boundary: pure functions of texts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_LONGEST = 100  # characters of a name that is shown and compared
CUTOFF = 0.6
"""Minimum similarity of a suggested name, in [0, 1]."""


def unknown(what: str, name: str, known: Iterable[str], hidden: Iterable[str] = ()) -> str:
    """Message for an unknown name: the nearest known name, then all known names.

    Args:
        what: kind of the name, such as ``optimizer``.
        name: the unknown name.
        known: names to list.
        hidden: further names to suggest but not list.
    """
    names = sorted(map(str, known))
    near = nearest(name, [*names, *hidden])
    hint = f"; did you mean {near!r}?" if near else "."
    shown = str(name) if len(str(name)) <= _LONGEST else f"{str(name)[:_LONGEST]}..."
    return f"unknown {what} {shown!r}{hint} Known: {', '.join(names)}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar known name; None when no name is similar enough.

    Only the last parts of dotted names are compared, as typed (``steps``) or abbreviated:
    ``lr`` is near ``learning_rate``, and ``mom`` is near ``momentum``.
    """
    if len(name) > _LONGEST:
        return None
    typed = _last(name)
    rated = [(_likeness(typed, _last(k)), _ratio(name, k), k) for k in known]
    near = [rating for rating in rated if rating[0] >= CUTOFF]
    return max(near, key=lambda rating: rating[:2])[2] if near else None


def _last(name: str) -> str:
    return re.split(r"[./]", name)[-1].lower().replace("-", "_")


def _likeness(typed: str, known: str) -> float:
    """Similarity of two names, in [0, 1]."""
    short, long = sorted((typed, known), key=len)
    parts = known.split("_")
    if typed == known:
        return 1.0
    if len(parts) > 1 and typed == "".join(part[:1] for part in parts):
        return 0.95
    if len(short) >= 3 and long.startswith(short):
        return 0.9
    if len(typed) >= 3 and typed in parts:
        return 0.85
    if len(short) >= 2 and len(long) <= 3 * len(short) and _abbreviates(short, long):
        return 0.8
    return _ratio(typed, known)


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _abbreviates(short: str, long: str) -> bool:
    """True when ``short`` is a subsequence of ``long`` with the same first letter."""
    letters = iter(long)
    return short[:1] == long[:1] and all(letter in letters for letter in short)
