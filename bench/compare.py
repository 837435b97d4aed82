"""``timetrial compare``: two optimizers in one paragraph and one plot.

Boundary: finds the named runs, prints and writes files; ``tracking.report.versus`` compares.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from timetrial.bench.planning import planned
from timetrial.bench.report import with_targets
from timetrial.bench.suite import Suite
from timetrial.framework import config as configuration
from timetrial.framework.config import Tracking
from timetrial.framework.errors import UserError
from timetrial.framework.files import write_atomically, write_errors
from timetrial.framework.records import RunRecord
from timetrial.framework.secrets import masked_file
from timetrial.framework.suggestions import unknown
from timetrial.tracking.read.places import gather
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.report.versus import versus
from timetrial.tracking.scores.conditions import by_condition
from timetrial.tracking.store.listing import experiment_names
from timetrial.tracking.store.opening import Store, open_store


class Places:
    """The runs of a store or of several sources, by experiment; each is read once.

    Runs of the suite have its targets, as in its report.
    """

    def __init__(
        self,
        suite: Suite,
        tracking: Tracking,
        sources: Sequence[str] = (),
        experiment: str | None = None,
    ) -> None:
        """Reads nothing yet.

        Args:
            suite: the suite raced in the experiment of ``tracking``.
            tracking: the store, and the experiment that a bare label belongs to.
            sources: places as for ``tracking.read.places.read_place``, instead of the store.
            experiment: MLflow experiment of the sources; None takes the only one.
        """
        self.suite = suite
        self._tracking = tracking
        self._sources = sources
        self.default = (experiment or "") if sources else tracking.experiment
        self._read: dict[str, list[RunRecord]] = {}

    @functools.cached_property
    def experiments(self) -> list[str]:
        """Names of the store's experiments; of sources only the given one is known."""
        if self._sources:
            return [self.default]
        return experiment_names(self._store())

    def may_have(self, experiment: str) -> bool:
        """False for an experiment that the store lacks."""
        return bool(self._sources) or experiment in self.experiments

    def runs(self, experiment: str) -> list[RunRecord]:
        """The runs of an experiment, one record per condition, without tuning trials."""
        if experiment not in self._read:
            found = by_condition(self._all(experiment))
            found = [run for run in found if schema.STUDY not in run.tags]
            raced = not self._sources and experiment == self._tracking.experiment
            self._read[experiment] = self._with_targets(found) if raced else found
        return self._read[experiment]

    def _with_targets(self, runs: Sequence[RunRecord]) -> list[RunRecord]:
        """The runs, those of the suite with its targets."""
        plan = planned(self.suite, self._tracking, self._store())
        digests = {configuration.digest(config) for config in plan}
        own = [run for run in runs if run.tags.get(schema.CONFIG_HASH) in digests]
        others = [run for run in runs if run.tags.get(schema.CONFIG_HASH) not in digests]
        return [*with_targets(own, self.suite), *others] if own else others

    def _all(self, experiment: str) -> list[RunRecord]:
        if not self._sources:
            return load_runs(self._store(), experiment)
        records, problems = gather(self._sources, experiment or None)
        for place, problem in problems:
            print(f"problem  {place}: {problem}")
        return records

    def _store(self) -> Store:
        return open_store(self._tracking.uri, root=Path(self._tracking.root), create=False)


