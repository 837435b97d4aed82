"""How optimizers and metrics look and are called, the same in every plot and table.

Boundary: colours, line styles and words only.

Colours are those of Okabe and Ito, Color Universal Design, 2008, https://jfly.uni-koeln.de/color/
(distinct with every kind of colour blindness), adjusted in lightness for either background.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from timetrial.framework.types import Direction

_PALETTE: Final = (  # on light, on dark
    ("#0072b2", "#4da3e0"),
    ("#3fa7dd", "#9ad4fb"),
    ("#009e73", "#2cc79b"),
    ("#e08f00", "#f2b233"),
    ("#6b6f76", "#a9b0ba"),
    ("#d1500a", "#ff7d38"),
    ("#b8578f", "#e796c4"),
    ("#a39200", "#e8dc4f"),
)
_PLACES: Final = {
    "adam": 0,
    "nadam": 1,
    "nadamw": 2,
    "heavy_ball": 3,
    "nesterov": 4,
    "velo": 5,
    "velo_short": 6,
}
_LEARNED: Final = ("velo", "celo", "lopt", "learned")

_LABELS: Final = {
    "loss": "loss",
    "ce_loss": "CE loss",
    "ssim": "SSIM",
    "mean_average_precision": "mAP",
}


@dataclasses.dataclass(frozen=True)
class Look:
    """How one optimizer is drawn.

    Attributes:
        light, dark: colour on a light and on a dark background.
        width: line width in points; learned optimizers are thick.
        dashes: on and off lengths in points, empty = solid.
    """

    light: str
    dark: str
    width: float
    dashes: tuple[float, ...]


def is_learned(optimizer: str) -> bool:
    """True for the families of learned optimizers, by the beginning of their label."""
    return optimizer.lower().startswith(_LEARNED)


def looks(optimizers: Iterable[str]) -> dict[str, Look]:
    """A look for each optimizer; the known ones have the same in every report.

    The others take the colours that are left in order of their names; when all are taken, colours
    repeat with other dashes. Of a family of learned optimizers the first is solid, the others
    are dashed.
    """
    names = sorted(set(optimizers))
    places: dict[str, int] = {}
    for name in names:
        place = _PLACES.get(family(name), -1)
        if place >= 0 and place not in places.values():
            places[name] = place
    free = [place for place in range(len(_PALETTE)) if place not in places.values()]
    found: dict[str, Look] = {}
    for name in names:
        lap = 0
        if name not in places:
            extra = sum(other not in places for other in found)
            lap, at = (0, free[extra]) if extra < len(free) else divmod(extra, len(_PALETTE))
            lap += extra >= len(free)
        else:
            at = places[name]
        light, dark = _PALETTE[at]
        found[name] = Look(light, dark, 2.6 if is_learned(name) else 1.5, _dashes(name, lap, found))
    return found


def metric_name(metric: str) -> str:
    """A metric's name as a reader knows it."""
    return _LABELS.get(metric, metric.replace("_", " "))


def better(direction: Direction | None) -> str:
    """Which way is better, in words for an axis; empty when it is not known."""
    if direction is None:
        return ""
    return "lower is better" if direction is Direction.MINIMIZE else "higher is better"


def family(optimizer: str) -> str:
    """An optimizer's name without its variant: ``velo`` for ``velo[embedded]``."""
    return optimizer.lower().split("[")[0]


def _dashes(name: str, lap: int, before: Iterable[str]) -> tuple[float, ...]:
    if lap:
        return (1.0, 1.0 + lap)
    if is_learned(name):
        stem = next(stem for stem in _LEARNED if name.lower().startswith(stem))
        if any(other.lower().startswith(stem) for other in before):
            return (3.0, 1.2)
    return ()
