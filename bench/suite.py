"""Suites: the workloads, optimizers, seeds and conditions of a race, and its planned runs.

Boundary: reads presets and suites; ``race`` makes the runs.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from timetrial.framework import config as configuration
from timetrial.framework.budget import Budget
from timetrial.framework.config import ConfigError, RunConfig, Tracking, Tree
from timetrial.framework.convert import fields_of
from timetrial.framework.paths import UserPath, is_file_name
from timetrial.framework.ranges import check
from timetrial.framework.registry import Registry
from timetrial.framework.types import Condition
from timetrial.optimizers import OPTIMIZERS
from timetrial.workloads import WORKLOADS

PRESETS_DIRECTORY = Path(__file__).parent / "presets"
SUITES_DIRECTORY = Path(__file__).parent / "suites"

NEEDS = ("gpu", "google_weights")
"""What the runs of a suite may need besides data."""

REGULARISATION = ("dropout_rate", "label_smoothing")
"""Settings of a workload that are tuned with an optimizer, as in AlgoPerf's search spaces."""

HPO = "hpo"
"""Name of the tuned optimizer in suites, read from each workload's tuned preset."""


@dataclasses.dataclass(frozen=True)
class TargetSettings:
    """How the targets of a race are set.

    Attributes:
        setters: labels of the optimizers that set targets, with or without variant. Empty stands
            for the baselines and ``velo``: tuned optimizers, ``velo_short`` and ``velo_feed`` set
            none.
        file: file of fixed targets, as for ``timetrial report --targets``; "" establishes them
            from the runs of the race.
    """

    setters: tuple[str, ...] = ()
    file: UserPath = ""


@dataclasses.dataclass(frozen=True)
class Suite:
    """A race: every optimizer on every workload with every seed.

    Directories are relative to the presets of this package. Directories beside a suite file come
    first.

    Attributes:
        name: file name of the suite, without ending; its report is written to that directory.
        summary: one line for ``timetrial list``.
        presets: directory of run presets; workload W runs under preset ``<presets>/W``.
        workloads: names of workloads.
        optimizers: names of optimizers; ``all`` stands for every built-in one, and for ``hpo`` if
            every workload has a tuned preset.
        seeds: one run per seed, each in [0, 2**32).
        conditions: ``step`` (the preset's budget), ``time``, or both.
        calibrations: directory of calibration files, relative to the working directory;
            ``<calibrations>/W.yaml`` holds the time budget of workload W. "" takes the charged
            seconds of the reference run.
        seconds_per_run: expected wall time of a run, for the estimate in the plan.
        hours: expected hours of a run by workload, where they differ much; instead of
            ``seconds_per_run``.
        machine: machine of these times, in words.
        needs: what every run needs besides data: ``gpu``, ``google_weights``.
        targets: how the targets of the race are set.
        r_max: upper limit of the score's integral, > 1; null takes 3 for time and 1.5 for steps,
            which reproduce the paper.
        hpo: directory of the tuned presets of ``hpo``, one per workload, written by
            ``timetrial tune --export``. "" leaves the row out.
    """

    name: str
    summary: str
    presets: UserPath
    workloads: tuple[str, ...]
    optimizers: tuple[str, ...] = ("all",)
    seeds: tuple[int, ...] = (0, 1, 2)
    conditions: tuple[str, ...] = (Condition.STEP,)
    calibrations: UserPath = ""
    seconds_per_run: float = 0.0
    hours: Mapping[str, float] = dataclasses.field(default_factory=dict)
    machine: str = "2 idle cores"
    needs: tuple[str, ...] = ()
    targets: TargetSettings = TargetSettings()
    r_max: float | None = None
    hpo: UserPath = ""

    def __post_init__(self) -> None:
        if not is_file_name(self.name):
            raise ValueError(f"name: expected one fit for a file name, got {self.name[:80]!r}")
        _check_entries(WORKLOADS, self.workloads)
        _check_entries(OPTIMIZERS, self.optimizers, (HPO, "all"))
        if not self.optimizer_names():
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.left_out().items())
            raise ValueError(f"optimizers: expected one that can run here, got {reasons}")
        self._check_presets()
        untuned = self._untuned()
        if HPO in self.optimizers and untuned:
            raise ValueError(
                f"optimizers: {HPO}: expected a tuned preset for every workload, found none at "
                f"{self.tuned(untuned[0])}; make one with: timetrial tune workload={untuned[0]} "
                "optimizer=NAME --export FILE, and name its directory in hpo="
            )
        _check_names("conditions", "condition", self.conditions, [Condition.STEP, Condition.TIME])
        check(self, seconds_per_run=">= 0", r_max="> 1")
        _check_hours(self.hours)
        if self.needs:
            _check_names("needs", "need", self.needs, NEEDS)
        if self.targets.file and not os.path.isfile(self.targets.file):
            raise ValueError(f"targets.file: expected a file, found none at {self.targets.file}")
        if not self.seeds:
            raise ValueError("seeds: expected at least one, as in seeds=0,1,2, got none")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected different ones, got {list(self.seeds)}")
        if not 0 <= min(self.seeds) <= max(self.seeds) < 2**32:
            raise ValueError(f"seeds: expected numbers in [0, 2**32), got {list(self.seeds)}")

    def expected_seconds(self, workload: str) -> float:
        """Expected wall time of a run on a workload; 0 if unknown."""
        return 3600 * self.hours[workload] if workload in self.hours else self.seconds_per_run

    def _check_presets(self) -> None:
        """Raises if the directory lacks the preset of a workload."""
        missing = [name for name in self.workloads if not os.path.isfile(self.preset(name))]
        if missing:
            known = sorted({name.rpartition("/")[0] for name in presets()} - {""})
            raise ValueError(
                f"presets: expected a directory with {missing[0]}.yaml, got {self.presets!r}. "
                f"Known: {', '.join(known)}"
            )

    def optimizer_names(self) -> tuple[str, ...]:
        """The optimizers, with ``all`` spelled out: built-in ones in registry order, then others.

        ``all`` excludes plug-ins: a suite does not depend on other installed packages. Optimizers
        that cannot run here are left out.
        """
        left_out = self.left_out()
        return tuple(name for name in self._named() if name not in left_out)

    def left_out(self) -> dict[str, str]:
        """The optimizers that cannot run here, each with the reason."""
        reasons = {
            name: OPTIMIZERS.listed(name).unavailable() for name in self._named() if name != HPO
        }
        return {name: reason for name, reason in reasons.items() if reason}

    def _named(self) -> tuple[str, ...]:
        """The optimizers, with ``all`` spelled out, available or not."""
        known = (*OPTIMIZERS.built_in, HPO)
        if "all" in self.optimizers:
            chosen = known[:-1] if self._untuned() else known
        else:
            chosen = tuple(name for name in known if name in self.optimizers)
        others = [name for name in self.optimizers if name not in (*known, "all")]
        return (*chosen, *dict.fromkeys(others))

    def _untuned(self) -> list[str]:
        """Workloads without a tuned preset: all of them if there is no directory."""
        tuned = {name for name in self.workloads if self.hpo and os.path.isfile(self.tuned(name))}
        return [name for name in self.workloads if name not in tuned]

    def preset(self, workload: str) -> Path:
        """File of a workload's run preset."""
        return PRESETS_DIRECTORY / self.presets / f"{workload}.yaml"

    def tuned(self, workload: str) -> Path:
        """File of a workload's tuned preset; it may be missing."""
        return PRESETS_DIRECTORY / self.hpo / f"{workload}.yaml"

    def calibration(self, workload: str) -> str | None:
        """The calibration file of a workload; None if the suite has no calibrations."""
        return str(Path(self.calibrations) / f"{workload}.yaml") if self.calibrations else None


