"""Draws panels of lines, as PNG and SVG files; ``inline`` puts them into the page.

Boundary: draws given numbers; writes no file. The same numbers give the same bytes: no clock,
salted ids, one fixed style.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from timetrial.tracking.report.style import Look

Axes = Any
Floats = npt.NDArray[np.float64]

SHARE_LIMITS: Final = (-0.04, 1.04)
"""Ends of an axis of shares: lines at 0 and at 1 are drawn in full width."""

SHARE_TICKS: Final = {0.0: "0", 0.25: "¼", 0.5: "½", 0.75: "¾", 1.0: "1"}
"""Ticks of an axis of shares."""

INK: Final = "#24272c"
MUTED: Final = "#5d636c"
GRID: Final = "#e3e5e8"

_HEAD, _LINE = 0.35, 0.21  # inches of a figure's or a panel's title, and of a line of the legend
_DASH: Final = 5.0  # points of a line that shares its place, before the next one takes its turn
_SAME: Final = 1.0  # points; lines that are never further apart share their place
_OVERLAP: Final = 0.8  # least share of the longer line on which they must
_SUPERSCRIPTS: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_STYLE: Final = {
    "svg.hashsalt": "timetrial",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.solid_capstyle": "round",
    "savefig.transparent": True,
}


@dataclasses.dataclass(frozen=True)
class Line:
    """One line: name of its optimizer, points, and ends of the band around it, if any."""

    name: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None


@dataclasses.dataclass(frozen=True)
class Panel:
    """One plot: lines, axes, marks.

    Attributes:
        title: heading of the panel.
        caption: smaller text beside it, such as the target's value; never on the curves.
        x_label, y_label: labels of the axes.
        lines: each in the look of its optimizer.
        x_limits, y_limits: ends of the axes; NaN leaves an end to the plot.
        y_ticks: labels by value, instead of numbers.
        steps: True draws steps instead of slopes.
        apart: distance, in units of y, between lines that would coincide. 0 draws them in one
            place, by turns, as dashes.
        marks: crosses, as ``(name, x, y)``.
        target: height of the dashed target line, NaN = none.
        log_y: True for a logarithmic y axis.
        whole_x: True for ticks at whole numbers only.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_limits: tuple[float, float] = (math.nan, math.nan)
    y_limits: tuple[float, float] = (math.nan, math.nan)
    y_ticks: Mapping[float, str] = dataclasses.field(default_factory=dict)
    steps: bool = False
    apart: float = 0.0
    marks: Sequence[tuple[str, float, float]] = ()
    target: float = math.nan
    log_y: bool = False
    whole_x: bool = False
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Frame:
    """Size of a panel, in inches, and its text.

    Attributes:
        size: width and height, labels included.
        left, right, below, above: margins around the axes. They are fixed: computing them in
            matplotlib takes longer than drawing the plots.
        ticks: largest number of ticks on x and on y.
        labelled: False leaves out the labels of the axes.
        style: further settings of matplotlib.
    """

    size: tuple[float, float]
    left: float
    right: float
    below: float
    above: float
    ticks: tuple[int, int]
    labelled: bool = True
    style: Mapping[str, Any] = dataclasses.field(default_factory=dict)


FULL: Final = Frame((4.6, 2.9), 0.78, 0.25, 0.52, 0.12, (5, 6))
"""A panel with labels."""

SMALL: Final = Frame(
    (3.0, 1.75), 0.5, 0.08, 0.24, 0.06, (4, 4), labelled=False,
    style={"font.size": 8.5, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
           "xtick.major.pad": 2.5, "ytick.major.pad": 2.5},
)  # fmt: skip
"""A panel among many: its labels stand outside."""


def figure_of(panel: Panel, looks: Mapping[str, Look], frame: Frame = FULL) -> tuple[Figure, Axes]:
    """A figure of one panel, and its axes; to call and to save in ``house_style``."""
    figure = Figure(figsize=frame.size)
    axes = _axes(figure, (0.0, 0.0), frame)
    _draw(axes, panel, looks, frame)
    return figure, axes


