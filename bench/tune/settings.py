"""Reads and checks the settings, search space and points of a study.

Boundary: reads presets and files; independent of optuna and storages.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timetrial.bench.resuming import checkpoint_root
from timetrial.bench.suite import load_run
from timetrial.bench.tune import space as spaces
from timetrial.bench.tune.points import SEARCHES, points
from timetrial.bench.tune.space import Point
from timetrial.bench.workshop import Workshop
from timetrial.framework import config as configuration
from timetrial.framework.config import ConfigError, RunConfig
from timetrial.framework.errors import UserError
from timetrial.framework.paths import UserPath, UserUri, is_file_name, own_name
from timetrial.framework.spaces import Space
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.record import schema
from timetrial.workloads import WORKLOADS

OBJECTIVES = ("best", "final", "time_to_target")
PRUNERS = ("none", "median", "hyperband")
DIVERGED = ("fail", "bad")
DEFAULT_TRIALS = 20
MOST_TRIALS = 10_000
_LONGEST_NAME = 200  # bytes; file systems allow 255

TPE = {"n_startup_trials": 10, "n_ei_candidates": 24, "group": False, "constant_liar": True}
"""Arguments of optuna's TPESampler: pinned, because its defaults changed from 4 to 5."""


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """Settings of a study, ``study.KEY`` on the command line.

    Attributes:
        name: identity in the storage; by default made of workload, optimizer, search and seed.
        trials: trials in all, those of earlier commands included, from 1 to 10,000; by default 20,
            or as many as there are points.
        search: source of the points: ``sobol``, ``halton``, ``algoperf_halton``, ``random``,
            ``tpe`` or ``points``.
        points: JSON file with a list of points; implies ``search=points``.
        space: YAML or JSON file with a search space; by default the optimizer's own.
        regularisation: also search the workload's settings in AlgoPerf's spaces.
        seed: seed of the search, in [0, 2**32); the runs' own is ``seed``.
        objective: ``best`` or ``final`` validation metric, or ``time_to_target``.
        pruning: ``none``, ``median`` or ``hyperband``.
        diverged: ``fail`` gives a diverged trial no value, ``bad`` a bad one (``trial.verdict``).
        storage: URL of a database, or ``journal:PATH``; by default a sqlite file in tracking.root.
        heartbeat_seconds: pause between two heartbeats of a worker, >= 1; a worker is dead after
            four missed ones.
    """

    name: str | None = None
    trials: int | None = None
    search: str = "sobol"
    points: UserPath | None = None
    space: UserPath | None = None
    regularisation: bool = False
    seed: int = 0
    objective: str = "best"
    pruning: str = "none"
    diverged: str = "fail"
    storage: UserUri | None = dataclasses.field(default=None, repr=False)
    heartbeat_seconds: int = 15

    def __post_init__(self) -> None:
        if self.trials is not None and self.trials < 1:
            raise ValueError(f"trials: expected a whole number >= 1, got {self.trials}")
        if self.trials is not None and self.trials > MOST_TRIALS:
            raise ValueError(f"trials: expected at most {MOST_TRIALS}, got {self.trials}")
        if self.heartbeat_seconds < 1:
            raise ValueError(f"heartbeat_seconds: expected >= 1, got {self.heartbeat_seconds}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed: expected a whole number in [0, 2**32), got {self.seed}")
        for key, allowed in (
            ("search", (*SEARCHES, "tpe", "points")),
            ("objective", OBJECTIVES),
            ("pruning", PRUNERS),
            ("diverged", DIVERGED),
        ):
            if getattr(self, key) not in allowed:
                message = f"{key}: expected one of {', '.join(allowed)}, got {getattr(self, key)!r}"
                raise ValueError(message)


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """A study with checked settings.

    Attributes:
        name: identity in the storage.
        settings: as the user gave them.
        config: the run of every trial, before its point is applied.
        space: the search space.
        trials: number of points.
        points: all points, or None if they depend on results.
        overrides: ``key=value`` words of the command.
    """

    name: str
    settings: StudySettings
    config: RunConfig
    space: Space
    trials: int
    points: Sequence[Point] | None
    overrides: Sequence[str]

    @property
    def storage(self) -> str:
        """URL of the study's storage."""
        return self.settings.storage or f"sqlite:///{self.root / 'studies.db'}"

    @property
    def root(self) -> Path:
        """Absolute directory of local files."""
        return Path(self.config.tracking.root).absolute()

    @property
    def minimized(self) -> bool:
        """Whether smaller objectives are better."""
        if self.settings.objective == "time_to_target":
            return True
        workload = WORKLOADS[self.config.workload.name].make(self.config.workload.settings)
        return workload.direction.value == "minimize"

    def directory(self, point: int) -> Path:
        """Directory of the checkpoints of a point: the same for every attempt at it."""
        return checkpoint_root(self.config.tracking.root) / own_name(self.name) / str(point)

    def identity(self) -> dict[str, Any]:
        """Settings that must not change while a study continues, as plain data."""
        tree = configuration.without_place(self.config)
        settings = self.settings
        return {
            "workload": tree.pop("workload"),
            "optimizer": tree.pop("optimizer"),
            "budget": tree.pop("budget"),
            "run": tree,
            "space": spaces.tree_of(self.space),
            "search": settings.search,
            "search_seed": settings.seed,
            "sampler": TPE if settings.search == "tpe" else {},
            "points": _digest(self.points) if settings.search == "points" else "",
            # AlgoPerf's list depends on the number of points.
            "trials": self.trials if settings.search == "algoperf_halton" else 0,
            "objective": settings.objective,
            "pruning": settings.pruning,
            "diverged": settings.diverged,
        }


