"""One trial: runs and records its configuration like any other, and reports its value.

Boundary: between one claimed trial and ``bench.experiment.run``; ``study`` claims trials.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from timetrial.bench.claims import TakenError
from timetrial.bench.experiment import run
from timetrial.bench.resuming import tidy
from timetrial.bench.tune import ledger
from timetrial.bench.tune.ledger import Claimed
from timetrial.bench.tune.settings import StudyPlan
from timetrial.bench.tune.space import configured
from timetrial.bench.tune.storage import Database
from timetrial.bench.workshop import Workshop
from timetrial.framework import callbacks as cb
from timetrial.framework.budget import StopReason
from timetrial.framework.config import RunConfig
from timetrial.framework.errors import StorageError, reason_of
from timetrial.framework.records import Row, RunResult
from timetrial.framework.secrets import masked
from timetrial.framework.signals import held
from timetrial.framework.types import Direction
from timetrial.framework.workload import Workload
from timetrial.tracking.record import schema
from timetrial.tracking.store.opening import Store

_log = logging.getLogger(__name__)

PENALTY = 2.0
"""Time to an unreached target, in budgets: PAR2 of Hutter et al., "Automated
configuration of algorithms for solving hard computational problems", 2009."""


def make_trial(
    claimed: Claimed,
    study: optuna.Study,
    plan: StudyPlan,
    database: Database,
    store: Store,
    workshop: Workshop,
    workers: int,
) -> str:
    """Makes a claimed trial, from its checkpoint if any, and reports it to the study.

    Returns:
        Outcome of the trial, in words.

    Raises:
        StorageError: the disk takes no more; the next attempt resumes from the checkpoint.
        KeyboardInterrupt: interrupted; the next attempt resumes from the checkpoint.
    """
    directory = plan.directory(claimed.point)
    ending, value, text = TrialState.FAIL, None, ledger.ERROR
    try:
        config = configured(plan.config, ledger.suggested(claimed, plan))
        with database.alive(claimed.trial_id):
            result = run(
                config,
                store,
                workshop,
                tags=tags(claimed, plan, workers),
                callbacks=pruning(claimed, plan, workshop),
                directory=directory,
            )
        workload = workshop.workload(config.workload)
        ending, value, text = verdict(result, plan, config, workload)
        describe(claimed, result, workload)
    except (KeyboardInterrupt, StorageError):
        text = ledger.INTERRUPTED
        raise
    except TakenError as error:
        text = f"{ledger.INTERRUPTED}: {error}"
    except Exception as error:  # one failed trial does not end the study
        _log.debug("trial %s", claimed.trial.number, exc_info=True)
        text = f"{ledger.ERROR}: {reason_of(error)}"
    finally:
        with held():
            tell(claimed, study, database, ending, value, text)
        if text.partition(":")[0] != ledger.INTERRUPTED:
            tidy(plan.config, directory)
    return text


def tell(
    claimed: Claimed,
    study: optuna.Study,
    database: Database,
    ending: TrialState,
    value: float | None,
    text: str,
) -> None:
    """Ends a trial in the storage; its outcome, if its state is ambiguous, is written first."""
    try:
        if ending is TrialState.FAIL or text == ledger.DIVERGED:
            claimed.trial.set_user_attr(ledger.OUTCOME, masked(text)[:2000])
        if ending is TrialState.PRUNED or isinstance(study.sampler, TPESampler):
            study.tell(claimed.trial, value, state=ending)  # optuna completes it, and its sampler
        else:
            values = None if value is None else [value]
            database.storage.set_trial_state_values(claimed.trial_id, ending, values)
    except (ValueError, RuntimeError) as error:
        # So many heartbeats were missed that another worker claimed the point.
        _log.warning("trial %s has been given to another worker: %s", claimed.trial.number, error)


def tags(claimed: Claimed, plan: StudyPlan, workers: int) -> dict[str, str]:
    """Tags of a trial's run."""
    found = {
        schema.STUDY: plan.name,
        schema.TRIAL: str(claimed.trial.number),
        schema.POINT: str(claimed.point),
    }
    return found if workers == 1 else {**found, schema.CONCURRENT_RUNS: str(workers)}


