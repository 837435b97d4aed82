"""Claims, retries and closes the trials of a study.

Boundary: the study's storage only; makes no run and computes no value.

Every point of a study, from 0 to ``trials - 1``, gets one trial: waiting, running or ended. Any
number of dead attempts may come before it. Trials are added in order of their points, ``AHEAD`` of
those that run. All changes are made under the database's lock and can be repeated: after a kill in
the middle, the next call repairs the state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from timetrial.bench.tune import attempts
from timetrial.bench.tune.attempts import Attempts, attempts_of
from timetrial.bench.tune.settings import TPE, StudyPlan, difference
from timetrial.bench.tune.space import is_whole
from timetrial.bench.tune.storage import Database
from timetrial.framework.errors import UserError
from timetrial.framework.spaces import OneOf
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import process_is_gone, process_tags

POINT: Final = attempts.POINT  # user attributes of a trial: number of its point, from 0
WORKER = "worker"  # the process that runs it, by the keys of _PROCESS
RESULT = "result"  # facts of its run, by name; earlier versions have one attribute for each fact
OUTCOME = "outcome"  # how it ended, if its state alone is ambiguous
IDENTITY = "identity"  # user attribute of a study: StudyPlan.identity() as JSON

_PROCESS = {
    "host": schema.HOST,
    "boot": schema.BOOT,
    "pid_namespace": schema.PID_NAMESPACE,
    "pid": schema.PID,
    "started": schema.PROCESS_START,
}
"""Keys of a worker, and the tags of runs with the same content."""

DIVERGED, INTERRUPTED, ERROR = "diverged", "interrupted", "error"
MAX_DEATHS = 10
"""Deaths of workers after which a point is given up: the point may be their cause."""

AHEAD = 2
"""Waiting trials that ``settle`` provides: one to claim, and one to see what comes next."""

GRID = 27
"""Pruning uses 27ths of a trial's budget: Hyperband's rungs are 1, 3, 9 and 27 of them."""


@dataclasses.dataclass(frozen=True)
class Claimed:
    """A trial claimed by this process.

    Attributes:
        trial: optuna's live trial.
        trial_id: its identity in the storage.
        point: number of its point.
        reported: values reported for pruning by earlier attempts at the point.
    """

    trial: Trial
    trial_id: int
    point: int
    reported: dict[int, float]


def open_study(plan: StudyPlan, database: Database) -> optuna.Study:
    """Creates the study or continues the one of that name; call it under the lock.

    Raises:
        UserError: a study of that name has another identity, or was not made by timetrial.
    """
    study = optuna.create_study(
        study_name=plan.name,
        storage=database.storage,
        sampler=optuna.samplers.RandomSampler(seed=plan.settings.seed),
        pruner=_pruner(plan),
        direction="minimize" if plan.minimized else "maximize",
        load_if_exists=True,
    )
    stored = study.user_attrs.get(IDENTITY)
    if stored is None:
        if study.get_trials(deepcopy=False):
            raise UserError(f"study {plan.name!r} in {database.url} was not made by timetrial")
        study.set_user_attr("optuna", optuna.__version__)
        study.set_user_attr("space", json.dumps(plan.identity()["space"]))
        study.set_user_attr(IDENTITY, json.dumps(plan.identity()))
        return study
    _check_trials(study, database)
    if text := difference(json.loads(stored), plan.identity()):
        raise UserError(
            f"study {plan.name!r} in {database.url} cannot be continued: {text}; give the changed "
            "study another study.name"
        )
    return study


def _check_trials(study: optuna.Study, database: Database) -> None:
    """Raises a UserError if facts that timetrial wrote have other types."""
    kinds = {POINT: int, WORKER: dict, OUTCOME: str, RESULT: dict, "train_seconds": float}
    for trial in study.get_trials(deepcopy=False):
        known = trial.user_attrs
        if isinstance(known.get(RESULT), dict):
            known = facts(trial)
        wrong = [key for key, kind in kinds.items() if not isinstance(known.get(key, kind()), kind)]
        worker = known.get(WORKER) or {"pid": 0, "started": None}
        found = isinstance(worker.get("pid"), int) and "started" in worker
        one = trial.values is None or len(trial.values) == 1
        if wrong or not (found and one) or known.get(POINT, 0) < 0:
            raise UserError(
                f"study {study.study_name!r} in {database.url} is damaged: expected trial "
                f"{trial.number} as timetrial wrote it, got another {(wrong or ['record'])[0]}"
            )


def _pruner(plan: StudyPlan) -> optuna.pruners.BasePruner:
    if plan.settings.pruning == "median":
        return optuna.pruners.MedianPruner(
            n_startup_trials=5, n_warmup_steps=GRID // 3, interval_steps=1, n_min_trials=3
        )
    if plan.settings.pruning == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=GRID, reduction_factor=3, bootstrap_count=0
        )
    return optuna.pruners.NopPruner()


def settle(
    study: optuna.Study, database: Database, plan: StudyPlan, *, retry_errors: bool = False
) -> list[int]:
    """Fails the trials of dead workers and adds missing trials; call it under the lock.

    Points that need another attempt get it at once, new points a little ahead of their claim.

    Args:
        study: the study.
        database: the study's storage.
        plan: the study's settings and points.
        retry_errors: whether trials that ended with an error are tried again.

    Returns:
        Numbers of the trials of dead workers.
    """
    known = attempts_of(study, database.storage)
    known.refresh()
    dead = _fail_dead(known, study, database)
    for point in known.tried(plan.trials, changed=not retry_errors):
        tried = known.at(point)
        if not spent(tried, retry_errors) and not _open(tried):
            known.add(_again(tried[-1]))
        known.settled(point)
    waiting = len(known.waiting(plan.trials))
    while waiting < AHEAD and known.untried() < plan.trials:
        known.add(_new(plan, known.untried()))
        waiting += 1
    return dead


def _fail_dead(known: Attempts, study: optuna.Study, database: Database) -> list[int]:
    """Fails trials without a live process on this host, or without heartbeats elsewhere."""
    running = known.running()
    if not running:
        return []
    for trial in running:
        if is_dead(trial.user_attrs.get(WORKER, {})):
            study.tell(trial.number, state=TrialState.FAIL)
    if isinstance(database.storage, RDBStorage):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
    known.refresh()
    # A trial may have ended meanwhile; its outcome is written before its end.
    failed = [trial for trial in known.now(running) if trial.state is TrialState.FAIL]
    return [trial.number for trial in failed if not outcome(trial)]


def by_point(trials: Sequence[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
    """The attempts at every point, in order; trials of other programs are left out."""
    found: dict[int, list[FrozenTrial]] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        if POINT in trial.user_attrs:
            found.setdefault(trial.user_attrs[POINT], []).append(trial)
    return found


def _open(attempts: Sequence[FrozenTrial]) -> bool:
    return any(not trial.state.is_finished() for trial in attempts)


def spent(attempts: Sequence[FrozenTrial], retry_errors: bool = False) -> bool:
    """Whether a point needs no further attempt."""
    if any(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in attempts):
        return True
    if _open(attempts):
        return False
    if not attempts:
        return False
    last = outcome(attempts[-1])
    if last == DIVERGED or (last == ERROR and not retry_errors):
        return True
    return sum(outcome(trial) == "" for trial in attempts) >= MAX_DEATHS


def outcome(trial: FrozenTrial) -> str:
    """Outcome of a trial; ``""`` if its worker died or its state is enough."""
    return str(trial.user_attrs.get(OUTCOME, "")).partition(":")[0]


def _again(last: FrozenTrial) -> FrozenTrial:
    """Another attempt with the same parameters and the values reported so far."""
    return optuna.create_trial(
        state=TrialState.WAITING,
        params=last.params,
        distributions=last.distributions,
        user_attrs={POINT: last.user_attrs[POINT], "retries": last.number},
        system_attrs=last.system_attrs,
        intermediate_values=last.intermediate_values,
    )


def _new(plan: StudyPlan, point: int) -> FrozenTrial:
    """The first attempt at a point; a fixed one has its parameters from the start."""
    attributes = {POINT: point}
    fixed = dict(plan.points[point]) if plan.points else {}
    if fixed:
        with contextlib.suppress(ValueError):  # a value at the end of its range, as rounded
            return optuna.create_trial(
                state=TrialState.WAITING,
                params={key: fixed[key] for key in plan.space},
                distributions=distributions(plan),
                user_attrs=attributes,
            )
    return optuna.create_trial(
        state=TrialState.WAITING, user_attrs=attributes, system_attrs={"fixed_params": fixed}
    )


def claim(study: optuna.Study, database: Database, plan: StudyPlan) -> Claimed | None:
    """Claims the waiting trial of the lowest point, or None; call it under the lock.

    None also where others have claimed all trials that ``settle`` knew of: then settle again.
    The worker is written before the state RUNNING: a death in between leaves a waiting trial.
    """
    known = attempts_of(study, database.storage)
    for waited in known.waiting(plan.trials):
        found = known.read(waited.number)
        if found.state is not TrialState.WAITING:
            continue
        database.storage.set_trial_user_attr(found._trial_id, WORKER, _worker())
        if isinstance(database.storage, RDBStorage):
            database.storage.record_heartbeat(found._trial_id)
        if database.storage.set_trial_state_values(found._trial_id, TrialState.RUNNING):
            known.started(found)
            point = found.user_attrs[POINT]
            study.sampler = _sampler(plan, point)
            trial = Trial(study, found._trial_id)
            return Claimed(trial, found._trial_id, point, dict(found.intermediate_values))
    return None


def is_busy(study: optuna.Study, database: Database) -> bool:
    """True when trials of the study ran at the last ``settle``."""
    known = attempts_of(study, database.storage)
    return any(POINT in trial.user_attrs for trial in known.running())


def _worker() -> dict[str, Any]:
    """This process, by the keys of ``_PROCESS``."""
    tags = {schema.HOST: socket.gethostname(), **process_tags()}
    found = {key: tags[tag] for key, tag in _PROCESS.items() if tag in tags}
    return {**found, "pid": os.getpid()}


def is_dead(worker: Mapping[str, Any]) -> bool:
    """True when a worker, as a trial records it, ran on this host and is dead."""
    found = {tag: str(worker[key]) for key, tag in _PROCESS.items() if key in worker}
    return process_is_gone(found)


def _sampler(plan: StudyPlan, point: int) -> optuna.samplers.BaseSampler:
    """The sampler of one trial, seeded by its point: interruptions change nothing."""
    seed = plan.settings.seed * 1_000_003 + point
    if plan.settings.search == "tpe":
        return optuna.samplers.TPESampler(seed=seed % 2**32, **TPE)
    return optuna.samplers.RandomSampler(seed=seed % 2**32)  # not used: points are fixed


def suggested(claimed: Claimed, plan: StudyPlan) -> dict[str, Any]:
    """The values of a trial's parameters, by key of the space.

    Raises:
        UserError: the storage holds another point than the plan.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Fixed parameter", UserWarning)  # refused below
        try:
            values = _suggested(claimed, plan)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise UserError(
                f"study {plan.name!r} is damaged: point {claimed.point}: {str(error)[:200]!a}"
            ) from error
    if plan.points is not None and values != dict(plan.points[claimed.point]):
        raise UserError(
            f"study {plan.name!r} is damaged: expected point {claimed.point} to be "
            f"{dict(plan.points[claimed.point])}, got {str(values)[:200]!a}"
        )
    return values


def _suggested(claimed: Claimed, plan: StudyPlan) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, among in distributions(plan).items():
        if isinstance(among, CategoricalDistribution):
            values[key] = claimed.trial.suggest_categorical(key, among.choices)
        elif isinstance(among, IntDistribution):
            values[key] = claimed.trial.suggest_int(key, among.low, among.high, log=among.log)
        else:
            values[key] = claimed.trial.suggest_float(key, among.low, among.high, log=among.log)
    return values


def distributions(plan: StudyPlan) -> dict[str, BaseDistribution]:
    """The search space for optuna, in its order."""
    found: dict[str, BaseDistribution] = {}
    for key, among in plan.space.items():
        if isinstance(among, OneOf):
            found[key] = CategoricalDistribution(among.choices)
        elif is_whole(key, plan.config):
            low, high, log = int(among.low), int(among.high), among.scale == "log"
            found[key] = IntDistribution(low, high, log=log)
        else:
            found[key] = FloatDistribution(among.low, among.high, log=among.scale == "log")
    return found


def facts(trial: FrozenTrial) -> Mapping[str, Any]:
    """Facts of a trial's run by name: stop reason, steps, charged seconds, best step."""
    return {**trial.user_attrs, **trial.user_attrs.get(RESULT, {})}
