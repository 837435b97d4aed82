"""Names and colours of groups of runs in MLflow's charts.

Boundary: writes two tags per run; ``tracking.store.views`` draws the charts. MLflow derives the
colour of a group from a hash of its name. Two optimizers often get the same colour. Invisible
trailing spaces in the name select the chosen colour. Palette and hash are those of MLflow 3.17's
web interface; in other versions only the colours differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from timetrial.framework.records import RunRecord
from timetrial.tracking.record import schema
from timetrial.tracking.store.opening import Store

BY_OPTIMIZER: Final = "mlflow.timetrial.optimizer"
"""Tag that groups runs of one workload; the prefix hides it from MLflow's lists of tags."""

BY_OPTIMIZER_AND_WORKLOAD: Final = "mlflow.timetrial.optimizer_and_workload"
"""Tag that groups runs of several workloads."""

PALETTE: Final = (
    *("#a6630c", "#c83243", "#b45091", "#8a63bf", "#434a93", "#137dae", "#04867d", "#308613"),
    *("#facb66", "#1f272d", "#445461", "#5f7281", "#8396a5", "#93320b", "#be501e", "#de7921"),
    *("#f2be88", "#115026", "#277c43", "#3ba65e", "#8ddda8", "#9e102c", "#c82d4c", "#e65b77"),
    *("#f792a6", "#0e538b", "#2272b4", "#4299e0", "#8acaff"),
)
"""MLflow's colours of runs and groups, in MLflow's order."""

_FIRST: Final = (
    *("#2272b4", "#de7921", "#308613", "#c83243", "#8a63bf", "#04867d", "#e65b77", "#445461"),
    *("#a6630c", "#4299e0", "#facb66", "#1f272d"),
)
"""Colours used first: easy to distinguish on white."""

_MOST_SPACES: Final = 400


def group_id(tag: str, value: str) -> str:
    """MLflow's name of the group of runs with a tag."""
    return f"tag.{tag}.{value}"


def color_of(group: str) -> str:
    """Colour of a group in MLflow's web interface."""
    low = high = 0
    for unit in memoryview(group.encode("utf-16-le")).cast("H"):
        low = (low + unit) % 255
        high = (high + low) % 255
    return PALETTE[(low | high << 8) % len(PALETTE)]


def write_groups(
    store: Store, runs: Sequence[RunRecord], known: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """Writes the group tags of runs.

    The name of a group is the optimizer, then the workload, then the condition (if several occur).
    An optimizer has one colour everywhere.

    Args:
        store: store of the runs.
        runs: runs to draw.
        known: tags in the store, by run id.

    Returns:
        Values of the two tags, by run id.
    """
    from mlflow.entities import RunTag

    colors = assign_colors({run.optimizer: run.tags.get(schema.COLOR, "") for run in runs})
    several = len({run.condition for run in runs}) > 1
    found = {}
    for run in runs:
        condition = [str(run.condition)] if several else []
        labels = {
            BY_OPTIMIZER: ", ".join([run.optimizer, *condition]),
            BY_OPTIMIZER_AND_WORKLOAD: ", ".join([run.optimizer, run.workload, *condition]),
        }
        color = colors[run.optimizer]
        found[run.run_id] = {tag: _padded(tag, label, color) for tag, label in labels.items()}
        new = [RunTag(*pair) for pair in found[run.run_id].items() - known[run.run_id].items()]
        if new:
            store.client.log_batch(run.run_id, tags=new)
    return found


def assign_colors(wanted: Mapping[str, str]) -> dict[str, str]:
    """A palette colour for each optimizer; all different unless the palette is too small.

    Args:
        wanted: preferred hex colour by optimizer, replaced by the nearest one; "" takes any.
    """
    found: dict[str, str] = {}
    for name in sorted(wanted, key=lambda name: (not wanted[name], name)):
        left = [color for color in (*_FIRST, *PALETTE) if color not in found.values()]
        wish = wanted[name] or (*left, *PALETTE)[0]
        found[name] = min(left or PALETTE, key=lambda color: _distance(color, wish))
    return found


def _padded(tag: str, label: str, color: str) -> str:
    """The label with trailing spaces, so that MLflow gives the group this colour."""
    values = (label + " " * number for number in range(_MOST_SPACES))
    return next((value for value in values if color_of(group_id(tag, value)) == color), label)


def _distance(one: str, other: str) -> float:
    """Distance of two hex colours in red, green and blue."""
    return math.dist(*(bytes.fromhex(color.removeprefix("#")) for color in (one, other)))
