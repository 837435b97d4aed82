"""Colours and line styles of optimizers, names of metrics; the same in every plot and table.

Pure: from recorded facts to looks.

Colours start from those of Okabe and Ito, Color Universal Design, 2008,
https://jfly.uni-koeln.de/color/, and three more. A search moved each a little, for the largest
distance with every kind of colour vision among those of enough contrast, on either background.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from timetrial.framework.types import Direction
from timetrial.tracking.report.colors import contrast, distance, mixed_with_white
from timetrial.tracking.report.entrants import Entrant, unrecorded

_PALETTE: Final = (  # on light, on dark
    ("#1f5eab", "#5c94cb"),
    ("#c97f11", "#feb413"),
    ("#0096e9", "#a3c4ff"),
    ("#1b8e6e", "#62bf83"),
    ("#685d76", "#88918d"),
    ("#ba4b1b", "#f38606"),
    ("#aa7fac", "#dcc6c1"),
    ("#68197b", "#b856ff"),
    ("#2a4c2b", "#a6ff8e"),
    ("#2e1300", "#bd7444"),
)
_NEAR: Final = 0.05  # colours at a smaller distance count as the same
_LEAST_CONTRAST: Final = 3.0  # of a line on the page: WCAG 2.1, success criterion 1.4.11
_DARK_CONTRAST: Final = 4.5  # of a line on a dark background
_LIGHT: Final = "#fbfbfa"
_DARK: Final = "#1c1f23"

_LABELS: Final = {
    "loss": "loss",
    "ce_loss": "CE loss",
    "ssim": "SSIM",
    "mean_average_precision": "mAP",
}


@dataclasses.dataclass(frozen=True)
class Look:
    """Colour and line style of one optimizer.

    Attributes:
        light, dark: colour on a light and on a dark background.
        width: line width in points; learned optimizers are thick.
        dashes: on and off lengths in points, empty = solid.
    """

    light: str
    dark: str
    width: float
    dashes: tuple[float, ...]


def looks(names: Iterable[str], entrants: Mapping[str, Entrant]) -> dict[str, Look]:
    """A look for each optimizer, in order of the names.

    The colour is the recorded one, unless it is faint on a light page or too near to another's for
    some kind of colour vision. The other optimizers take the free colours of the palette in order
    of their names, entrants first; when none is free, colours repeat with other dashes. Lines of
    learned optimizers are thick, those of prompted or fed variants dashed.

    Args:
        names: labels of the optimizers to draw.
        entrants: recorded facts by label; some may be missing.
    """
    names = sorted(set(names))
    known = [entrants.get(name, unrecorded(name)) for name in names]
    colors: dict[str, tuple[str, str]] = {}
    for one in known:
        color = one.color.lower()
        if _is_visible(color) and not _is_taken(pair := (color, _on_dark(color)), colors):
            colors[one.label] = pair
    free = [(pair, 0) for pair in _PALETTE if not _is_taken(pair, colors)]
    again = ((pair, lap) for lap in itertools.count(1) for pair in _PALETTE)
    laps = dict.fromkeys(colors, 0)
    rest = sorted(set(names) - set(colors), key=lambda name: (name not in entrants, name))
    for label, (pair, lap) in zip(rest, itertools.chain(free, again), strict=False):
        colors[label], laps[label] = pair, lap
    return {
        one.label: Look(
            *colors[one.label], 2.6 if one.learned else 1.5, _dashes(one, laps[one.label])
        )
        for one in known
    }


def metric_name(metric: str) -> str:
    """The common name of a metric."""
    return _LABELS.get(metric, metric.replace("_", " "))


def better(direction: Direction | None) -> str:
    """The better direction in words for an axis; empty when unknown."""
    if direction is None:
        return ""
    return "lower is better" if direction is Direction.MINIMIZE else "higher is better"


def _dashes(entrant: Entrant, lap: int) -> tuple[float, ...]:
    if lap:
        return (1.0, 1.0 + lap)
    return (3.0, 1.2) if entrant.learned and entrant.is_variant else ()


def _is_visible(color: str) -> bool:
    """True for ``#rrggbb`` that stands out from a light page."""
    return bool(re.fullmatch("#[0-9a-f]{6}", color)) and contrast(color, _LIGHT) >= _LEAST_CONTRAST


def _is_taken(pair: tuple[str, str], colors: Mapping[str, tuple[str, str]]) -> bool:
    """True for a colour too near to another one, on light or on dark."""
    return any(
        distance(one, two) < _NEAR
        for other in colors.values()
        for one, two in zip(pair, other, strict=True)
    )


def _on_dark(color: str) -> str:
    """The colour for a dark background: of the palette, or else mixed with white."""
    for light, dark in _PALETTE:
        if light == color:
            return dark
    mixed = color
    for share in np.arange(0.0, 1.0, 0.05):
        mixed = mixed_with_white(color, float(share))
        if contrast(mixed, _DARK) >= _DARK_CONTRAST:
            break
    return mixed
