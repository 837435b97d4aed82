"""Hyperparameters of an AlgoPerf submission: a point of its search space, or its own constants.

Boundary: reads JSON and the text of a Python file; runs nothing.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

SEARCH_SPACE: Final = "tuning_search_space.json"
REGULARISATION: Final = ("dropout_rate", "label_smoothing")
"""Hyperparameters that are settings of our workloads."""

_CONSTANTS: Final = "HPARAMS"
"""Name under which published self-tuning submissions keep their hyperparameters."""

_PRIMES: Final = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)
_MOST_BYTES: Final = 1 << 20


def search_space_of(file: Path) -> Path | None:
    """The search space beside a submission, or in the folder above; None without."""
    found = [folder / SEARCH_SPACE for folder in (file.parent, file.parent.parent)]
    return next((path for path in found if path.is_file()), None)


def read_point(path: Path, number: int) -> dict[str, Any]:
    """The hyperparameters of one point of a search space.

    A list holds the points themselves. Ranges give a sequence of quasi-random points (Halton,
    1964, unscrambled): AlgoPerf draws them at random, and repeats none.

    Args:
        path: JSON file: a list of objects, or ranges by name (``min``, ``max``, ``scaling``, or
            ``feasible_points``).
        number: of the point, from 0.

    Raises:
        ValueError: the file cannot be read, is no search space, or has no such point.
    """
    try:
        space = json.loads(path.read_bytes()[:_MOST_BYTES].decode())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"search_space: cannot read {path}: {error}") from error
    if isinstance(space, list) and space and all(isinstance(point, dict) for point in space):
        if number >= len(space):
            raise ValueError(
                f"point: expected one of 0 to {len(space) - 1}, the points in {path}, got {number}"
            )
        return dict(space[number])
    if isinstance(space, dict) and all(isinstance(values, dict) for values in space.values()):
        return {
            name: _value(f"search_space: {path}: {name}", values, axis, number)
            for axis, (name, values) in enumerate(space.items())
        }
    raise ValueError(f"search_space: {path}: expected a list of points, or ranges by name")


def _value(where: str, values: Mapping[str, Any], axis: int, number: int) -> Any:
    share = _radical_inverse(number + 1, _PRIMES[axis % len(_PRIMES)])
    choices = values.get("feasible_points")
    if isinstance(choices, Sequence) and choices:
        return choices[int(share * len(choices))]
    low, high = values.get("min"), values.get("max")
    numbers = all(isinstance(end, (int, float)) for end in (low, high))
    if not numbers or (values.get("scaling") == "log" and not low > 0):  # type: ignore[operator]
        raise ValueError(f"{where}: expected min and max, or feasible_points, got {dict(values)}")
    assert isinstance(low, (int, float))
    assert isinstance(high, (int, float))
    if values.get("scaling") == "log":
        return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    return low + share * (high - low)


def _radical_inverse(number: int, base: int) -> float:
    """The digits of a number in a base, mirrored at the point: in [0, 1)."""
    found, scale = 0.0, 1.0
    while number:
        number, digit = divmod(number, base)
        scale /= base
        found += digit * scale
    return found


def constants_of(file: Path) -> dict[str, Any]:
    """The dict literal that a submission keeps its own hyperparameters in; empty without."""
    try:
        module = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return {}
    for node in module.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if [target.id for target in targets if isinstance(target, ast.Name)] == [_CONSTANTS]:
            try:
                found = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            except ValueError:
                return {}
            return dict(found) if isinstance(found, dict) else {}
    return {}
