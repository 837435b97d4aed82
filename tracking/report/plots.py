"""Draws panels of lines: as inline SVG for the page, as PNG and SVG files.

Boundary: draws given numbers; writes no file. The same numbers give the same bytes: no clock,
salted ids, one fixed style. Colours of the page's SVG are CSS variables, one value for a light and
one for a dark background.
"""

from __future__ import annotations

import contextlib
import dataclasses
import html
import io
import json
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

_INK: Final = "#24272c"
_MUTED: Final = "#5d636c"
_GRID: Final = "#e3e5e8"
_VARIABLES: Final = {_INK: "var(--ink)", _MUTED: "var(--muted)", _GRID: "var(--grid)"}
_SIZE: Final = (4.6, 2.9)  # inches of one panel, its labels included
_LEFT, _RIGHT, _BELOW, _ABOVE = 0.78, 0.25, 0.52, 0.12  # inches around its axes
_HEAD, _LINE = 0.35, 0.21  # inches of a figure's or a panel's title, and of a line of the legend
# Fixed margins: computing them in matplotlib takes longer than drawing the plots.

_STYLE: Final = {
    "svg.hashsalt": "timetrial",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "grid.color": _GRID,
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
        x_label, y_label: labels of the axes.
        lines: each in the look of its optimizer.
        x_limits, y_limits: ends of the axes; NaN leaves an end to the plot.
        y_ticks: labels by value, instead of numbers.
        steps: True draws steps instead of slopes.
        apart: distance, in units of y, between lines that would coincide.
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


def inline_svg(panel: Panel, looks: Mapping[str, Look], *, name: str, title: str) -> str:
    """One panel as an ``<svg>`` element to put into a page.

    Args:
        panel: the plot.
        looks: look of each optimizer; the page defines ``--c-<place>`` for each, in this order.
        name: prefix of the element's ids, unique on the page.
        title: text alternative.

    Returns:
        The element; its ``data-points`` is JSON for the page's script: position and span of the
        axes, and the points of every line.
    """
    with _style():
        figure = Figure(figsize=_SIZE)
        axes = _axes(figure, 0.0, 0.0)
        _draw(axes, panel, looks)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        points = _points(axes, panel)
    return _for_page(buffer.getvalue(), looks, name, title, points)


def files(
    panels: Sequence[Panel], looks: Mapping[str, Look], *, columns: int, title: str
) -> dict[str, bytes]:
    """Several panels with title and legend, as ``png`` on white and as ``svg``."""
    drawn = {line.name for panel in panels for line in panel.lines}
    shown = {name: look for name, look in looks.items() if name in drawn}
    columns = min(columns, len(panels))
    width, height = _SIZE[0] * columns, _SIZE[1] + _HEAD
    legend = _LINE * math.ceil(len(shown) / (2 * columns)) + 0.1
    total = height * math.ceil(len(panels) / columns) + _HEAD + legend
    with _style(), matplotlib.rc_context({"savefig.transparent": False}):
        figure = Figure(figsize=(width, total))
        figure.text(0.1 / width, 1 - 0.28 / total, title, fontsize=11, fontweight="bold")
        for place, panel in enumerate(panels):
            row, column = divmod(place, columns)
            axes = _axes(figure, column * _SIZE[0], total - _HEAD - (row + 1) * height)
            _draw(axes, panel, looks)
            axes.set_title(panel.title)
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
def _style() -> Iterator[None]:
    """The report's style alone, without other settings of this process."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def _axes(figure: Figure, left: float, bottom: float) -> Axes:
    """Axes of one panel with its lower left corner at these inches."""
    width, height = figure.get_size_inches()
    inside = _SIZE[0] - _LEFT - _RIGHT, _SIZE[1] - _BELOW - _ABOVE
    return figure.add_axes(
        (
            (left + _LEFT) / width,
            (bottom + _BELOW) / height,
            inside[0] / width,
            inside[1] / height,
        )
    )


def _draw(axes: Axes, panel: Panel, looks: Mapping[str, Look]) -> None:
    order = sorted(panel.lines, key=lambda line: (looks[line.name].width, line.name))
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
            ls=_stroke(look),
            gid=gid,
            zorder=3,
            drawstyle="steps-post" if panel.steps else "default",
        )
    for name, x, y in panel.marks:
        color, gid = looks[name].light, f"series:{slug(name)}"
        axes.plot([x], [y], "x", color=color, ms=6, mew=1.5, gid=gid, zorder=4)
    _set_up_axes(axes, panel)


def _set_up_axes(axes: Axes, panel: Panel) -> None:
    """Scale, limits, target line, labels and ticks."""
    if panel.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    _limit(axes.set_xlim, panel.x_limits)
    _limit(axes.set_ylim, panel.y_limits)
    _target(axes, panel.target)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=panel.whole_x))
    if panel.y_ticks:
        axes.set_yticks(list(panel.y_ticks), list(panel.y_ticks.values()))
    elif not panel.log_y:
        axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(True, axis="y")


def _limit(set_limits: Any, ends: tuple[float, float]) -> None:
    set_limits(*(None if math.isnan(end) else end for end in ends))


def _target(axes: Axes, target: float) -> None:
    if not math.isfinite(target):
        return
    axes.axhline(target, color=_INK, lw=0.9, dashes=(5, 3), zorder=1.5)
    axes.annotate(
        f"target {target:.4g}", (0.01, target),
        xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
        ha="left", va="bottom", color=_INK, fontsize=8.5, zorder=5,
    )  # fmt: skip


def _stroke(look: Look) -> Any:
    return (0, look.dashes) if look.dashes else "-"


def _points(axes: Axes, panel: Panel) -> str:
    """Positions of axes and points as JSON, for the page's script."""
    width, height = (72 * inches for inches in _SIZE)
    box = axes.get_position()

    def rounded(values: Floats) -> list[float | None]:
        return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values]

    return json.dumps(
        {
            "box": [round(v, 2) for v in (box.x0 * width, box.x1 * width)]
            + [round((1 - v) * height, 2) for v in (box.y0, box.y1)],
            "x": [float(f"{v:.6g}") for v in axes.get_xlim()],
            "y": [float(f"{v:.6g}") for v in axes.get_ylim()],
            "log": panel.log_y,
            "labels": [panel.x_label, panel.y_label],
            "series": [
                {"name": one.name, "slug": slug(one.name), "x": rounded(one.x), "y": rounded(one.y)}
                | (
                    {"low": rounded(one.low), "high": rounded(one.high)}
                    if one.low is not None and one.high is not None
                    else {}
                )
                for one in panel.lines
            ],
        },
        separators=(",", ":"),
    )


def _for_page(svg: str, looks: Mapping[str, Look], name: str, title: str, points: str) -> str:
    """Drops the XML preamble, makes ids unique to the page and colours into CSS variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="series:([^"]*)">', r'<g class="series" data-series="\1">', svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", svg)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    for place, look in enumerate(looks.values()):
        svg = svg.replace(look.light, f"var(--c-{place})")
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    head, rest = svg.split(">", 1)
    attributes = f'role="img" aria-label="{html.escape(title)}" data-points="{html.escape(points)}"'
    return f"{head} {attributes}>{rest}".strip()
