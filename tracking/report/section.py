"""One topic of a report: its text, tables and plots in the order of reading, and its numbers.

Boundary: data only; ``page`` writes a section as HTML and files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from timetrial.tracking.report.cells import Table
from timetrial.tracking.report.plots import Panel


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: escaped on the page unless it is ``markupsafe.Markup``.
        kind: classes of the page's style sheet: ``headline``, ``answer``, ``note``, ``bad`` or
            none.
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
    """Plots that share a legend.

    Attributes:
        plots: the plots.
        headings: whether each one's title is shown.
        small: True for small panels, without labels of the axes and without a legend.
    """

    plots: Sequence[Plot]
    headings: bool = False
    small: bool = False


@dataclasses.dataclass(frozen=True)
class Columns:
    """Columns of blocks, side by side on a wide page, one below the other on a narrow one."""

    columns: Sequence[Sequence[Text | Table | Plots]]


Block = Text | Bullets | Heading | Table | Plots | Columns


@dataclasses.dataclass(frozen=True)
class Section:
    """One topic of the report.

    Attributes:
        name: unique id on the page, in lower case.
        title: heading; empty for a section without one.
        blocks: content in the order of reading.
        menu: text of the link at the top of the page; empty = no link.
        folded: True shows the heading, and the answer if there is one; the reader unfolds the rest.
        frames: numbers, by the name of their CSV file; an empty one is not written.
        files: further files, by their path beside the page.
    """

    name: str
    title: str
    blocks: Sequence[Block]
    menu: str = ""
    folded: bool = True
    frames: Mapping[str, pd.DataFrame] = dataclasses.field(default_factory=dict)
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    @property
    def shown(self) -> Sequence[Block]:
        """The blocks to show at once: all of them, or those down to the last answer."""
        last = max((i for i, block in enumerate(self.blocks) if _is_answer(block)), default=-1)
        return self.blocks[: last + 1] if self.folded else self.blocks

    @property
    def hidden(self) -> Sequence[Block]:
        """The other blocks, which the reader unfolds."""
        return self.blocks[len(self.shown) :]

    @property
    def tables(self) -> list[Table]:
        """The tables among the blocks."""
        return [block for block in _flat(self.blocks) if isinstance(block, Table)]

    @property
    def plots(self) -> list[Plot]:
        """The plots among the blocks."""
        blocks = (block for block in _flat(self.blocks) if isinstance(block, Plots))
        return [plot for block in blocks for plot in block.plots]


def _is_answer(block: Block) -> bool:
    return isinstance(block, Text) and block.kind == "answer"


def _flat(blocks: Iterable[Block]) -> Iterator[Block]:
    """The blocks, those in columns one by one."""
    for block in blocks:
        if isinstance(block, Columns):
            yield from (inner for column in block.columns for inner in column)
        else:
            yield block


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
