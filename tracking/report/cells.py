"""Cells and tables of a report, and the format of numbers in them.

Boundary: text only; ``page`` and ``exports`` set it as HTML, LaTeX and Markdown.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Final

import pandas as pd

FEW: Final = "†"
"""Marks results that rest on fewer trials than ``uncertainty.ENOUGH_TRIALS``."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: main text.
        sub: smaller text below it.
        kind: classes of the page's style sheet: ``best``, ``never``, ``none``, ``bad``, ``label``,
            ``target``, ``text``, ``code`` or none.
        link: target of a link on the text.
        span: low, value and high in [0, 1], to draw as a mark on a line; None = no drawing.
    """

    text: str
    sub: str = ""
    kind: str = ""
    link: str = ""
    span: tuple[float, float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: name of its files, title, header and rows of cells; column 0 holds row names.

    ``spans`` are headings over several columns, as (heading, number of columns), left to right
    from column 1 on. ``kind``: classes of the page's style sheet, of ``fit`` (width of the
    content), ``left`` (left-aligned), ``long`` (own scroll bar) and ``dense`` (one line per row).
    """

    name: str
    title: str
    header: Sequence[Cell]
    body: Sequence[Sequence[Cell]]
    spans: Sequence[tuple[str, int]] = ()
    kind: str = "fit"


NOTHING: Final = Cell("–", kind="none")
"""The cell of a value that does not exist."""


def header(*names: str) -> list[Cell]:
    """The header of a table from the names of its columns."""
    return [Cell(name) for name in names]


def name_cell(name: str) -> Cell:
    """The first cell of a row."""
    return Cell(name, kind="label")


def below(*parts: str) -> str:
    """Several small texts in one line; empty ones are left out."""
    return " · ".join(part for part in parts if part)


def score_cell(
    value: float, *, best: bool = False, interval: str = "", more: str = "", few: bool = False
) -> Cell:
    """A score or a share with two decimals."""
    if math.isnan(value):
        return Cell("–", more, kind="none")
    mark = FEW if few else ""
    return Cell(f"{value:.2f}{mark}", below(interval, more), kind="best" if best else "")


def interval_text(low: float, high: float, digits: int | None = None) -> str:
    """An interval in words, ``0.61 to 0.74``; empty when it is not known.

    An end at inf is ``never``. Without ``digits``, its decimals, an end has three significant
    digits.
    """
    if math.isnan(low) or math.isnan(high):
        return ""
    ends = [plain(end, 3) if digits is None else fixed(end, digits) for end in (low, high)]
    low_text, high_text = ("never" if end == "∞" else end for end in ends)
    return low_text if low_text == high_text == "never" else f"{low_text} to {high_text}"


def amount(value: float, unit: str, significant: int = 3) -> str:
    """A time in its unit: steps as a whole number; ``never`` for inf."""
    if math.isinf(value):
        return "never"
    whole = unit == "steps" and not math.isnan(value)
    return f"{value:,.0f}" if whole else plain(value, significant)


def amounts(low: float, high: float, unit: str) -> str:
    """An interval of times in words, ``40 to never``; empty when it is not known."""
    if math.isnan(low) or math.isnan(high):
        return ""
    ends = [amount(end, unit) for end in (low, high)]
    return ends[0] if ends == ["never", "never"] else " to ".join(ends)


def coverage_text(coverage: Iterable[float]) -> str:
    """True coverage of intervals, ``coverage 74 to 84 %``; NaN counts as not known."""
    shares = per_cents(coverage)
    return f"coverage {shares}" if shares else "coverage not known"


def per_cents(shares: Iterable[float]) -> str:
    """Range of some shares in whole per cent, ``74 to 84 %``; empty if all are NaN."""
    known = sorted({round(100 * share) for share in shares if not math.isnan(share)})
    ends = dict.fromkeys(map(str, (known[0], known[-1]))) if known else {}
    return f"{' to '.join(ends)}\N{NO-BREAK SPACE}%" if known else ""


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign, none for zero; negative ones with a true minus sign."""
    text = f"{abs(value):.{digits}f}"
    if not float(text):
        return text
    return f"{'+' if value > 0 else '−'}{text}"


def decimals(values: pd.Series[float], significant: int) -> int:
    """Number of decimals that gives a typical value some significant digits."""
    typical = values.abs().replace([0.0, math.inf], math.nan).median()
    if math.isnan(typical):
        return significant
    return min(max(significant - 1 - math.floor(math.log10(typical)), 0), 6)


def fixed(value: float, digits: int) -> str:
    """A number with some decimals, in powers of ten from a million on."""
    if not math.isfinite(value):
        return plain(value, 3)
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.3g}"


def plain(value: float, significant: int) -> str:
    """A number with some significant digits, never in powers of ten below a million."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞"
    if value == 0:
        return "0"
    digits = min(max(significant - 1 - math.floor(math.log10(abs(value))), 0), 6)
    return f"{value:,.{digits}f}" if abs(value) < 1e6 else f"{value:.{significant}g}"


def count(number: int, noun: str) -> str:
    """``1 run``, ``3 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def joined_names(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
