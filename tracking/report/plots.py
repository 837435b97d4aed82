"""The report's plots: performance profiles and learning curves, as inline SVG and as PNG.

Boundary: draws numbers that others computed; writes no file. The same numbers give the same bytes:
no clock, salted ids, one fixed style. In the SVG, colours are CSS variables, so that a page can
set them for a light and for a dark background.
"""

from __future__ import annotations

import contextlib
import dataclasses
import html
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from framework.types import Direction
from tracking.report.curves import thinned
from tracking.report.standings import Standing
from tracking.report.style import Look

Axes = Any
Draw = Callable[[Axes], None]

_INK: Final = "#24272c"
_MUTED: Final = "#5d636c"
_GRID: Final = "#e3e5e8"
_VARIABLES: Final = {_INK: "var(--ink)", _MUTED: "var(--muted)", _GRID: "var(--grid)"}
_SIZE: Final = (4.6, 2.9)  # inches of one panel

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
class Panel:
    """One plot: its title, how to draw it, and the optimizers in it."""

    title: str
    draw: Draw


@dataclasses.dataclass(frozen=True)
class Curves:
    """What one panel of learning curves shows.

    Attributes:
        data: as returned by ``curves.learning_curves``.
        ends: early ends of runs as ``(optimizer, step, train_seconds, value)``.
        x: ``train_seconds`` or ``step``.
        label: name of the metric for the axis.
        direction: whether the metric is minimised or maximised.
        target: target line, NaN = none.
    """

    data: pd.DataFrame
    ends: Sequence[tuple[str, int, float, float]]
    x: str
    label: str
    direction: Direction
    target: float


def profile_panel(standing: Standing, looks: Mapping[str, Look]) -> Draw:
    """Performance profiles: share of workloads over the factor to the fastest, up to r_max."""

    def draw(axes: Axes) -> None:
        names = sorted(standing.ratios.index, key=lambda name: (looks[name].width, name))
        shift = 0.006
        for place, name in enumerate(names):
            ratios = np.sort(standing.ratios.loc[name].to_numpy())
            inside = ratios[ratios <= standing.r_max]
            x = np.concatenate([[1.0], inside, [standing.r_max]])
            heights = np.arange(len(inside) + 1) / max(len(ratios), 1)
            y = np.append(heights, heights[-1]) + shift * (place - (len(names) - 1) / 2)
            _line(axes, x, y, name, looks[name], drawstyle="steps-post")
        axes.set_xlim(1, standing.r_max)
        axes.set_ylim(-0.04, 1.04)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "¼", "½", "¾", "1"])
        axes.set_xlabel(f"τ: at most τ times the {standing.unit} of the fastest")
        axes.set_ylabel("share of workloads")
        axes.grid(True, axis="y")

    return draw


def curve_panel(curves: Curves, looks: Mapping[str, Look]) -> Draw:
    """Learning curves: mean over seeds as a line, their range as a band, × for an early end."""

    def draw(axes: Axes) -> None:
        groups = {str(name): rows for name, rows in curves.data.groupby("optimizer", sort=True)}
        for name in sorted(groups, key=lambda name: (looks[name].width, name)):
            rows, look = thinned(groups[name]), looks[name]
            x = rows[curves.x].to_numpy()
            axes.fill_between(
                x, rows["low"], rows["high"], color=look.light, alpha=0.16, lw=0, gid=_gid(name)
            )
            _line(axes, x, rows["mean"], name, look)
        for name, step, seconds, value in curves.ends:
            at = step if curves.x == "step" else seconds
            color = looks[name].light
            axes.plot([at], [value], "x", color=color, ms=6, mew=1.5, gid=_gid(name), zorder=4)
        low, high = limits(curves.data, curves.direction, curves.target)
        axes.set_ylim(low, high)
        axes.set_xlim(left=0)
        if math.isfinite(curves.target):
            axes.axhline(curves.target, color=_INK, lw=0.9, dashes=(5, 3), zorder=1.5)
            axes.annotate(
                f"target {curves.target:.4g}", (0.01, curves.target),
                xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
                ha="left", va="bottom", color=_INK, fontsize=8.5, zorder=5,
            )  # fmt: skip
        axes.set_xlabel("charged seconds" if curves.x == "train_seconds" else "steps")
        axes.set_ylabel(curves.label)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.grid(True, axis="y")

    return draw


def limits(data: pd.DataFrame, direction: Direction, target: float) -> tuple[float, float]:
    """Range of the y axis: from the best value to the worst that still says something.

    Early values, and whatever is worse than the untrained model, would squeeze the race into a
    line: the worse end is the worst mean after a fifth of an optimizer's steps, but no worse than
    the best optimizer's first value.
    """
    firsts: list[float] = []
    late: list[float] = []
    best: list[float] = []
    for _, rows in data.groupby("optimizer"):
        means = rows["mean"].to_numpy()
        after = rows["step"].to_numpy() >= 0.2 * rows["step"].max()
        firsts.append(means[0])
        late.extend(means[after])
        best.extend(means)
    if not best:
        return 0.0, 1.0
    values = [*best, *([target] if math.isfinite(target) else [])]
    if direction is Direction.MINIMIZE:
        low, high = min(values), max(min(max(late), max(firsts)), min(values))
    else:
        low, high = min(max(min(late), min(firsts)), max(values)), max(values)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def inline_svg(draw: Draw, looks: Mapping[str, Look], *, name: str, title: str) -> str:
    """One panel as an ``<svg>`` element to put into a page.

    Args:
        draw: draws the panel.
        looks: look of each optimizer; the page defines ``--c-<place>`` for each, in this order.
        name: prefix that keeps the element's ids apart from those of other plots of the page.
        title: text alternative.
    """
    with _style():
        figure = Figure(figsize=_SIZE, layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue(), looks, name, title)


def png(panels: Sequence[Panel], looks: Mapping[str, Look], *, columns: int, title: str) -> bytes:
    """Several panels with title and legend as one PNG on white."""
    rows = math.ceil(len(panels) / columns)
    with _style(), matplotlib.rc_context({"savefig.transparent": False}):
        size = (_SIZE[0] * columns, _SIZE[1] * rows + 0.75)
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            panel.draw(axes)
            axes.set_title(panel.title)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        handles = [
            matplotlib.lines.Line2D([], [], color=look.light, lw=look.width, ls=_stroke(look))
            for look in looks.values()
        ]
        figure.legend(
            handles,
            list(looks),
            loc="outside lower left",
            ncols=2 * columns,
            frameon=False,
            handlelength=2.4,
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """The report's style and nothing of what others have set in this process."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def _line(axes: Axes, x: Any, y: Any, name: str, look: Look, **style: Any) -> None:
    axes.plot(
        x, y, color=look.light, lw=look.width, ls=_stroke(look), gid=_gid(name), zorder=3, **style
    )


def _stroke(look: Look) -> Any:
    return (0, look.dashes) if look.dashes else "-"


def slug(name: str) -> str:
    """An optimizer's label as it stands in ids and attributes of the page."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _gid(name: str) -> str:
    return f"series:{slug(name)}"


def _for_page(svg: str, looks: Mapping[str, Look], name: str, title: str) -> str:
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
    return f'{head} role="img" aria-label="{html.escape(title)}">{rest}'.strip()
