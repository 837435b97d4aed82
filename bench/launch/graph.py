"""The runs of a suite as jobs, and which of them wait for another one.

Pure: a suite and its time budgets in, jobs out. ``queue`` keeps them, ``worker`` makes them.

A workload's reference run comes first where it sets the time budget. The runs under that budget are
no jobs before: their configurations, and so their identities, hold its seconds. Among them the
first trial of an optimizer that must be told its steps comes before the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

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
    jobs: dict[str, Job] = {}
    for workload in suite.workloads:
        runs = known_runs(suite, tracking, workload, seconds.get(workload))
        plan = Plan([config for config, _ in runs])
        for (config, tags), digest in zip(runs, plan.digests, strict=True):
            if digest not in jobs:
                jobs[digest] = _job(suite, config, digest, tags, plan, len(jobs), pool)
    return list(jobs.values())


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


def _job(
    suite: Suite,
    config: RunConfig,
    digest: str,
    tags: Mapping[str, str],
    plan: Plan,
    position: int,
    pool: str,
) -> Job:
    trials = plan.first_trials(config)
    waits = bool(trials) and plan.digests.index(trials[0]) < plan.digests.index(digest)
    tree = configuration.tree_of(config)
    del tree["tracking"]
    timed = config.budget.limit_seconds is not None or schema.SETS_TIME_BUDGET in tags
    return Job(
        digest,
        run_name(config),
        yaml_of(tree),
        position,
        after=trials[0] if waits else "",
        told_by=tuple(trials),
        tags={schema.SUITE: suite.name, **tags},
        pool=pool if timed else "",
    )


class Plan:
    """The runs of a suite on one workload, in order, with their identities.

    Args:
        configs: the runs.
    """

    def __init__(self, configs: Sequence[RunConfig]) -> None:
        self.digests = [configuration.digest(config) for config in configs]
        self._timed: dict[tuple[str, Budget], list[tuple[RunConfig, str]]] = {}
        for config, digest in zip(configs, self.digests, strict=True):
            key = (config.optimizer.name, config.budget)
            self._timed.setdefault(key, []).append((config, digest))

    def first_trials(self, config: RunConfig) -> list[str]:
        """Digests of the trials whose steps a run is told; none if it needs no number of steps.

        They are those of the optimizer's ``steps_from``: for VeLO Short those of VeLO (Table 7 of
        the paper, last row). If that is not raced, they are the optimizer's own.
        """
        entry = OPTIMIZERS[config.optimizer.name]
        if not lacks_steps(entry, config):
            return []
        sources = self._timed.get((entry.steps_from or "", config.budget), [])
        own = self._timed.get((config.optimizer.name, config.budget), [])
        alike = [(c, d) for c, d in own if c != config and but_seed(c) == but_seed(config)]
        return [digest for trial, digest in sources or alike if trial != config]


def but_seed(config: RunConfig) -> RunConfig:
    """A configuration with the seed left out of comparisons."""
    return dataclasses.replace(config, seed=0)
