"""Writes a report: one self-contained HTML page, with CSV files and PNG plots beside it.

Boundary: the only place of the report that touches the disk. The same runs give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from framework.types import RunRecord
from tracking.report import frames, plots, tables
from tracking.report.figures import curve_groups, profile_panels
from tracking.report.standings import SHOWN, Plan, Standing, directions, rows, standings
from tracking.report.style import looks
from tracking.report.summary import census, notes, summary
from tracking.targets import CONDITIONS, final_quality


def write_report(
    records: Sequence[RunRecord],
    directory: Path,
    *,
    title: str,
    r_max: float | Mapping[str, float] | None = None,
    meta: Mapping[str, str] | None = None,
    planned: Plan | None = None,
    mixed_machines: bool = False,
) -> Path:
    """Writes ``report.html`` and the CSV and PNG files that belong to it.

    Args:
        records: all runs of the race, of any status, in any order.
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

    Returns:
        Path of ``report.html``.

    Raises:
        OSError: the directory cannot be written.
        ValueError: ``r_max`` is not above 1, or runs of one workload disagree on its metric.
    """
    records = sorted(records, key=_identity)
    found = standings(records, r_max=r_max, mixed_machines=mixed_machines)
    names = tables.order(found, {record.optimizer for record in records})
    styles = looks(names)
    profiles = profile_panels(found, styles)
    groups, drawn = curve_groups(records, found, styles)
    files = {name: _csv(frame) for name, frame in _frames(records, found, planned).items()}
    files["learning_curves.csv"] = _csv(drawn)
    if profiles:
        files["profiles.png"] = plots.png(profiles, styles, columns=2, title="Performance profiles")
    for group in groups:
        files[f"{group.name}.png"] = plots.png(group.panels, styles, columns=2, title=group.title)
    page = _template().render(
        title=title,
        meta=meta or {},
        looks=styles,
        places={name: place for place, name in enumerate(styles)},
        slugs={name: plots.slug(name) for name in styles},
        profiles=[_figure(panel, styles, f"p{i}", "") for i, panel in enumerate(profiles)],
        curves=[
            {
                "title": group.title,
                "plots": [
                    _figure(panel, styles, f"c{i}-{k}", f"{group.title}: ")
                    for k, panel in enumerate(group.panels)
                ],
            }
            for i, group in enumerate(groups)
        ],
        files=sorted(files),
        **_content(records, found, names, planned),
    )
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in {**files, "report.html": page.encode()}.items():
        _replace(directory / name, content)
    return directory / "report.html"


def _content(
    records: Sequence[RunRecord],
    found: Sequence[Standing],
    names: Sequence[str],
    planned: Plan | None,
) -> dict[str, Any]:
    """Everything on the page but the plots."""
    listed = rows(records, planned)
    conditions = list(dict.fromkeys(standing.condition for standing in found))
    quality = final_quality(records)
    ways = directions(records)
    return {
        "optimizers": names,
        "summary": [*summary(records, found), census(listed)],
        "notes": notes(records, found),
        "scores": tables.score_table(found, names) if found else None,
        "times": [
            {
                "title": tables.CONTROL[condition].capitalize(),
                "tables": [
                    tables.time_table(standing, names)
                    for standing in found
                    if standing.condition == condition
                ],
            }
            for condition in conditions
        ],
        "quality": [
            tables.quality_table(
                quality[(quality["condition"] == condition) & (quality["split"] == split)],
                names,
                ways,
                title=f"{split}, {tables.CONTROL[condition]}".capitalize(),
            )
            for condition in CONDITIONS
            for split in SHOWN
            if ((quality["condition"] == condition) & (quality["split"] == split)).any()
        ],
        "census": census(listed),
        "trouble": tables.run_table(
            [row for row in listed if row.outcome != "finished"], title="Runs that did not finish"
        ),
        "runs": tables.run_table(listed, title="All runs"),
        "setup": tables.settings_table(records),
    }


def _frames(
    records: Sequence[RunRecord], found: Sequence[Standing], planned: Plan | None
) -> dict[str, pd.DataFrame]:
    return {
        "scores.csv": frames.score_frame(found),
        "profiles.csv": frames.profile_frame(found),
        "targets.csv": frames.target_frame(found),
        "time_to_target.csv": frames.time_frame(found),
        "trial_times.csv": frames.trial_frame(records, found),
        "final_quality.csv": final_quality(records),
        "runs.csv": frames.run_frame(rows(records, planned)),
        "settings.csv": frames.settings_frame(records),
    }


def _identity(record: RunRecord) -> tuple[str, str, str, int, str]:
    return (record.condition, record.workload, record.optimizer, record.seed, record.run_id)


def _template() -> jinja2.Template:
    folder = resources.files("tracking.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.globals["css"] = (folder / "page.css").read_text()
    return environment.from_string((folder / "page.html").read_text())


def _figure(panel: plots.Panel, styles: Any, name: str, context: str) -> dict[str, str]:
    title = context + panel.title
    return {
        "title": panel.title,
        "svg": plots.inline_svg(panel.draw, styles, name=name, title=title),
    }


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _replace(path: Path, content: bytes) -> None:
    """Writes a file as a whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)
