"""Groups of runs in MLflow's charts: their names and their colours.

Boundary: writes two tags per run; ``tracking.store.views`` draws the charts. MLflow stores no
colour of a group but hashes the group's name, so that two optimizers often get the same one.
Spaces at the end of the name, which nobody sees, make the hash give the wanted colour. Palette and
hash are those of MLflow 3.17's web interface; with others the colours differ, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from timetrial.framework.records import RunRecord
from timetrial.tracking.store.opening import Store

BY_OPTIMIZER: Final = "mlflow.timetrial.optimizer"
"""Tag that groups the runs of one workload; the prefix hides it from MLflow's lists of tags."""

BY_OPTIMIZER_AND_WORKLOAD: Final = "mlflow.timetrial.optimizer_and_workload"
"""Tag that groups the runs of several workloads."""

PALETTE: Final = (
    *("#a6630c", "#c83243", "#b45091", "#8a63bf", "#434a93", "#137dae", "#04867d", "#308613"),
    *("#facb66", "#1f272d", "#445461", "#5f7281", "#8396a5", "#93320b", "#be501e", "#de7921"),
    *("#f2be88", "#115026", "#277c43", "#3ba65e", "#8ddda8", "#9e102c", "#c82d4c", "#e65b77"),
    *("#f792a6", "#0e538b", "#2272b4", "#4299e0", "#8acaff"),
)
"""MLflow's colours of runs and groups, in its order."""

_FIRST: Final = (
    *("#2272b4", "#de7921", "#308613", "#c83243", "#8a63bf", "#04867d", "#e65b77", "#445461"),
    *("#a6630c", "#4299e0", "#facb66", "#1f272d"),
)
"""Colours that are easy to tell apart on white, to be taken first."""

_COLOR: Final = "color"  # tag: hex colour of the optimizer
_MOST_SPACES: Final = 400


def group_id(tag: str, value: str) -> str:
    """MLflow's name of the group of the runs with a tag."""
    return f"tag.{tag}.{value}"


def color_of(group: str) -> str:
    """The colour that MLflow's web interface draws a group in."""
    low = high = 0
    for unit in memoryview(group.encode("utf-16-le")).cast("H"):
        low = (low + unit) % 255
        high = (high + low) % 255
    return PALETTE[(low | high << 8) % len(PALETTE)]


def write_groups(
    store: Store, runs: Sequence[RunRecord], known: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """Tags the runs with their groups.

    A group is named after the optimizer first, then the workload, then the condition where several
    occur. An optimizer has one colour everywhere.

    Args:
        store: where the runs are.
        runs: the runs to draw.
        known: by run id, the tags that the store has.

    Returns:
        By run id, the value of each of the two tags.
    """
    from mlflow.entities import RunTag

    colors = assign_colors({run.optimizer: run.tags.get(_COLOR, "") for run in runs})
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
    """A colour of the palette for each optimizer, all different while there are enough.

    Args:
        wanted: by optimizer, a hex colour to come close to; "" takes any.
    """
    found: dict[str, str] = {}
    for name in sorted(wanted, key=lambda name: (not wanted[name], name)):
        left = [color for color in (*_FIRST, *PALETTE) if color not in found.values()]
        wish = wanted[name] or (*left, *PALETTE)[0]
        found[name] = min(left or PALETTE, key=lambda color: _distance(color, wish))
    return found


def _padded(tag: str, label: str, color: str) -> str:
    """The label with so many spaces at its end that MLflow draws the group in the colour."""
    values = (label + " " * number for number in range(_MOST_SPACES))
    return next((value for value in values if color_of(group_id(tag, value)) == color), label)


def _distance(one: str, other: str) -> float:
    """Distance of two hex colours in red, green and blue."""
    return math.dist(*(bytes.fromhex(color.removeprefix("#")) for color in (one, other)))
