"""The protocol as a schematic, after the paper's Figure 1: target, time to target, profile.

Pure: made-up curves, scored by the functions that score a race; no measured number.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from timetrial.framework.budget import TARGET_SHARE
from timetrial.framework.types import Condition, Direction, Split
from timetrial.tracking.report.plots import Line, Panel
from timetrial.tracking.report.results import Results
from timetrial.tracking.report.section import Plot, Plots, Section, Text
from timetrial.tracking.report.sections.profiles import profile_panel
from timetrial.tracking.report.standings import R_MAX, Standing, standing_of
from timetrial.tracking.scores.evaluations import first_hit

Floats = npt.NDArray[np.float64]

EXAMPLES: Final = {
    "1": {"A": (0.45, 7.0), "B": (0.30, 1.65)},
    "2": {"A": (0.28, 3.2), "B": (0.30, 5.6)},
    "3": {"A": (0.30, 5.0), "B": (0.34, 9.0)},
    "4": {"A": (0.25, 4.0), "B": (0.24, 4.6)},
}
"""Made-up losses by workload and optimizer: last value and rate of an exponential decay from 1."""

_EVALUATIONS: Final = 20
_R_MAX: Final = R_MAX[Condition.STEP]
_CUT: Final = f"{100 * TARGET_SHARE:g} % of the budget"
_LOW: Final = 0.35  # lower end of the axis of losses


def section(results: Results) -> Section | None:
    """The protocol in four panels; None for a race."""
    if not results.published:
        return None
    text = (
        "How a score comes about, on made-up losses of two optimizers, A and B; nothing here was "
        f"measured. The target of a workload is the best value at {_CUT}. A time is that of the "
        "first evaluation at or beyond the target. A ratio is a time divided by the fastest one’s "
        "on that workload; an optimizer that never reaches the target has none. The profile is "
        "the share of workloads with a ratio of at most τ; the score is its mean height."
    )
    plot = Plot("protocol", "The protocol, after Figure 1", panels())
    return Section(
        name="protocol",
        title="The protocol (after Figure 1)",
        menu="Protocol",
        blocks=[Text(text), Plots([plot])],
    )


def panels() -> list[Panel]:
    """Target and times on the first example, then ratios and profile over all of them."""
    standing = example()
    return [
        _target_panel(standing),
        _time_panel(standing),
        _ratio_panel(standing),
        _profile_panel(standing),
    ]


def loss(end: float, rate: float, used: Floats) -> Floats:
    """A made-up loss over the used share of the budget: from 1 to nearly ``end``."""
    return end + (1 - end) * np.exp(-rate * used)


def example() -> Standing:
    """The standing of the examples, with the used share of the budget as the time.

    The target of a workload is the best value at ``TARGET_SHARE``; the time is that of the first of
    ``_EVALUATIONS`` evaluations at or below it.
    """
    used = np.arange(_EVALUATIONS + 1) / _EVALUATIONS
    times: dict[str, dict[str, float]] = {}
    goals: dict[str, float] = {}
    for workload, curves in EXAMPLES.items():
        goals[workload] = min(_at(curve, TARGET_SHARE) for curve in curves.values())
        for name, curve in curves.items():
            hit = first_hit(loss(*curve, used), used, goals[workload], Direction.MINIMIZE)
            times.setdefault(name, {})[workload] = hit[1] if hit else np.inf
    return standing_of(
        pd.DataFrame.from_dict(times, orient="index"),
        pd.Series(goals, name="target"),
        condition=Condition.TIME,
        split=Split.VALIDATION,
        r_max=_R_MAX,
    )


def _target_panel(standing: Standing) -> Panel:
    first = next(iter(EXAMPLES))
    used = np.linspace(0.0, 1.0, 101)
    lines = [Line(name, used, loss(*curve, used)) for name, curve in EXAMPLES[first].items()]
    lines.append(Line(_CUT, np.array([TARGET_SHARE, TARGET_SHARE]), np.array([_LOW, 1.0])))
    marks = [
        (name, TARGET_SHARE, _at(curve, TARGET_SHARE)) for name, curve in EXAMPLES[first].items()
    ]
    title = f"Target: the best value at {_CUT}"
    return _losses(title, lines, marks, float(standing.targets[first]))


def _time_panel(standing: Standing) -> Panel:
    first = next(iter(EXAMPLES))
    used = np.arange(_EVALUATIONS + 1) / _EVALUATIONS
    target = float(standing.targets[first])
    lines, marks = [], []
    for name, curve in EXAMPLES[first].items():
        time = float(standing.times.loc[name, first])  # type: ignore[arg-type]
        lines.append(Line(name, used, loss(*curve, used)))
        lines.append(Line(name, np.array([time, time]), np.array([_LOW, target])))
        marks.append((name, time, _at(curve, time)))
    told = ", ".join(f"{name} {time:.2f}" for name, time in _finite(standing.times[first]))
    ratio = float(standing.ratios[first].max())
    return _losses(f"Time to target: {told}; ratio {ratio:.2f}", lines, marks, target)


def _ratio_panel(standing: Standing) -> Panel:
    marks = [
        (name, float(place), ratio)
        for place, workload in enumerate(standing.ratios, start=1)
        for name, ratio in _finite(standing.ratios[workload])
    ]
    return Panel(
        title="Ratio to the fastest; no mark: never",
        x_label="workload",
        y_label="ratio",
        lines=[],
        x_limits=(0.5, len(EXAMPLES) + 0.5),
        y_limits=(0.95, _R_MAX),
        marks=marks,
        whole_x=True,
    )


def _profile_panel(standing: Standing) -> Panel:
    told = ", ".join(f"{name} {score:.2f}" for name, score in standing.scores.items())
    return dataclasses.replace(
        profile_panel(standing),
        title=f"Profile over {len(EXAMPLES)} workloads; scores: {told}",
        x_label="τ: at most τ times the time of the fastest",
    )


def _losses(
    title: str, lines: list[Line], marks: list[tuple[str, float, float]], target: float
) -> Panel:
    return Panel(
        title=title,
        x_label="used share of the budget",
        y_label="loss (lower is better)",
        lines=lines,
        x_limits=(0.0, 1.02),
        y_limits=(_LOW, 1.02),
        marks=marks,
        target=target,
    )


def _at(curve: tuple[float, float], used: float) -> float:
    return float(loss(*curve, np.array([used]))[0])


def _finite(column: pd.Series[float]) -> list[tuple[str, float]]:
    return [(str(name), float(value)) for name, value in column.items() if np.isfinite(value)]