def compare(one: str, other: str, places: Places, out: Path, *, mixed_machines: bool) -> int:
    """Compares two optimizers, prints a paragraph and writes the plot.

    Args:
        one: ``LABEL`` or ``EXPERIMENT:LABEL``; a registry name stands for its only variant.
        other: likewise.
        places: where their runs are.
        out: directory of the plot.
        mixed_machines: compare seconds of runs from different machines, too.

    Raises:
        UserError: an unknown optimizer, or nothing to compare.
    """
    found = [_find(name, places) for name in (one, other)]
    if found[0] == found[1]:
        raise UserError(f"expected two different optimizers, got {one} and {other}, the same one")
    experiments = list(dict.fromkeys(experiment for experiment, _ in found))
    records = [
        dataclasses.replace(run, optimizer=_full(run.optimizer, name, experiments))
        for name in experiments
        for run in places.runs(name)
    ]
    labels = [_full(label, experiment, experiments) for experiment, label in found]
    kept, left_out = _same_budgets(records, labels)
    try:
        setters = places.suite.targets.setters or None
        result = versus(kept, *labels, mixed_machines=mixed_machines, setters=setters)
    except ValueError as error:
        raise UserError(" ".join([str(error), *left_out])) from error
    print(" ".join([result.text, *left_out]))
    print()
    for name, data in result.files.items():
        path = out / name
        with write_errors(f"the plot to {out}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, masked_file(data))
        print(f"plot     {path}")
    return 0


def _find(name: str, places: Places) -> tuple[str, str]:
    """Experiment and label that a name stands for.

    Raises:
        UserError: there is no such optimizer, or several.
    """
    experiment, separator, rest = name.partition(":")
    try:
        runs = places.runs(places.default) if places.may_have(places.default) else []
    except UserError:  # a store of several experiments, and none is named
        if not separator:
            raise
        runs = []
    label = _label(name, runs)
    if label is not None:
        return places.default, label
    if separator and places.may_have(experiment):
        runs = places.runs(experiment)
        label = _label(rest, runs)
        if label is not None:
            return experiment, label
        raise UserError(f"experiment {experiment}: {unknown('optimizer', rest, _labels(runs))}")
    others = [one for one in places.experiments if one != places.default]
    if name in others:
        labels = ", ".join(_labels(places.runs(name)))
        raise UserError(f"{name} is an experiment: expected {name}:OPTIMIZER, one of {labels}")
    hint = f"; or EXPERIMENT:OPTIMIZER, an experiment of {', '.join(others)}" if others else ""
    raise UserError(f"{unknown('optimizer', name, _labels(runs))}{hint}")


def _label(name: str, runs: Sequence[RunRecord]) -> str | None:
    """The label that a name stands for; None for none.

    Raises:
        UserError: a registry name with several variants.
    """
    if name in (labels := _labels(runs)):
        return name
    registered = {run.optimizer for run in runs if run.tags.get(schema.OPTIMIZER_NAME) == name} or {
        label for label in labels if label.startswith(f"{name}[")
    }
    if len(registered) > 1:
        raise UserError(
            f"{name}: expected one variant, got several: {', '.join(sorted(registered))}"
        )
    return next(iter(registered), None)


def _labels(runs: Sequence[RunRecord]) -> list[str]:
    return sorted({run.optimizer for run in runs})


def _full(label: str, experiment: str, experiments: Sequence[str]) -> str:
    """The label, with its experiment where there are two."""
    return f"{experiment}:{label}" if len(experiments) > 1 else label


def _same_budgets(
    records: Sequence[RunRecord], labels: Sequence[str]
) -> tuple[list[RunRecord], list[str]]:
    """The runs under budgets that both optimizers had, and sentences on workloads left out.

    Of several such budgets of a workload, the one with the most runs counts.
    """
    kept, left_out = [], []
    for key in sorted({(run.condition, run.workload) for run in records}):
        here = [run for run in records if (run.condition, run.workload) == key]
        budgets = [{run.budget for run in here if run.optimizer == label} for label in labels]
        runs = Counter(run.budget for run in here if run.budget in budgets[0] & budgets[1])
        if runs:
            chosen = max(runs, key=lambda budget: (runs[budget], budget))
            kept += [run for run in here if run.budget == chosen]
        elif all(budgets):
            told = " and ".join(", ".join(f"{b:g}" for b in sorted(some)) for some in budgets)
            left_out.append(
                f"Left out: {key[1]} under {key[0]} control, whose budgets differ ({told})."
            )
    return kept, left_out
