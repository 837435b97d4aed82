"""Range checks for settings, written as the ranges are: ``check(self, momentum="[0, 1)")``.

Boundary: raises ValueError; what the user sees is composed by the configuration.
"""

from __future__ import annotations

import math
import re


def check(settings: object, **ranges: str) -> None:
    """Checks numeric attributes against their ranges.

    Args:
        settings: any object with the named attributes; None passes (an option that is not set).
        **ranges: ``"> 0"``, ``">= 0"``, or an interval such as ``"[0, 1)"``.

    Raises:
        ValueError: a value is outside its range or not finite.
    """
    for name, allowed in ranges.items():
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and _inside(value, allowed)):
            finite = "" if math.isfinite(value) else "finite "
            raise ValueError(f"{name}: expected a {finite}value {_words(allowed)}, got {value}")


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
