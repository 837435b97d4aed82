"""Tables as LaTeX (booktabs) and Markdown, numbers as CSV and Parquet.

Pure: text and bytes out; ``page`` writes the files.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Final

import pandas as pd
import pyarrow
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from pyarrow import csv as arrow_csv

from timetrial.tracking.report.cells import Cell, Table

_LONG: Final = 10_000  # rows
_TEX: Final = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "×": r"$\times$", "–": "--", "−": "$-$", "†": r"$^\dagger$", "∞": r"$\infty$",
    "·": r"$\cdot$", "τ": r"$\tau$", "’": "'", "“": "``", "”": "''", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip
_MARKDOWN: Final = {ord(sign): f"\\{sign}" for sign in "\\|*_<>[]`"}


def latex(table: Table, caption: str) -> str:
    """The table in LaTeX; needs the packages booktabs and makecell."""
    columns = len(table.header)
    lines = [r"\begin{table}", r"\centering", r"\small", rf"\caption{{{tex(caption)}}}"]
    lines += [rf"\label{{tab:{table.name.replace('_', '-')}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (columns - 1)}}}", r"\toprule"]
    if table.spans:
        heads = [rf"\multicolumn{{{number}}}{{c}}{{{tex(text)}}}" for text, number in table.spans]
        lines.append(" & ".join(["", *heads]) + r" \\")
        start = 2
        rules = []
        for _, number in table.spans:
            rules.append(rf"\cmidrule(lr){{{start}-{start + number - 1}}}")
            start += number
        lines.append(" ".join(rules))
    lines.append(" & ".join(_tex_cell(cell) for cell in table.header) + r" \\")
    lines.append(r"\midrule")
    lines += [" & ".join(_tex_cell(cell) for cell in row) + r" \\" for row in table.body]
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def tex(text: str) -> str:
    """Text with the special characters of LaTeX escaped."""
    return "".join(_TEX.get(sign, sign) for sign in text)


def _tex_cell(cell: Cell) -> str:
    text = tex(cell.text)
    if cell.kind == "best":
        text = rf"\textbf{{{text}}}"
    if cell.sub:
        text = rf"\makecell[r]{{{text} \\ \scriptsize {tex(cell.sub)}}}"
    return text


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown, its title as a heading."""
    groups = [""] + [text for text, number in table.spans for _ in range(number)]
    heads = [
        f"{group}: {cell.text}" if group else cell.text
        for group, cell in zip(
            groups if table.spans else [""] * len(table.header), table.header, strict=True
        )
    ]
    lines = [f"### {plain_markdown(table.title)}", ""]
    lines.append(_row([plain_markdown(head) for head in heads]))
    lines.append(_row(["---"] + ["---:"] * (len(heads) - 1)))
    lines += [_row([_markdown_cell(cell) for cell in row]) for row in table.body]
    return "\n".join(lines) + "\n"


def plain_markdown(text: str) -> str:
    """Text with the special characters of Markdown escaped."""
    return text.translate(_MARKDOWN)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    text = plain_markdown(cell.text)
    if cell.link:
        text = f"[{text}]({cell.link})"
    if cell.kind == "best":
        text = f"**{text}**"
    return f"{text} ({plain_markdown(cell.sub)})" if cell.sub else text


def csv(frame: pd.DataFrame) -> bytes:
    """The table as a CSV file; a long one of plain values with Arrow, ten times as fast."""
    if len(frame) < _LONG or not _is_plain(frame):
        return frame.to_csv(index=False, lineterminator="\n").encode()
    buffer = io.BytesIO(",".join(frame.columns).encode() + b"\n")
    buffer.seek(0, io.SEEK_END)
    plain = arrow_csv.WriteOptions(include_header=False, quoting_style="none")
    arrow_csv.write_csv(pyarrow.Table.from_pandas(frame, preserve_index=False), buffer, plain)
    return buffer.getvalue()


def _is_plain(frame: pd.DataFrame) -> bool:
    """True for a table of numbers, and of texts that CSV need not quote."""
    words: set[object] = set(frame.columns)
    for _, column in frame.items():
        if is_bool_dtype(column):
            return False
        if not is_numeric_dtype(column):
            words.update(column.unique())
    return all(isinstance(word, str) and not re.search('[,"\r\n]', word) for word in words)


def parquet(frame: pd.DataFrame) -> bytes:
    """The table as a Parquet file."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()
