"""Suites: which workloads, optimizers, seeds and conditions make up a race.

Boundary: reads presets and suites and plans runs; ``race`` makes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from timetrial.framework import config as configuration
from timetrial.framework.budget import Budget
from timetrial.framework.config import ConfigError, RunConfig, Tracking
from timetrial.framework.registry import Registry
from timetrial.framework.types import Condition
from timetrial.optimizers import OPTIMIZERS
from timetrial.workloads import WORKLOADS

PRESETS_DIRECTORY = Path(__file__).parent / "presets"
SUITES_DIRECTORY = Path(__file__).parent / "suites"

HPO = "hpo"
"""Name in suites of the reference optimizer: on each workload the one that its preset says."""


@dataclasses.dataclass(frozen=True)
class Suite:
    """A race: every optimizer on every workload with every seed.

    Attributes:
        name: file name of the suite, without ending.
        summary: what it is, in one line.
        presets: directory of run presets; workload W runs under preset ``<presets>/W``.
        workloads: names of workloads.
        optimizers: names of optimizers; ``all`` takes every built-in one, and ``hpo`` where
            every workload has a tuned preset.
        seeds: one run per seed.
        conditions: ``step`` (the preset's budget), ``time``, or both.
        calibrations: directory of calibration files; workload W's time budget is that of
            ``<calibrations>/W.yaml``. "" takes the seconds of the pacemaker's step budget.
        seconds_per_run: expected wall time of a run on 2 cores, for the estimate in the plan.
        hpo: directory of the tuned presets, one per workload, as ``timetrial tune --export`` writes
            them: ``hpo`` is what they say of the optimizer. Relative to the presets of this
            package; "" leaves the row out.
    """

    name: str
    summary: str
    presets: str
    workloads: tuple[str, ...]
    optimizers: tuple[str, ...] = ("all",)
    seeds: tuple[int, ...] = (0, 1, 2)
    conditions: tuple[str, ...] = (Condition.STEP,)
    calibrations: str = ""
    seconds_per_run: float = 0.0
    hpo: str = ""

    def __post_init__(self) -> None:
        _check_entries(WORKLOADS, self.workloads)
        _check_entries(OPTIMIZERS, self.optimizers, (HPO, "all"))
        untuned = self._untuned()
        if HPO in self.optimizers and untuned:
            raise ValueError(
                f"optimizers: {HPO}: expected a tuned preset for every workload, found none at "
                f"{self.tuned(untuned[0])}; make one with: timetrial tune workload={untuned[0]} "
                "optimizer=NAME --export FILE, and name its directory in hpo="
            )
        _check_names("conditions", "condition", self.conditions, [Condition.STEP, Condition.TIME])
        if not self.seeds:
            raise ValueError("seeds: expected at least one, as in seeds=[0,1,2], got none")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected different ones, got {list(self.seeds)}")

    def optimizer_names(self) -> tuple[str, ...]:
        """The optimizers, with ``all`` spelled out: built-in ones in registry order, then others.

        ``all`` holds no plug-ins: what a suite is does not depend on what else is installed.
        """
        known = (*OPTIMIZERS.built_in, HPO)
        if "all" in self.optimizers:
            chosen = known[:-1] if self._untuned() else known
        else:
            chosen = tuple(name for name in known if name in self.optimizers)
        others = [name for name in self.optimizers if name not in (*known, "all")]
        return (*chosen, *dict.fromkeys(others))

    def _untuned(self) -> list[str]:
        """Workloads without a tuned preset: all of them where no directory is named."""
        return [name for name in self.workloads if not (self.hpo and self.tuned(name).exists())]

    def tuned(self, workload: str) -> Path:
        """The tuned preset of a workload, whether it exists or not."""
        return PRESETS_DIRECTORY / self.hpo / f"{workload}.yaml"

    def calibration(self, workload: str) -> str | None:
        """The calibration file of a workload, where the suite takes its budgets from files."""
        return str(Path(self.calibrations) / f"{workload}.yaml") if self.calibrations else None


def _check_entries(
    registry: Registry[Any], names: Sequence[str], words: Sequence[str] = ()
) -> None:
    """Checks names of a registry, or of ``words``; a plug-in must be usable."""
    unknown = [name for name in names if name not in words and registry.get(name) is None]
    if unknown or not names:
        _check_names(f"{registry.what}s", registry.what, unknown, [*registry, *words])


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


PACEMAKER = "heavy_ball"
"""The optimizer whose seconds for the step budget are the suite's time budget."""


def plan(
    suite: Suite, tracking: Tracking, workload: str, time_budget: float | None = None
) -> list[RunConfig]:
    """The runs of a suite on one workload, seeds innermost, so that programs are reused.

    An optimizer that does not look at its budget serves both conditions in one run.

    Args:
        suite: the suite.
        tracking: where the runs are recorded.
        workload: one of the suite's.
        time_budget: seconds of the time condition; not needed without that condition.
    """
    runs: list[RunConfig] = []
    seconds, file = time_budget or 1.0, suite.calibration(workload)
    pace = configuration.digest(pacemaker(suite, tracking, workload))
    for optimizer in suite.optimizer_names():
        for seed in suite.seeds:
            base = stepped(suite, tracking, workload, optimizer, seed)
            entry = OPTIMIZERS[base.optimizer.name]
            timed = dataclasses.replace(base, budget=Budget(seconds=seconds, calibration=file))
            looks_at_budget = entry.needs_steps or entry.needs_feed
            if suite.conditions == (Condition.TIME,):
                runs.append(timed)
            elif Condition.TIME not in suite.conditions:
                runs += [] if entry.needs_feed else [base]
            elif looks_at_budget:
                runs += [timed] if entry.needs_feed else [base, timed]
            elif file is None and configuration.digest(base) == pace:
                runs.append(base)
            else:
                both = dataclasses.replace(base.budget, also_seconds=seconds, calibration=file)
                runs.append(dataclasses.replace(base, budget=both))
    return runs


def stepped(
    suite: Suite, tracking: Tracking, workload: str, optimizer: str, seed: int
) -> RunConfig:
    """One run of a suite under its step budget."""
    words = [f"preset={suite.presets}/{workload}", f"seed={seed}"]
    words += _tuned_words(suite, workload) if optimizer == HPO else [f"optimizer={optimizer}"]
    return dataclasses.replace(load_run(words), tracking=tracking)


def _tuned_words(suite: Suite, workload: str) -> list[str]:
    """What the tuned preset of a workload says of the optimizer; the rest is the suite's."""
    path = suite.tuned(workload)
    tree = configuration.read_yaml(path)
    name = tree.get("workload", {}).get("name")
    if name != workload or "name" not in tree.get("optimizer", {}):
        raise ConfigError(f"{path}: expected workload {workload} and an optimizer, got {name}")
    optimizer = dict(tree["optimizer"])
    chosen = [f"label={HPO}", f"optimizer={optimizer.pop('name')}"]
    return chosen + [f"optimizer.{key}={value}" for key, value in optimizer.items()]


def pacemaker(suite: Suite, tracking: Tracking, workload: str) -> RunConfig:
    """The run that sets the time budget of a workload."""
    return stepped(suite, tracking, workload, PACEMAKER, suite.seeds[0])


def load_run(overrides: Sequence[str]) -> RunConfig:
    """A RunConfig from overrides, with the registries and presets of this package."""
    return configuration.load(
        overrides, workloads=WORKLOADS, optimizers=OPTIMIZERS, presets=presets()
    )
