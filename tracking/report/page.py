"""Writes a report: one self-contained HTML page, with its numbers, tables and plots beside it.

Boundary: the only place of the report that touches the disk. The same runs give the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from timetrial.framework.files import write_atomically
from timetrial.framework.records import RunRecord
from timetrial.tracking.report import (
    exports,
    frames,
    paper,
    plots,
    run_tables,
    schedules,
    tables,
    tuning,
)
from timetrial.tracking.report.cells import Table
from timetrial.tracking.report.figures import Figure, curve_figures
from timetrial.tracking.report.panels import profile_panel
from timetrial.tracking.report.questions import answers
from timetrial.tracking.report.results import Results, results_of
from timetrial.tracking.report.stability import rank_panels, rank_table
from timetrial.tracking.report.standings import CONTROL, Planned
from timetrial.tracking.report.style import Look, looks
from timetrial.tracking.report.summary import census, notes, summary
from timetrial.tracking.scores.resampling import Bootstrap

PAGE = "report.html"


def write_report(
    records: Sequence[RunRecord],
    directory: Path,
    *,
    title: str,
    r_max: float | Mapping[str, float] | None = None,
    meta: Mapping[str, str] | None = None,
    planned: Planned | None = None,
    mixed_machines: bool = False,
    options: Bootstrap | None = None,
    rates: pd.DataFrame | None = None,
    run_url: str = "",
) -> Path:
    """Writes ``report.html`` and the files that belong to it.

    Beside the page lie its numbers (CSV, and all evaluations also as Parquet), in ``tables`` every
    table as LaTeX and Markdown, in ``plots`` every plot as PNG and SVG.

    Args:
        records: all runs of the race, of any status, in any order; those that are trials of a
            tuning study (tag ``study``) are compared with the race but are no part of it.
        directory: where to write; made if need be. Files of the same name are replaced.
        title: heading of the page.
        r_max: upper limit of the score's integral, one for all or one per condition; by default
            those that reproduce the paper, 3 (time) and 1.5 (step).
        meta: facts to show under the heading, in this order (suite, command, ...). No clock time,
            or the report is no longer the same for the same runs.
        planned: the runs that were asked for; those without a record are listed as missing. By
            default every optimizer on every workload with every seed that occurs.
        mixed_machines: score the seconds of runs from different machines or calibrations, too;
            by default there are no scores under time control then.
        options: how intervals are made; by default 95 % percentile intervals.
        rates: learning rates, columns ``schedules.COLUMNS``.
        run_url: address of a run in the tracking server but for its id; "" sets no links.

    Returns:
        Path of ``report.html``.

    Raises:
        OSError: the directory cannot be written.
        ValueError: ``r_max`` is not above 1, or runs of one workload disagree on its metric.
    """
    results = results_of(
        records, r_max=r_max, planned=planned, mixed_machines=mixed_machines, options=options
    )
    return _write(results, directory, title, meta or {}, rates, run_url)


def write_paper_report(
    directory: Path,
    *,
    r_max: float | Mapping[str, float] | None = None,
    rates: pd.DataFrame | None = None,
) -> Path:
    """Writes the same report of the paper's own tables; arguments as for ``write_report``."""
    title = "Timetrial: the paper’s own tables"
    meta = {"source": "Rezk et al., Is Scaling Learned Optimizers Worth It?, 2023"}
    return _write(paper.published(r_max), directory, title, meta, rates, "")


@dataclasses.dataclass(frozen=True)
class _Plots:
    """The figures of a page, by section, and their looks."""

    sections: Mapping[str, Sequence[Figure]]
    looks: Mapping[str, Look]

    def all(self) -> Iterable[Figure]:
        return (figure for figures in self.sections.values() for figure in figures)


def _write(
    results: Results,
    directory: Path,
    title: str,
    meta: Mapping[str, str],
    rates: pd.DataFrame | None,
    run_url: str,
) -> Path:
    rates = pd.DataFrame(columns=list(schedules.COLUMNS)) if rates is None else rates
    studies, refused = tuning.tuned(results)
    curves, drawn = curve_figures(results.records, results.standings)
    figures = {
        "profiles": _figure(
            "profiles", "Performance profiles", map(profile_panel, results.standings)
        ),
        "curves": curves,
        "rates": [
            *_figure("learning_rates", "Learning rates", schedules.rate_panels(rates)),
            *_figure("progress", "What VeLO is told", schedules.progress_panels(results)),
        ],
        "tuning": _figure("tuning", "Expected best of k trials", tuning.tuning_panels(studies)),
        "stability": _figure("scores_over_r_max", "Scores over r_max", rank_panels(results)),
    }
    everybody = set(results.optimizers).union(*map(_drawn, figures.values()))
    shown = _Plots(figures, looks(everybody))
    content = _content(results, studies, run_url)
    files = _numbers(results, drawn, rates, studies)
    files |= _tables(content, title)
    files |= _images(shown)
    page = _template().render(
        title=title,
        meta=meta,
        looks=shown.looks,
        places={name: place for place, name in enumerate(shown.looks)},
        slugs={name: plots.slug(name) for name in shown.looks},
        figures=_inline(shown),
        refused=refused,
        files=sorted(files),
        **content,
    )
    for name, data in {**files, PAGE: page.encode()}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    return directory / PAGE


