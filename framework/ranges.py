"""Range checks for settings: ``check(self, momentum="[0, 1)")``.

Boundary: raises ValueError; ``framework.convert`` adds the dotted name.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import re
import typing
from collections.abc import Mapping
from typing import Any

_noted = contextvars.ContextVar[dict[str, str] | None]("noted", default=None)


def check(settings: object, **ranges: str) -> None:
    """Checks numeric attributes against their ranges.

    Args:
        settings: any object with the named attributes; None is always allowed (an unset option).
        **ranges: ``"> 0"``, ``">= 0"``, or an interval such as ``"[0, 1)"``.

    Raises:
        ValueError: a value is out of range or not finite.
    """
    if (noted := _noted.get()) is not None:
        noted.update(ranges)
    for name, allowed in ranges.items():
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and _inside(value, allowed)):
            finite = "" if math.isfinite(value) else "finite "
            raise ValueError(f"{name}: expected a {finite}value {_words(allowed)}, got {value}")


def one_of(settings: object, **literals: Any) -> None:
    """Checks texts against their ``Literal`` types: ``one_of(self, shard=Shard)``.

    Raises:
        ValueError: a text is not among those of its type.
    """
    for name, literal in literals.items():
        value, allowed = getattr(settings, name), typing.get_args(literal)
        if value not in allowed:
            raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")


def ranges_of(settings: type) -> Mapping[str, str]:
    """The ranges checked at construction of settings, by name.

    They come from an instance of defaults; without defaults the result is empty.
    """
    token = _noted.set({})
    try:
        with contextlib.suppress(Exception):  # settings of plug-ins may raise anything
            settings()
        return dict(_noted.get() or {})
    finally:
        _noted.reset(token)


def _inside(value: float, allowed: str) -> bool:
    if bound := re.fullmatch(r"(>=?) *(\S+)", allowed):
        low = float(bound[2])
        return value > low or (bound[1] == ">=" and value == low)
    if interval := re.fullmatch(r"([\[(]) *(\S+), *(\S+?) *([\])])", allowed):
        low, high = float(interval[2]), float(interval[3])
        above = value > low or (interval[1] == "[" and value == low)
        return above and (value < high or (interval[4] == "]" and value == high))
    raise AssertionError(f"not a range: {allowed!r}")


def _words(allowed: str) -> str:
    return f"in {allowed}" if allowed[0] in "[(" else allowed
