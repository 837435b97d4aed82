"""Agreement of two implementations of one optimizer, from their recorded runs.

Pure: from runs to a sentence. A run says in a tag whose updates it is to repeat.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Final

from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition, Split, Status
from timetrial.tracking.record import schema
from timetrial.tracking.report.cells import count

LOSS: Final = f"{Split.TRAIN}/loss"


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Training losses of two implementations at equal steps.

    Attributes:
        one, other: labels of the optimizers; ``one`` is to repeat the updates of ``other``.
        runs: number of pairs of runs.
        difference: largest relative difference, >= 0; inf where only one loss is finite.
        where: workload, seed and step of that difference.
    """

    one: str
    other: str
    runs: int
    difference: float
    where: str


def agreements(records: Sequence[RunRecord]) -> list[Agreement]:
    """Compares each tagged optimizer with the one named in its tag.

    Runs are compared on one workload with one seed under one budget of steps: under time budgets
    both are built for other numbers of steps.
    """
    finished = [r for r in records if r.condition == Condition.STEP and r.status == Status.FINISHED]
    others = {(r.optimizer, *_place(r)): r for r in finished}
    found: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for run in finished:
        named = run.tags.get(schema.SAME_UPDATES_AS, "")
        other = others.get((named, *_place(run)))
        if other is not None and (difference := _largest(run, other)) is not None:
            found.setdefault((run.optimizer, named), []).append(difference)
    return [Agreement(*pair, len(every), *max(every)) for pair, every in sorted(found.items())]


def agreement_text(records: Sequence[RunRecord]) -> str:
    """One sentence for each pair of implementations; "" without such a pair."""
    return " ".join(
        f"{found.one} is to make the same updates as {found.other}: over "
        f"{count(found.runs, 'pair')} of runs with equal workload, seed and budget, their training "
        f"losses differ by at most {_in_words(found.difference)} ({found.where})."
        for found in agreements(records)
    )


def _place(run: RunRecord) -> tuple[str, int, float]:
    return run.workload, run.seed, run.budget


def _largest(run: RunRecord, other: RunRecord) -> tuple[float, str] | None:
    """The largest relative difference and its place; None without a common evaluation."""
    theirs = dict(_losses(other))
    found = [
        (_relative(loss, theirs[step]), f"{run.workload}, seed {run.seed}, step {step}")
        for step, loss in _losses(run)
        if step in theirs
    ]
    return max(found, default=None)


def _losses(run: RunRecord) -> Iterable[tuple[int, float]]:
    return ((row.step, row.metrics[LOSS]) for row in run.evaluations if LOSS in row.metrics)


def _relative(one: float, other: float) -> float:
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    largest = max(abs(one), abs(other))
    return abs(one - other) / largest if math.isfinite(largest) else math.inf


def _in_words(difference: float) -> str:
    if difference == math.inf:
        return "one that is not finite"
    return f"{100 * difference:.2g} %"
