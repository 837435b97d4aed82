"""Two optimizers of a race: one paragraph on who wins where, and their learning curves.

Pure: from recorded runs to text, panels and bytes; the caller writes files. The statistics are
those of ``tracking.scores.uncertainty``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Direction
from timetrial.tracking.report.cells import (
    amount,
    coverage_text,
    interval_text,
    joined_names,
    plain,
)
from timetrial.tracking.report.entrants import entrants_of
from timetrial.tracking.report.plots import files, slug
from timetrial.tracking.report.section import Plot
from timetrial.tracking.report.sections.curves import pair_panels
from timetrial.tracking.report.standings import CONTROL, Standing, headlines, refused, standings
from timetrial.tracking.report.style import looks, metric_name
from timetrial.tracking.scores.final_quality import final_values
from timetrial.tracking.scores.multiple import better
from timetrial.tracking.scores.resampling import Bootstrap
from timetrial.tracking.scores.targets import CONDITIONS, trials
from timetrial.tracking.scores.uncertainty import costs, probability_of_improvement

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Versus:
    """A comparison of two optimizers.

    Attributes:
        text: one paragraph.
        plot: both learning curves per workload, with the range over seeds.
        files: the plot as ``<name>.png`` and ``<name>.svg``.
    """

    text: str
    plot: Plot
    files: dict[str, bytes]


@dataclasses.dataclass(frozen=True)
class _Pair:
    """Two optimizers under one condition, judged on its deciding split.

    Attributes:
        one, other: labels.
        standing: the standing of the whole race: targets and times.
        workloads: those with runs of both.
        finals: final deciding metrics, columns workload, optimizer, seed, value.
        metrics, ways: deciding metric and its direction, by workload.
    """

    one: str
    other: str
    standing: Standing
    workloads: Sequence[str]
    finals: pd.DataFrame
    metrics: dict[str, str]
    ways: dict[str, Direction]


def versus(
    records: Sequence[RunRecord],
    one: str,
    other: str,
    *,
    bootstrap: Bootstrap | None = None,
    mixed_machines: bool = False,
    setters: Collection[str] | None = None,
) -> Versus:
    """Compares two optimizers: final quality, times to target, and how sure the difference is.

    Args:
        records: all runs of the race; targets are established from all optimizers.
        one: label of an optimizer.
        other: label of another one.
        bootstrap: how intervals are made.
        mixed_machines: compare seconds of runs from different machines, too.
        setters: as for ``targets.target_table``.

    Raises:
        ValueError: no workload has counted runs of both, or their seconds are not comparable.
    """
    options = bootstrap or Bootstrap()
    found = standings(records, mixed_machines=mixed_machines, setters=setters)
    pairs = [_pair(records, head, one, other) for head in headlines(found)]
    pairs = [pair for pair in pairs if pair.workloads]
    if not pairs:
        raise ValueError(_why_nothing(records, one, other))
    entrants = entrants_of(records)
    panels = [
        dataclasses.replace(panel, title=f"{panel.title}, {CONTROL[pair.standing.condition]}")
        for pair in pairs
        for panel in pair_panels(records, pair.standing, (one, other))
    ]
    title = f"{one} against {other}: deciding metric, mean and range over seeds"
    plot = Plot(f"{slug(one)}-against-{slug(other)}", title, panels)
    drawn = files(panels, looks([one, other], entrants), columns=2, title=title)
    return Versus(
        text=" ".join(sentence for pair in pairs for sentence in _sentences(pair, options)),
        plot=plot,
        files={f"{plot.name}.{kind}": data for kind, data in drawn.items()},
    )


def _pair(records: Sequence[RunRecord], head: Standing, one: str, other: str) -> _Pair:
    runs = [
        run for run in trials(records, condition=head.condition) if run.optimizer in (one, other)
    ]
    present = {name: {r.workload for r in runs if r.optimizer == name} for name in (one, other)}
    shared = sorted(present[one] & present[other])
    metrics = {run.workload: run.metric for run in runs}
    finals = final_values(runs)
    finals = finals[
        (finals["split"] == head.split)
        & (finals["metric"] == finals["workload"].map(metrics))
        & finals["workload"].isin(shared)
    ]
    return _Pair(
        one=one,
        other=other,
        standing=head,
        workloads=shared,
        finals=finals[["workload", "optimizer", "seed", "value"]],
        metrics=metrics,
        ways={run.workload: run.direction for run in runs},
    )


def _why_nothing(records: Sequence[RunRecord], one: str, other: str) -> str:
    """Reason why two optimizers cannot be compared."""
    for condition in CONDITIONS:
        if mixed := refused(records, condition):
            return (
                f"{one} and {other}: runs of {next(iter(mixed))} were timed on different machines; "
                "--mixed-machines compares them anyway"
            )
    held = {
        name: sorted({run.workload for run in records if run.optimizer == name})
        for name in (one, other)
    }
    told = "; ".join(f"{name}: {', '.join(there) or 'none'}" for name, there in held.items())
    return f"expected a workload with counted runs of both optimizers, got none ({told})"


def _sentences(pair: _Pair, options: Bootstrap) -> list[str]:
    """Who ends better and how sure that is, where and by how much, who reaches targets sooner."""
    return [_verdict(pair, options), _where(pair), _times(pair)]


def _verdict(pair: _Pair, options: Bootstrap) -> str:
    table = probability_of_improvement(pair.finals, directions=pair.ways, options=options)
    rows = table[(table["optimizer"] == pair.one) & (table["other"] == pair.other)]
    row: dict[str, Any] = {str(key): value for key, value in rows.iloc[0].items()}
    first, second, chance = pair.one, pair.other, float(row["probability"])
    low, high = float(row["low"]), float(row["high"])
    if chance < 0.5 or (chance == 0.5 and second < first):
        first, second, chance, low, high = second, first, 1 - chance, 1 - high, 1 - low
    p_value = float(row.get("p_value", math.nan))
    sure = low > 0.5 if math.isnan(p_value) else p_value <= 1 - options.level
    told = f"interval {interval_text(low, high, 2)}, {coverage_text([float(row['coverage'])])}"
    if not math.isnan(p_value):
        told += f"; equal optimizers differ as much with p {_p_text(p_value)}"
    verdict = f"{first} is better than {second}"
    if not sure:
        verdict = f"{first} and {second} are not told apart"
    split, control = pair.standing.split, CONTROL[pair.standing.condition]
    return (
        f"Under {control}, {verdict}: on the final {split} metric of a random "
        f"workload, a run of {first} beats one of {second} with probability {chance:.2f} ({told})."
    )


def _p_text(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.2g}"


def _where(pair: _Pair) -> str:
    """On which workloads each ends better, with both means and the pairs of runs won."""
    won: dict[str, list[str]] = {pair.one: [], pair.other: []}
    level = []
    cells = costs(pair.finals, pair.ways)
    for workload in pair.workloads:
        means = [_mean(_values(pair, name, workload)) for name in (pair.one, pair.other)]
        won_pairs = better(cells[pair.one, workload], cells[pair.other, workload])
        wins, number = float(won_pairs.sum()), won_pairs.size
        if wins * 2 == number:
            level.append(workload)
            continue
        first = wins * 2 > number
        one, other = means if first else means[::-1]
        share = f"{wins if first else number - wins:g} of {number} pairs of runs"
        metric = metric_name(pair.metrics[workload])
        told = f"{workload}: {metric} {one} against {other}, {share}"
        won[pair.one if first else pair.other].append(told)
    parts = [
        f"{name} ends better on {len(where)} of {len(pair.workloads)} ({'; '.join(where)})"
        for name, where in sorted(won.items(), key=lambda item: (-len(item[1]), item[0]))
        if where
    ]
    parts += [f"they are level on {joined_names(level)}"] if level else []
    return f"{', '.join(parts)}."


def _values(pair: _Pair, name: str, workload: str) -> Floats:
    """Final values of the runs of one optimizer on one workload; NaN for an early end."""
    rows = pair.finals
    chosen = rows[(rows["optimizer"] == name) & (rows["workload"] == workload)]
    return chosen["value"].to_numpy(dtype=np.float64)


def _mean(values: Floats) -> str:
    """Mean of the finite values, and how many they are if some are not."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "no value"
    kept = f" ({len(finite)} of {len(values)} runs)" if len(finite) < len(values) else ""
    return f"{plain(float(finite.mean()), 4)}{kept}"