def _check_hours(hours: Mapping[str, float]) -> None:
    wrong = [name for name, value in hours.items() if not 0 < value < math.inf]
    if wrong:
        raise ValueError(f"hours.{wrong[0]}: expected a finite number > 0, got {hours[wrong[0]]}")


def _check_entries(
    registry: Registry[Any], names: Sequence[str], words: Sequence[str] = ()
) -> None:
    """Checks names of a registry, or of ``words``; a plug-in must be usable."""
    unknown = [name for name in names if name not in words and not _is_usable(registry, name)]
    if unknown or not names:
        _check_names(f"{registry.what}s", registry.what, unknown, [*registry, *words])


def _is_usable(registry: Registry[Any], name: str) -> bool:
    """Whether a name is known; imports plug-ins, and no entry of this package.

    Raises:
        PluginError: the plug-in of this name is not usable.
    """
    try:
        registry.listed(name)
    except KeyError:
        return False
    return True


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
    """Reads ``suite=NAME|FILE.yaml`` and applies the other words (``seeds=0``).

    Raises:
        ConfigError: an unknown suite, key, workload, optimizer or directory; a wrong type; a
            suite file without one of its keys.
    """
    given = configuration.parse(overrides)
    name = configuration.convert(given.pop("suite", "quick"), str, "suite")
    file = configuration.file_of("suite", name, suites())
    name = name if name in suites() else file.stem
    tracking = _tracking(given.pop("tracking", {}), name)
    parts = {"name": name, **_suite_file(file)}
    if "presets" in given:  # fixed targets belong to the budgets of their presets
        parts.pop("targets", None)
    parts |= _directories(fields_of(given, Suite, ""), (PRESETS_DIRECTORY, Path.cwd()))
    required = [
        field.name
        for field in dataclasses.fields(Suite)
        if field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing := [key for key in required if key not in parts]:
        raise ConfigError(f"{file}: expected the keys {', '.join(missing)}, too")
    suite: Suite = configuration.construct(Suite, parts, "")
    _check_calibrations(suite)
    return suite, tracking


def _check_calibrations(suite: Suite) -> None:
    """Raises if a calibration file of the suite does not exist."""
    for workload in suite.workloads if Condition.TIME in suite.conditions else ():
        file = suite.calibration(workload)
        if file is not None and not os.path.isfile(file):
            made = f"timetrial calibrate {workload}"
            raise ConfigError(f"calibrations: expected a file {file}; make it with: {made}")


def _tracking(given: Any, suite: str) -> Tracking:
    """Tracking of a suite, by default in its own experiment."""
    if isinstance(given, dict):
        given = {"experiment": f"timetrial-{suite}", **given}
    tracking: Tracking = configuration.convert(given, Tracking, "tracking")
    return tracking


def _suite_file(file: Path) -> dict[str, Any]:
    """The settings in a suite file; directories beside it come before those of this package."""
    parts = fields_of(configuration.read_yaml(file), Suite, "")
    beside = file.absolute().parent
    parts = _directories(parts, (beside,), ("calibrations",))
    targets = parts.get("targets", TargetSettings())
    if targets.file and os.path.isfile(beside / targets.file):
        parts["targets"] = dataclasses.replace(targets, file=str(beside / targets.file))
    return _directories(parts, (beside, PRESETS_DIRECTORY))


def _directories(
    parts: dict[str, Any], places: Sequence[Path], keys: Sequence[str] = ("presets", "hpo")
) -> dict[str, Any]:
    """Settings with each directory taken from the first place that has it."""
    found = dict(parts)
    for key in keys:
        if name := parts.get(key):
            existing = [place / name for place in places if os.path.isdir(place / name)]
            if existing and existing[0] != PRESETS_DIRECTORY / name:
                found[key] = str(existing[0])
    return found


PACEMAKER = "heavy_ball"
"""Optimizer of the reference run; its charged seconds under the step budget are the time budget."""


def plan(
    suite: Suite, tracking: Tracking, workload: str, time_budget: float | None = None
) -> list[RunConfig]:
    """The runs of a suite on one workload, seeds innermost, so that programs are reused.

    An optimizer that ignores its budget gets one run for both conditions.

    Args:
        suite: the suite.
        tracking: store and experiment of the runs.
        workload: one of the suite's.
        time_budget: charged seconds of the time condition, > 0; None if not known yet.

    Raises:
        ConfigError: the preset has no step budget, and the suite needs one.
    """
    runs: list[RunConfig] = []
    reference, file = pacemaker(suite, tracking, workload), suite.calibration(workload)
    fixed = reference.budget.seconds
    seconds = time_budget or fixed or 1.0
    if fixed is not None and Condition.STEP in suite.conditions:
        raise ConfigError(
            f"{suite.preset(workload)}: expected budget.steps for the condition step, "
            "got budget.seconds"
        )
    pace = configuration.digest(reference)
    for optimizer in suite.optimizer_names():
        first = stepped(suite, tracking, workload, optimizer, suite.seeds[0])
        for seed in suite.seeds:
            base = dataclasses.replace(first, seed=seed)
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
    preset = configuration.read_preset(suite.preset(workload))
    chosen = _tuned(suite, workload) if optimizer == HPO else {"optimizer": {"name": optimizer}}
    tree = configuration.merge(preset, {"seed": seed}, chosen)
    config = configuration.load_tree(tree, workloads=WORKLOADS, optimizers=OPTIMIZERS)
    return dataclasses.replace(config, tracking=tracking)


def _tuned(suite: Suite, workload: str) -> Tree:
    """Label, optimizer and regularisation of a workload's tuned preset; the rest is not used."""
    path = suite.tuned(workload)
    tree = configuration.read_preset(path)
    chosen, optimizer = tree.get("workload"), tree.get("optimizer")
    if not isinstance(chosen, dict) or chosen.get("name") != workload or "optimizer" not in tree:
        raise ConfigError(f"{path}: expected workload {workload} and an optimizer")
    regularised = {name: chosen[name] for name in REGULARISATION if name in chosen}
    return {"label": HPO, "optimizer": optimizer, "workload": regularised}


def pacemaker(suite: Suite, tracking: Tracking, workload: str) -> RunConfig:
    """The reference run: it sets the time budget of a workload, see ``sets_pace``."""
    return stepped(suite, tracking, workload, PACEMAKER, suite.seeds[0])


def sets_pace(suite: Suite, reference: RunConfig) -> bool:
    """True when the reference run sets the time budget: neither calibration nor preset does."""
    fixed = bool(suite.calibrations) or reference.budget.seconds is not None
    return Condition.TIME in suite.conditions and not fixed


def load_run(overrides: Sequence[str]) -> RunConfig:
    """A RunConfig from overrides, with the registries and presets of this package."""
    return configuration.load(
        overrides, workloads=WORKLOADS, optimizers=OPTIMIZERS, presets=presets()
    )
