"""The runs of a suite as jobs, and which of them wait for another one.

Pure: a suite and its time budgets in, jobs out. ``queue`` keeps them, ``worker`` makes them.

A workload's reference run comes first where it sets the time budget. The runs under that budget are
no jobs before: their configurations, and so their identities, hold its seconds. Among them the
first trial of an optimizer that must be told its steps comes before the others.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Final

from timetrial.bench import suite as suites
from timetrial.bench.naming import run_name
from timetrial.bench.suite import Suite
from timetrial.bench.workshop import lacks_steps
from timetrial.framework import config as configuration
from timetrial.framework.budget import Budget
from timetrial.framework.config import ConfigError, RunConfig, Tracking
from timetrial.framework.errors import UserError
from timetrial.framework.types import Condition
from timetrial.framework.yaml_files import parse_yaml, yaml_of
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.record import schema
from timetrial.workloads import WORKLOADS

MOST_TRIALS: Final = 8
"""Trials that may tell a run its steps; if all of them diverged, the steps are measured."""

_Group = list[tuple[RunConfig, str]]


@dataclasses.dataclass(frozen=True)
class Job:
    """One run to make, on any machine.

    Attributes:
        digest: identity of its configuration.
        name: displayed name.
        settings: its configuration as YAML, without the place of record.
        position: place in the order of the race, from 0.
        after: digest of a run that must have ended first; "" for none.
        told_by: digests of the trials that tell it its steps, the preferred one first.
        tags: further tags of the run.
        pool: pool of identical machines that may make it; "" for any machine.
    """

    digest: str
    name: str
    settings: str
    position: int
    after: str = ""
    told_by: tuple[str, ...] = ()
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pool: str = ""

    @property
    def sets_budget(self) -> bool:
        """True for a reference run, whose seconds other runs take as their budget."""
        return schema.SETS_TIME_BUDGET in self.tags

    def config(self, tracking: Tracking) -> RunConfig:
        """The configuration, recorded at a place.

        Raises:
            ConfigError: this installation cannot read it, or reads another one: its version,
                plug-ins or weights differ.
        """
        differs = "its version of timetrial, a plug-in, a file or weights differ"
        try:
            tree = parse_yaml(self.settings, f"job {self.name}")
            config = configuration.load_tree(tree, workloads=WORKLOADS, optimizers=OPTIMIZERS)
        except UserError as error:
            text = f"{self.name}: not readable on this machine: {error}; {differs}"
            raise ConfigError(text) from error
        found = configuration.digest(config)
        if found != self.digest:
            raise ConfigError(
                f"{self.name}: expected the configuration {self.digest}, got {found} on this "
                f"machine: {differs}"
            )
        return dataclasses.replace(config, tracking=tracking)


def graph(
    suite: Suite, tracking: Tracking, seconds: Mapping[str, float | None], pool: str = ""
) -> list[Job]:
    """The jobs of a suite in the order of the race.

    Args:
        suite: the suite.
        tracking: experiment of the runs.
        seconds: time budget of each workload in charged seconds, > 0; None before its reference run
            has set it.
        pool: pool of the runs with time budgets; "" for none.
    """
    jobs: list[Job] = []
    for workload in dict.fromkeys(suite.workloads):
        for run in ordered(suite, tracking, workload, seconds.get(workload)):
            jobs.append(_job(suite, run, len(jobs), pool))
    return jobs


@dataclasses.dataclass(frozen=True)
class Ordered:
    """A run of a workload, and what it waits for.

    Attributes:
        config: its configuration.
        digest: identity of that.
        tags: further tags of the run.
        after, told_by: as for ``Job``.
    """

    config: RunConfig
    digest: str
    tags: Mapping[str, str]
    after: str
    told_by: tuple[str, ...]


def ordered(
    suite: Suite, tracking: Tracking, workload: str, seconds: float | None
) -> list[Ordered]:
    """The runs of a workload in order, each once; arguments as for ``graph``."""
    known = known_runs(suite, tracking, workload, seconds)
    plan = Plan([config for config, _ in known])
    found: dict[str, Ordered] = {}
    for (config, tags), digest in zip(known, plan.digests, strict=True):
        if digest in found:
            continue
        trials = plan.first_trials(config)
        after = trials[0] if trials and trials[0] in found else ""
        found[digest] = Ordered(config, digest, tags, after, tuple(trials))
    return list(found.values())


def known_runs(
    suite: Suite, tracking: Tracking, workload: str, seconds: float | None
) -> list[tuple[RunConfig, Mapping[str, str]]]:
    """The runs of a workload whose configurations are known, each with its tags, in order."""
    runs: list[tuple[RunConfig, Mapping[str, str]]] = []
    reference = suites.pacemaker(suite, tracking, workload)
    if suites.sets_pace(suite, reference):
        runs.append((reference, {schema.SETS_TIME_BUDGET: "true"}))
    if seconds is not None or Condition.TIME not in suite.conditions:
        runs += [(config, {}) for config in suites.plan(suite, tracking, workload, seconds)]
    return runs


def _job(suite: Suite, run: Ordered, position: int, pool: str) -> Job:
    config = run.config
    tree = configuration.tree_of(config)
    del tree["tracking"]
    timed = config.budget.limit_seconds is not None or schema.SETS_TIME_BUDGET in run.tags
    return Job(
        run.digest,
        run_name(config),
        yaml_of(tree),
        position,
        after=run.after,
        told_by=run.told_by,
        tags={schema.SUITE: suite.name, **run.tags},
        pool=pool if timed else "",
    )


class Plan:
    """The runs of a suite on one workload, in order, with their identities.

    Args:
        configs: the runs.
    """

    def __init__(self, configs: Sequence[RunConfig]) -> None:
        self.digests = [configuration.digest(config) for config in configs]
        self._groups: dict[tuple[str, Budget], list[_Group]] = {}
        for config, digest in zip(configs, self.digests, strict=True):
            group = self._group(config)
            group.append((config, digest))
            if len(group) == 1:
                self._groups.setdefault((config.optimizer.name, config.budget), []).append(group)

    def first_trials(self, config: RunConfig) -> list[str]:
        """Digests of the trials whose steps a run is told; none if it needs no number of steps.

        They are those of the optimizer's ``steps_from``: for VeLO Short those of VeLO (Table 7 of
        the paper, last row). If that is not raced, they are the optimizer's own. Of many trials
        the first ``MOST_TRIALS`` are enough: one that did not diverge tells the steps.
        """
        entry = OPTIMIZERS[config.optimizer.name]
        if not lacks_steps(entry, config):
            return []
        sources = self._groups.get((entry.steps_from or "", config.budget), [])
        trials = itertools.chain.from_iterable(sources) if sources else iter(self._group(config))
        others = (digest for trial, digest in trials if trial != config)
        return list(itertools.islice(others, MOST_TRIALS))

    def _group(self, config: RunConfig) -> _Group:
        """The runs that differ from a run in nothing but the seed; a new list without any."""
        for group in self._groups.get((config.optimizer.name, config.budget), []):
            if but_seed(group[0][0]) == but_seed(config):
                return group
        return []


def but_seed(config: RunConfig) -> RunConfig:
    """A configuration with the seed left out of comparisons."""
    return dataclasses.replace(config, seed=0)