def verdict(
    result: RunResult, plan: StudyPlan, config: RunConfig, workload: Workload
) -> tuple[TrialState, float | None, str]:
    """State, value and description of an ended trial.

    Values are finite. A diverged trial fails, or gets a bad value: that of its untrained model, or
    twice the budget if the objective is the time to a target.
    """
    if result.reason is StopReason.PRUNED:
        return TrialState.PRUNED, None, "pruned"
    metric = f"{config.stop.split}/{workload.metric}"
    timed = plan.settings.objective == "time_to_target"
    diverged = result.reason is StopReason.DIVERGED
    value = time_to_target(result, config) if timed else objective(result, plan, workload)
    if not diverged and math.isfinite(value):
        shown = metric if not timed else f"{config.budget.condition}s to target"
        return TrialState.COMPLETE, value, f"{shown} {value:.6g}"
    bad = value if timed else result.evaluations[0].metrics[_metric(workload)]
    if plan.settings.diverged == "bad" and math.isfinite(bad):
        return TrialState.COMPLETE, bad, ledger.DIVERGED
    return TrialState.FAIL, None, ledger.DIVERGED


def _metric(workload: Workload) -> str:
    return f"validation/{workload.metric}"


def objective(result: RunResult, plan: StudyPlan, workload: Workload) -> float:
    """The best or the last value of the validation metric; nan if there is none."""
    values = [evaluation.metrics[_metric(workload)] for evaluation in result.evaluations]
    return workload.direction.best(values) if plan.settings.objective == "best" else values[-1]


def time_to_target(result: RunResult, config: RunConfig) -> float:
    """Steps or charged seconds until the target; twice the budget without reaching it."""
    last = result.evaluations[-1]
    if config.budget.steps is not None:
        used, limit = float(last.step), float(config.budget.steps)
    else:
        used, limit = last.train_seconds, float(config.budget.seconds or 0.0)
    return used if result.reason is StopReason.TARGET else PENALTY * limit


def describe(claimed: Claimed, result: RunResult, workload: Workload) -> None:
    """Stores stop reason, steps, charged seconds and best step of a trial's run, in one write."""
    best = best_evaluation(result.evaluations, workload)
    facts: Mapping[str, Any] = {
        "stop_reason": result.reason.name,
        "steps": result.step,
        "train_seconds": result.train_seconds,
        "best_step": best.step,
    }
    claimed.trial.set_user_attr(ledger.RESULT, facts)


def best_evaluation(evaluations: Sequence[Row], workload: Workload) -> Row:
    """The first evaluation with the best validation metric."""
    sign = 1.0 if workload.direction is Direction.MINIMIZE else -1.0

    def rank(evaluation: Row) -> float:
        value = sign * evaluation.metrics[_metric(workload)]
        return math.inf if math.isnan(value) else value

    return min(evaluations, key=rank)


def pruning(claimed: Claimed, plan: StudyPlan, workshop: Workshop) -> list[cb.Callback]:
    """The pruning callback; none if the study does not prune."""
    if plan.settings.pruning == "none":
        return []
    metric = _metric(workshop.workload(plan.config.workload))
    return [cb.Prune(metric, Hopeless(claimed))]


class Hopeless:
    """Reports values to the study's pruner at fixed shares of the budget.

    The shares are 27ths of the budget, in steps or charged seconds. Each gets the last known value,
    so that trials with different evaluation steps are comparable.
    """

    def __init__(self, claimed: Claimed) -> None:
        self._trial = claimed.trial
        self._told = max(claimed.reported, default=0)
        self._value: float | None = None

    def __call__(self, info: cb.StepInfo, value: float) -> bool:
        at = int(ledger.GRID * info.used)
        for share in range(self._told + 1, at + 1):
            known = value if share == at or self._value is None else self._value
            if math.isfinite(known):
                self._trial.report(known, share)
        self._told, self._value = max(self._told, at), value
        return self._told > 0 and self._trial.should_prune()

    def state(self) -> Mapping[str, Any]:
        """The last known value."""
        return {"value": self._value}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes over a saved ``state``."""
        self._value = state["value"]