def files(
    panels: Sequence[Panel], looks: Mapping[str, Look], *, columns: int, title: str
) -> dict[str, bytes]:
    """Several panels with title and legend, as ``png`` on white and as ``svg``."""
    drawn = {line.name for panel in panels for line in panel.lines}
    shown = {name: look for name, look in looks.items() if name in drawn}
    columns = min(columns, len(panels))
    width, height = FULL.size[0] * columns, FULL.size[1] + _HEAD
    legend = _LINE * math.ceil(len(shown) / (2 * columns)) + 0.1
    total = height * math.ceil(len(panels) / columns) + _HEAD + legend
    with house_style(), matplotlib.rc_context({"savefig.transparent": False}):
        figure = Figure(figsize=(width, total))
        figure.text(0.1 / width, 1 - 0.28 / total, title, fontsize=11, fontweight="bold")
        for place, panel in enumerate(panels):
            row, column = divmod(place, columns)
            corner = column * FULL.size[0], total - _HEAD - (row + 1) * height
            axes = _axes(figure, corner, FULL)
            _draw(axes, panel, looks, FULL)
            axes.set_title(panel.title)
            axes.set_title(panel.caption, loc="right", fontsize=8.5, color=MUTED)
        _add_legend(figure, shown, 2 * columns)
        found = {}
        for kind, silent in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=130, metadata=silent)
            found[kind] = buffer.getvalue()
    return found


def _add_legend(figure: Figure, looks: Mapping[str, Look], columns: int) -> None:
    """Adds the legend at the lower left."""
    handles = [
        matplotlib.lines.Line2D([], [], color=look.light, lw=look.width, ls=_stroke(look))
        for look in looks.values()
    ]
    figure.legend(
        handles,
        list(looks),
        loc="lower left",
        bbox_to_anchor=(0.0, 0.0),
        ncols=columns,
        frameon=False,
        handlelength=2.4,
    )


def slug(name: str) -> str:
    """An optimizer's label for ids and attributes of the page."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


@contextlib.contextmanager
def house_style(frame: Frame = FULL) -> Iterator[None]:
    """The report's style alone, without other settings of this process."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, **frame.style})
        yield


def _axes(figure: Figure, corner: tuple[float, float], frame: Frame) -> Axes:
    """Axes of one panel with its lower left corner at these inches."""
    width, height = figure.get_size_inches()
    (left, bottom), size = corner, frame.size
    return figure.add_axes(
        (
            (left + frame.left) / width,
            (bottom + frame.below) / height,
            (size[0] - frame.left - frame.right) / width,
            (size[1] - frame.below - frame.above) / height,
        )
    )


def _draw(axes: Axes, panel: Panel, looks: Mapping[str, Look], frame: Frame) -> None:
    order = sorted(panel.lines, key=lambda line: (looks[line.name].width, line.name))
    turns = {} if panel.apart or panel.steps else _turns(order, panel, frame)
    for place, one in enumerate(order):
        look = looks[one.name]
        gid = f"series:{slug(one.name)}"
        if one.low is not None:
            axes.fill_between(one.x, one.low, one.high, color=look.light, alpha=0.16, lw=0, gid=gid)
        axes.plot(
            one.x,
            one.y + panel.apart * (place - (len(order) - 1) / 2),
            color=look.light,
            lw=look.width,
            ls=_in_turn(look, *turns[place]) if place in turns else _stroke(look),
            gid=gid,
            zorder=3,
            drawstyle="steps-post" if panel.steps else "default",
        )
    for name, x, y in panel.marks:
        color, gid = looks[name].light, f"series:{slug(name)}"
        axes.plot([x], [y], "x", color=color, ms=6, mew=1.5, gid=gid, zorder=4)
    _set_up_axes(axes, panel, frame)


