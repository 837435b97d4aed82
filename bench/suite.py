"""Suites: the matrix of workloads, optimizers, seeds and conditions, raced one run at a time.

Boundary: decides which runs to make and in which order; ``experiment.run`` makes one. Runs never
overlap, because runs that share cores have no valid timing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from framework import config as configuration
from framework.config import ConfigError, RunConfig, Tracking
from bench.experiment import Workshop, run
from bench.progress import Display
from framework.types import UserError
from optimizers import OPTIMIZERS
from tracking import schema
from tracking.query import finished_configs
from tracking.mlflow_tracker import close_stale_runs
from tracking.store import Store
from workloads import WORKLOADS

PRESETS_DIRECTORY = Path(__file__).parent / "presets"
SUITES_DIRECTORY = Path(__file__).parent / "suites"


@dataclasses.dataclass(frozen=True)
class Suite:
    """A race: every optimizer on every workload with every seed.

    Attributes:
        name: file name of the suite, without ending.
        summary: what it is, in one line.
        presets: directory of run presets; workload W runs under preset ``<presets>/W``.
        workloads: names of workloads.
        optimizers: names of optimizers; ``["all"]`` takes every registered one.
        seeds: one run per seed.
        conditions: ``step`` (the preset's budget), ``time``, or both.
        minutes: expected length in minutes on the machine that the summary names.
    """

    name: str
    summary: str
    presets: str
    workloads: tuple[str, ...]
    optimizers: tuple[str, ...] = ("all",)
    seeds: tuple[int, ...] = (0, 1, 2)
    conditions: tuple[str, ...] = ("step",)
    minutes: float = 0.0

    def __post_init__(self) -> None:
        _check_names("workloads", "workload", self.workloads, WORKLOADS)
        _check_names("optimizers", "optimizer", self.optimizers, [*OPTIMIZERS, "all"])
        _check_names("conditions", "condition", self.conditions, ["step", "time"])
        if not self.seeds:
            raise ValueError("seeds: expected at least one, as in seeds=[0,1,2], got none")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected different ones, got {list(self.seeds)}")

    def optimizer_names(self) -> tuple[str, ...]:
        """The optimizers, with ``all`` spelled out, in registry order."""
        if "all" in self.optimizers:
            return tuple(OPTIMIZERS)
        return tuple(name for name in OPTIMIZERS if name in self.optimizers)


def _check_names(key: str, what: str, names: Sequence[str], known: Collection[str]) -> None:
    if not names:
        raise ValueError(f"{key}: expected at least one of {', '.join(known)}, got none")
    for name in names:
        if name not in known:
            raise ValueError(configuration.unknown(what, name, known))


def presets() -> dict[str, Path]:
    """File of every run preset, by name (``quick/flights_dlrm``)."""
    return _yaml_files(PRESETS_DIRECTORY)


def suites() -> dict[str, Path]:
    """File of every suite, by name."""
    return _yaml_files(SUITES_DIRECTORY)


def _yaml_files(directory: Path) -> dict[str, Path]:
    found = sorted(directory.rglob("*.yaml"))
    return {path.relative_to(directory).with_suffix("").as_posix(): path for path in found}


def load_suite(overrides: Sequence[str]) -> tuple[Suite, Tracking]:
    """Reads ``suite=NAME`` and lays the other overrides over it (``seeds=[0] optimizers=[adam]``).

    Raises:
        ConfigError: unknown suite, key, workload or optimizer; wrong type.
    """
    given = configuration.parse(overrides)
    name = str(given.pop("suite", "quick"))
    if name not in suites():
        raise ConfigError(configuration.unknown("suite", name, suites()))
    tracking = {"experiment": f"timetrial-{name}", **(given.pop("tracking", None) or {})}
    tree = {"name": name, **configuration.read_yaml(suites()[name]), **given}
    return (
        configuration.convert(tree, Suite, ""),
        configuration.convert(tracking, Tracking, "tracking"),
    )


def plan(suite: Suite, tracking: Tracking) -> list[RunConfig]:
    """All runs of a suite, seeds innermost, so that each program is compiled once."""
    configs = [
        load_run([f"preset={suite.presets}/{workload}", f"optimizer={optimizer}", f"seed={seed}"])
        for workload in suite.workloads
        for optimizer in suite.optimizer_names()
        for seed in suite.seeds
    ]
    return [dataclasses.replace(config, tracking=tracking) for config in configs]


def load_run(overrides: Sequence[str]) -> RunConfig:
    """A RunConfig from overrides, with the registries and presets of this package."""
    return configuration.load(
        overrides, workloads=WORKLOADS, optimizers=OPTIMIZERS, presets=presets()
    )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a suite.

    Attributes:
        made: runs made now.
        skipped: runs that were recorded as finished before.
        failed: (name, error) of the runs that raised.
    """

    made: int
    skipped: int
    failed: Sequence[tuple[str, str]]


def race(suite: Suite, tracking: Tracking, store: Store, display: Display) -> Outcome:
    """Makes every run of the suite that is not recorded as finished yet.

    A run that raises is recorded as FAILED and the race goes on; Ctrl-C ends it, and the same
    command continues it later.
    """
    configs = plan(suite, tracking)
    close_stale_runs(store, tracking.experiment)
    done = finished_configs(store, tracking.experiment)
    todo = [config for config in configs if configuration.digest(config) not in done]
    display.race(suite.summary, total=len(configs), skipped=len(configs) - len(todo))
    workshop, failed = Workshop(), []
    for config in todo:
        watch = display.run(config)
        try:
            result = run(config, store, workshop, watch=watch, tags={schema.SUITE: suite.name})
            display.done(config, result)
        except UserError:
            raise
        except Exception as error:  # whatever one run dies of, the others go on
            failed.append((display.name(config), f"{type(error).__name__}: {error}"))
            display.failed(config, error)
    return Outcome(len(todo) - len(failed), len(configs) - len(todo), failed)