def _content(results: Results, studies: Sequence[tuning.Tuned], run_url: str) -> dict[str, Any]:
    """Everything on the page but the plots."""
    listed = results.rows
    conditions = list(dict.fromkeys(standing.condition for standing in results.standings))
    trouble = [row for row in listed if row.outcome != "finished"]
    reproduced, remarks = paper.reproduction(results) if results.published else (None, [])
    return {
        "published": results.published,
        "optimizers": results.optimizers,
        "level": f"{100 * results.level:g}\N{NO-BREAK SPACE}%",
        "summary": [*summary(results), *([census(listed)] if listed else [])],
        "notes": notes(results.records, results.standings),
        "answers": answers(results),
        "reproduced": reproduced,
        "remarks": remarks,
        "times": [
            {
                "title": CONTROL[condition].capitalize(),
                "tables": [
                    tables.time_table(standing, results.optimizers)
                    for standing in results.standings
                    if standing.condition == condition
                ],
            }
            for condition in conditions
        ],
        "quality": tables.quality_tables(results),
        "beside": paper.side_by_side(results),
        "tuned": tuning.tuning_table(results, studies) if studies else None,
        "ranks": rank_table(results) if results.standings else None,
        "census": census(listed),
        "trouble": run_tables.run_table(
            trouble, run_url, name="unfinished_runs", title="Runs that did not finish"
        ),
        "runs": run_tables.run_table(listed, run_url, name="runs", title="All runs"),
        "budgets": run_tables.budget_table(results),
        "configurations": run_tables.configuration_table(results.records),
        "setup": run_tables.settings_table(results.records),
    }


def _numbers(
    results: Results, drawn: pd.DataFrame, rates: pd.DataFrame, studies: Sequence[tuning.Tuned]
) -> dict[str, bytes]:
    """The CSV files, and Parquet of the evaluations."""
    found = {
        "scores": frames.score_frame(results.standings),
        "profiles": frames.profile_frame(results.standings),
        "targets": frames.target_frame(results.standings),
        "time_to_target": frames.time_frame(results.standings),
        "trial_times": frames.trial_frame(results.records, results.standings),
        "final_quality": results.quality,
        "improvement": results.improvement,
        "runs": frames.run_frame(results.rows),
        "settings": frames.settings_frame(results.records),
        "learning_curves": drawn,
        "learning_rates": rates,
        "progress": schedules.progress_frame(results),
        "tuning": tuning.tuning_frame(studies),
        "evaluations": exports.evaluation_frame(results.records),
    }
    present = {name: frame for name, frame in found.items() if len(frame)}
    files = {f"{name}.csv": _csv(frame) for name, frame in present.items()}
    if "evaluations" in present:
        files["evaluations.parquet"] = exports.parquet(present["evaluations"])
    return files


def _tables(content: Mapping[str, Any], title: str) -> dict[str, bytes]:
    files = {}
    for table in _each_table(content):
        if table.body:
            files[f"tables/{table.name}.tex"] = exports.latex(table, f"{table.title}. {title}")
            files[f"tables/{table.name}.md"] = exports.markdown(table)
    return {name: text.encode() for name, text in files.items()}


def _each_table(content: Any) -> Iterable[Table]:
    """Every table in the content, however deep."""
    if isinstance(content, Table):
        yield content
    elif dataclasses.is_dataclass(content):
        yield from _each_table([getattr(content, f.name) for f in dataclasses.fields(content)])
    elif isinstance(content, Mapping):
        yield from _each_table(list(content.values()))
    elif isinstance(content, list):
        for part in content:
            yield from _each_table(part)


def _images(shown: _Plots) -> dict[str, bytes]:
    return {
        f"plots/{figure.name}.{kind}": data
        for figure in shown.all()
        for kind, data in plots.files(
            figure.panels, shown.looks, columns=2, title=figure.title
        ).items()
    }


def _figure(name: str, title: str, panels: Iterable[plots.Panel]) -> list[Figure]:
    found = list(panels)
    return [Figure(name, title, found)] if found else []


def _inline(shown: _Plots) -> dict[str, dict[str, Any]]:
    """Of each section, the names of its legend and its figures, as the template shows them."""
    return {
        section: {
            "names": [name for name in shown.looks if name in _drawn(figures)],
            "figures": [
                {
                    "title": figure.title,
                    "plots": [
                        _inline_plot(figure, panel, shown.looks, f"{section}-{i}-{k}")
                        for k, panel in enumerate(figure.panels)
                    ],
                }
                for i, figure in enumerate(figures)
            ],
        }
        for section, figures in shown.sections.items()
    }


def _inline_plot(
    figure: Figure, panel: plots.Panel, styles: Mapping[str, Look], name: str
) -> dict[str, str]:
    title = f"{figure.title}: {panel.title}"
    return {"title": panel.title, "svg": plots.inline_svg(panel, styles, name=name, title=title)}


def _drawn(figures: Iterable[Figure]) -> set[str]:
    """The optimizers in the panels of some figures."""
    return {one.name for figure in figures for panel in figure.panels for one in panel.series}


def _template() -> jinja2.Template:
    folder = resources.files("timetrial.tracking.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    for name in ("page.css", "page.js"):
        environment.globals[name.replace(".", "_")] = (folder / name).read_text()
    return environment.from_string((folder / "page.html").read_text())


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\n").encode()
