"""Puts a panel into the page: an ``<svg>`` element with its points for the page's script.

Boundary: text out; ``plots`` draws. Colours are CSS variables, one value for a light and one for a
dark background.
"""

from __future__ import annotations

import html
import io
import json
import math
import re
from collections.abc import Mapping
from typing import Final

import numpy as np

from timetrial.tracking.report.cells import plain
from timetrial.tracking.report.plots import (
    FULL,
    GRID,
    INK,
    MUTED,
    Axes,
    Floats,
    Frame,
    Panel,
    figure_of,
    house_style,
    slug,
)
from timetrial.tracking.report.style import Look

_VARIABLES: Final = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"}


def inline_svg(
    panel: Panel, looks: Mapping[str, Look], *, name: str, title: str, frame: Frame = FULL
) -> str:
    """One panel as an ``<svg>`` element to put into a page.

    Args:
        panel: the plot.
        looks: look of each optimizer; the page defines ``--c-<place>`` for each, in this order.
        name: prefix of the element's ids, unique on the page.
        title: begin of the text alternative, which goes on with axes and last values.
        frame: size of the panel.

    Returns:
        The element; its ``data-points`` is JSON for the page's script: position and span of the
        axes, and the points of every line.
    """
    with house_style(frame):
        figure, axes = figure_of(panel, looks, frame)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        points = _points(axes, panel, frame)
    return _for_page(buffer.getvalue(), looks, name, in_words(panel, title), points)


def in_words(panel: Panel, title: str) -> str:
    """The text alternative of a panel: its title, its axes and the last value of each line."""
    words = f"{title}. {panel.y_label} against {panel.x_label}".strip()
    ends = {line.name: line.y[np.isfinite(line.y)][-1:] for line in panel.lines}
    last = [f"{name} {plain(float(end[0]), 3)}" for name, end in ends.items() if len(end)]
    return f"{words}. Last values: {', '.join(last)}." if last else f"{words}. No lines."


def _points(axes: Axes, panel: Panel, frame: Frame) -> str:
    """Positions of axes and points as JSON, for the page's script."""
    width, height = (72 * inches for inches in frame.size)
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
