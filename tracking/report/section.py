"""One topic of a report: its text, tables and plots in the order of reading, and its numbers.

Boundary: data only; ``page`` writes a section as HTML and files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from timetrial.tracking.report.cells import Table
from timetrial.tracking.report.plots import Panel


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: escaped on the page unless it is ``markupsafe.Markup``.
        kind: classes of the page's style sheet: ``answer``, ``note``, ``bad`` or none.
    """

    text: str
    kind: str = ""


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list of points, each as the ``text`` of ``Text``."""

    items: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclasses.dataclass(frozen=True)
class Plot:
    """Panels under one title, in one PNG and one SVG file of this name."""

    name: str
    title: str
    panels: Sequence[Panel]


@dataclasses.dataclass(frozen=True)
class Plots:
    """Plots that share a legend; with ``headings`` each one's title is shown."""

    plots: Sequence[Plot]
    headings: bool = False


Block = Text | Bullets | Heading | Table | Plots


@dataclasses.dataclass(frozen=True)
class Section:
    """One topic of the report.

    Attributes:
        name: unique id on the page, in lower case.
        title: heading; empty for a section without one.
        blocks: content in the order of reading.
        menu: text of the link at the top of the page; empty = no link.
        frames: numbers, by the name of their CSV file; an empty one is not written.
        files: further files, by their path beside the page.
    """

    name: str
    title: str
    blocks: Sequence[Block]
    menu: str = ""
    frames: Mapping[str, pd.DataFrame] = dataclasses.field(default_factory=dict)
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    @property
    def tables(self) -> list[Table]:
        """The tables among the blocks."""
        return [block for block in self.blocks if isinstance(block, Table)]

    @property
    def plots(self) -> list[Plot]:
        """The plots among the blocks."""
        return [plot for block in self.blocks if isinstance(block, Plots) for plot in block.plots]


def captioned(tables: Iterable[Table]) -> list[Block]:
    """Tables, each below its title in small letters; those without rows are left out."""
    return [
        block
        for table in tables
        if table.body
        for block in (Text(table.title, "note caption"), table)
    ]


def headed(tables: Iterable[Table]) -> list[Block]:
    """Tables, each below its title as a heading; those without rows are left out."""
    return [block for table in tables if table.body for block in (Heading(table.title), table)]


def plots_of(name: str, title: str, panels: Iterable[Panel]) -> list[Plot]:
    """One plot of some panels, or none without panels."""
    found = list(panels)
    return [Plot(name, title, found)] if found else []