def _turns(lines: Sequence[Line], panel: Panel, frame: Frame) -> dict[int, tuple[int, int]]:
    """The lines that share their place with others: turn of each, and how many they are."""
    heights = _drawn_heights(lines, panel, frame)
    groups: list[list[int]] = []
    for place, line in enumerate(lines):
        here = line.x, heights[place]
        for group in groups:
            if _share_a_place((lines[group[0]].x, heights[group[0]]), here):
                group.append(place)
                break
        else:
            groups.append([place])
    return {
        place: (turn, len(group))
        for group in groups
        if len(group) > 1
        for turn, place in enumerate(group)
    }


def _drawn_heights(lines: Sequence[Line], panel: Panel, frame: Frame) -> list[Floats]:
    """Heights of the lines above the x axis in points, cut off where the panel ends.

    NaN where nothing is drawn: values that are not positive on a logarithmic axis.
    """

    def scaled(values: Floats) -> Floats:
        return np.log10(np.where(values > 0, values, np.nan)) if panel.log_y else values

    heights = [scaled(line.y) for line in lines]
    finite = np.concatenate([*heights, np.zeros(0)])
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return heights
    ends = scaled(np.array(panel.y_limits))
    low, high = np.where(np.isnan(ends), [finite.min(), finite.max()], ends)
    points = 72 * (frame.size[1] - frame.above - frame.below)
    return [np.clip((h - low) / ((high - low) or 1.0), 0.0, 1.0) * points for h in heights]


def _share_a_place(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> bool:
    """True for two lines that run together wherever both are, for most of their length."""
    (x, y), (at, heights) = one, other
    if not len(x) or not len(at):
        return False
    start, end = max(x[0], at[0]), min(x[-1], at[-1])
    if not end - start >= _OVERLAP * max(x[-1] - x[0], at[-1] - at[0]) > 0:
        return False
    grid = np.union1d(x, at)
    grid = grid[(grid >= start) & (grid <= end)]
    apart = np.abs(np.interp(grid, x, y) - np.interp(grid, at, heights))
    return bool(np.isfinite(apart).any() and np.nanmax(apart) <= _SAME)


def _in_turn(look: Look, turn: int, number: int) -> Any:
    """Dashes that leave room for the other lines of the same place; lengths are per width."""
    dash = _DASH / look.width
    return (turn * dash, (dash, (number - 1) * dash))


def _set_up_axes(axes: Axes, panel: Panel, frame: Frame) -> None:
    """Scale, limits, target line, labels and ticks."""
    if panel.log_y:
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_formatter(FuncFormatter(_power_of_ten))
        axes.yaxis.set_minor_formatter(NullFormatter())
    _limit(axes.set_xlim, panel.x_limits)
    _limit(axes.set_ylim, panel.y_limits)
    if math.isfinite(panel.target):
        axes.axhline(panel.target, color=INK, lw=0.9, dashes=(5, 3), zorder=1.5)
    if frame.labelled:
        axes.set_xlabel(panel.x_label)
        axes.set_ylabel(panel.y_label)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.xaxis.set_major_locator(MaxNLocator(frame.ticks[0], integer=panel.whole_x))
    if panel.y_ticks:
        axes.set_yticks(list(panel.y_ticks), list(panel.y_ticks.values()))
    elif not panel.log_y:
        axes.yaxis.set_major_locator(MaxNLocator(frame.ticks[1]))
    axes.grid(True, axis="y")


def _limit(set_limits: Any, ends: tuple[float, float]) -> None:
    set_limits(*(None if math.isnan(end) else end for end in ends))


def _power_of_ten(value: float, place: int | None = None) -> str:
    """``10⁻³``, ``3·10⁻³``."""
    mantissa, exponent = f"{value:.0e}".split("e")
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return power if mantissa == "1" else f"{mantissa}·{power}"


def _stroke(look: Look) -> Any:
    return (0, look.dashes) if look.dashes else "-"
