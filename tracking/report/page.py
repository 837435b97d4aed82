"""Writes a report: one self-contained HTML page, with its numbers, tables and plots beside it.

Boundary: the only module of the report that writes files. Knows no section by name; see
``sections`` for how to add one. The same runs give the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import quote

import jinja2

from timetrial.framework.files import write_atomically
from timetrial.framework.records import RunRecord
from timetrial.framework.secrets import masked_file
from timetrial.tracking.report import exports, plots
from timetrial.tracking.report.cells import Table
from timetrial.tracking.report.inline import inline_svg
from timetrial.tracking.report.paper import published
from timetrial.tracking.report.results import ReportOptions, Results, results_of
from timetrial.tracking.report.section import Bullets, Columns, Heading, Plot, Plots, Section, Text
from timetrial.tracking.report.sections import SECTIONS
from timetrial.tracking.report.style import Look, looks

PAGE: Final = "report.html"


_BLOCKS: Final = {"text": Text, "bullets": Bullets, "heading": Heading, "table": Table,
                  "plots": Plots, "columns": Columns}  # fmt: skip
_KINDS: Final = {"csv": "CSV", "parquet": "Parquet", "tex": "LaTeX", "md": "Markdown",
                 "png": "PNG", "svg": "SVG"}  # fmt: skip


def write_report(
    records: Sequence[RunRecord], directory: Path, options: ReportOptions | None = None
) -> Path:
    """Writes ``report.html`` and its files.

    Beside the page: numbers as CSV (evaluations also as Parquet), in ``tables`` every table as
    LaTeX and Markdown, in ``plots`` every plot as PNG and SVG.

    Args:
        records: runs of the race, of any status, in any order. Trials of tuning studies (tag
            ``study``) are compared with the race but do not belong to it.
        directory: made where missing; files of the same name are replaced.
        options: title, scoring, intervals; by default those of ``ReportOptions``.

    Returns:
        Path of ``report.html``.

    Raises:
        OSError: the directory cannot be written.
        ValueError: ``r_max`` is not above 1, or runs of one workload disagree on its metric.
    """
    return _write(results_of(records, options), directory)


def write_paper_report(directory: Path, options: ReportOptions | None = None) -> Path:
    """Writes the report of the paper's own tables; uses ``r_max`` and ``rates`` of the options."""
    options = dataclasses.replace(
        options or ReportOptions(),
        title="Timetrial: the paper’s own tables",
        meta={"source": "Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023"},
    )
    return _write(published(options), directory)


def _write(results: Results, directory: Path) -> Path:
    sections = [made for make in SECTIONS if (made := make(results)) is not None]
    drawn = _drawn(plot for section in sections for plot in section.plots)
    shown = looks({*results.optimizers, *drawn}, results.entrants)
    files = {
        name: data
        for section in sections
        for name, data in _files(section, shown, results.options.title).items()
    }
    files[PAGE] = _page(results, sections, shown, sorted(files)).encode()
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, masked_file(data))
    return directory / PAGE


def _files(section: Section, shown: Mapping[str, Look], title: str) -> dict[str, bytes]:
    """The files of a section by path, the page excepted."""
    files = dict(section.files)
    for name, frame in section.frames.items():
        if len(frame):
            files[f"{name}.csv"] = exports.csv(frame)
    for table in section.tables:
        files[f"tables/{table.name}.tex"] = exports.latex(table, f"{table.title}. {title}").encode()
        files[f"tables/{table.name}.md"] = exports.markdown(table).encode()
    for plot in section.plots:
        drawn = plots.files(plot.panels, shown, columns=2, title=plot.title)
        files |= {f"plots/{plot.name}.{kind}": data for kind, data in drawn.items()}
    return files


def _drawn(several: Iterable[Plot]) -> set[str]:
    """The optimizers in the panels of some plots."""
    return {line.name for plot in several for panel in plot.panels for line in panel.lines}


def _page(
    results: Results, sections: Sequence[Section], shown: Mapping[str, Look], files: Sequence[str]
) -> str:
    def svg(panel: plots.Panel, title: str, name: str, small: bool) -> str:
        frame = plots.SMALL if small else plots.FULL
        return inline_svg(panel, shown, name=name, title=title, frame=frame)

    def legend(block: Plots) -> list[str]:
        drawn = _drawn(block.plots)
        return [name for name in shown if name in drawn]

    return _template().render(
        options=results.options,
        sections=sections,
        looks=shown,
        places={name: place for place, name in enumerate(shown)},
        slug=plots.slug,
        svg=svg,
        legend=legend,
        files=_listed(files),
    )


def _listed(files: Iterable[str]) -> dict[str, dict[str, dict[str, str]]]:
    """Address of each file by folder (numbers, tables, plots), name and kind."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for file in files:
        path = PurePosixPath(file)
        folder = "numbers" if path.parent == PurePosixPath() else str(path.parent)
        kind = _KINDS.get(path.suffix[1:], path.suffix[1:])
        found.setdefault(folder, {}).setdefault(path.stem, {})[kind] = quote(file)
    return found


def _template() -> jinja2.Template:
    folder = resources.files("timetrial.tracking.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    for name, kind in _BLOCKS.items():
        environment.tests[name] = lambda block, kind=kind: isinstance(block, kind)
    for name in ("page.css", "page.js"):
        environment.globals[name.replace(".", "_")] = (folder / name).read_text()
    return environment.from_string((folder / "page.html").read_text())