def load_plan(overrides: Sequence[str]) -> StudyPlan:
    """Reads a study from the command's ``key=value`` words: ``study.KEY``, the rest as for a run.

    Given settings of the optimizer are not tuned.

    Raises:
        UserError: an unknown key, name or parameter, an impossible space or combination.
    """
    words = [word for word in overrides if word.startswith(("study.", "study="))]
    others = [word for word in overrides if word not in words]
    settings = _settings(configuration.parse(words).get("study", {}))
    config = _run(others)
    if OPTIMIZERS[config.optimizer.name].is_foreign:
        raise UserError(
            f"tune: optimizer {config.optimizer.name} makes whole updates by itself: its trials "
            "could not be continued; train it with one setting after the other"
        )
    _check_combination(settings, config)
    listed = _listed(settings, config)
    if listed is None:
        fixed = list(configuration.parse(others).get("optimizer", {}))
        space = _space(settings, config, fixed)
    else:
        space = spaces.space_of(listed)
    if listed is None or len(listed) > 1:
        spaces.check(space, config)
    _check_data(space, config)
    trials = settings.trials or (len(listed) if listed else DEFAULT_TRIALS)
    found = listed or _searched(space, settings, trials, config)
    name = settings.name or "-".join(
        [config.workload.name, config.optimizer.name, settings.search, str(settings.seed)]
    )
    return StudyPlan(name, settings, config, space, trials, found, tuple(overrides))


def _settings(tree: Any) -> StudySettings:
    """The settings of a study; a file of points sets ``search=points``."""
    settings: StudySettings = configuration.convert(tree, StudySettings, "study")
    if settings.points is None:
        return settings
    if "search" in tree and settings.search != "points":
        raise UserError(f"study.points goes with search=points, not {settings.search}")
    return dataclasses.replace(settings, search="points")


def _run(words: Sequence[str]) -> RunConfig:
    """The run of every trial, by default recorded in the experiment of studies."""
    config = load_run(words)
    if "experiment" in configuration.parse(words).get("tracking", {}):
        return config
    tracking = dataclasses.replace(config.tracking, experiment=schema.STUDIES)
    return dataclasses.replace(config, tracking=tracking)


def _listed(settings: StudySettings, config: RunConfig) -> list[Point] | None:
    """The checked points of a file; None if points are searched."""
    if settings.points is None:
        return None
    listed = spaces.checked_points(spaces.read_points(Path(settings.points)), config)
    if settings.trials is not None and settings.trials > len(listed):
        known = len(listed)
        raise UserError(f"study.trials: expected at most {known}, as listed, got {settings.trials}")
    return listed


def _space(settings: StudySettings, config: RunConfig, fixed: Sequence[str]) -> Space:
    """The space of a file, else the optimizer's own."""
    if settings.space is not None:
        return spaces.read_space(Path(settings.space), config)
    return spaces.searched(config, fixed=fixed, regularisation=settings.regularisation)


def _searched(
    space: Space, settings: StudySettings, trials: int, config: RunConfig
) -> list[Point] | None:
    """The checked points of a search; None if they depend on results."""
    if settings.search == "tpe":
        return None
    try:
        found = spaces.rounded(points(space, settings.search, trials, settings.seed), config)
        for point in found:
            spaces.configured(config, point)
    except (ConfigError, ValueError) as error:  # a ValueError: too many dimensions
        raise UserError(f"study.search={settings.search}: {error}") from error
    return found


def _check_data(space: Space, config: RunConfig) -> None:
    """Builds the workload at both ends of its settings: some limits depend on the data."""
    workshop = Workshop()
    for key, values in space.items():
        if spaces.target(key)[0] == "workload":
            for value in spaces.ends(values):
                try:
                    workshop.workload(spaces.configured(config, {key: value}).workload)
                except ConfigError as error:
                    raise UserError(f"search space: {key} = {value}: {error}") from error


def _check_combination(settings: StudySettings, config: RunConfig) -> None:
    if settings.search == "points" and settings.points is None:
        raise UserError("study.search=points: expected study.points=FILE.json")
    if settings.points is not None and settings.space is not None:
        raise UserError("expected study.points or study.space, got both")
    if settings.name is not None and (
        not is_file_name(settings.name)
        or "'" in settings.name
        or len(settings.name.encode()) > _LONGEST_NAME
    ):
        raise UserError(f"study.name: expected one fit for a file name, got {settings.name!r}")
    timed = settings.objective == "time_to_target"
    if timed and config.stop.target is None:
        raise UserError("study.objective=time_to_target: expected stop.target=VALUE, got none")
    if timed and settings.pruning != "none":
        raise UserError(
            "study.pruning: expected none with study.objective=time_to_target, because trials "
            f"are judged by their metric; got {settings.pruning}"
        )


def _digest(listed: Sequence[Point] | None) -> str:
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()


def difference(stored: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """The first difference between two identities in words; None if they are equal."""
    normal = json.loads(json.dumps(dict(ours)))
    for key in ours:
        before, now = stored.get(key), normal[key]
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            keys = sorted({*before, *now}, key=lambda k: (k != "name", k))
            name = next(k for k in keys if before.get(k) != now.get(k))
            old, new = before.get(name), now.get(name)
            return f"{key} {name}: expected {old}, as in the study, got {new}"
        return f"{key}: expected {before}, as in the study, got {now}"
    return None