def _times(pair: _Pair) -> str:
    """Who reaches the targets of the race sooner, where, and by which factor."""
    sooner: dict[str, list[str]] = {pair.one: [], pair.other: []}
    neither, level = [], []
    for workload in pair.workloads:
        times = {
            name: float(pair.standing.times.loc[name, workload])  # type: ignore[arg-type]
            for name in sooner
        }
        first, second = sorted(times, key=lambda name: times[name])
        if math.isinf(times[first]):
            neither.append(workload)
        elif times[first] == times[second]:
            level.append(workload)
        else:
            unit = pair.standing.unit
            told = f"{workload}: {amount(times[first], unit)} {unit} against "
            told += amount(times[second], unit)
            if times[first] > 0 and math.isfinite(times[second]):
                told += f", {times[second] / times[first]:.2g} times as fast"
            sooner[first].append(told)
    parts = [
        f"{name} is faster on {len(where)} of {len(pair.workloads)} ({'; '.join(where)})"
        for name, where in sorted(sooner.items(), key=lambda item: (-len(item[1]), item[0]))
        if where
    ]
    parts += [f"both take equally long on {joined_names(level)}"] if level else []
    parts += [f"neither arrives on {joined_names(neither)}"] if neither else []
    return f"To the {pair.standing.split} targets {', '.join(parts)}."
