"""Summarises a finished study: a run in MLflow, plots, lines for the user, a preset.

Boundary: reads a study's trials; changes none of them.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from optuna.trial import FrozenTrial, TrialState

from timetrial.bench.tune import ledger
from timetrial.bench.tune.settings import StudyPlan
from timetrial.bench.tune.space import configured
from timetrial.bench.tune.storage import Database
from timetrial.framework import config as configuration
from timetrial.framework.checksums import seal
from timetrial.framework.config import RunConfig
from timetrial.framework.errors import UserError
from timetrial.framework.files import PRIVATE, write_atomically
from timetrial.framework.secrets import masked
from timetrial.framework.spaces import OneOf
from timetrial.tracking.record import schema
from timetrial.tracking.record.environment import host_tags
from timetrial.tracking.store.opening import Store
from timetrial.tracking.store.studies import write_summary

FEWEST_TRIALS = 2
"""Smallest number of completed trials with plots."""


def headline(study: optuna.Study, plan: StudyPlan, database: Database) -> str:
    """A study in one line, with its storage."""
    attempts = ledger.by_point(study.get_trials(deepcopy=False))
    done = sum(ledger.spent(tried) for tried in attempts.values())
    return (
        f"study {plan.name}: {plan.trials} trials by {plan.settings.search}, {done} done, "
        f"in {database.url}"
    )


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The best completed trial, of the lowest point among equals; None if there is none."""
    done = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if ledger.POINT in trial.user_attrs and trial.value is not None
    ]
    sign = 1.0 if study.direction is optuna.study.StudyDirection.MINIMIZE else -1.0
    return min(
        done, key=lambda t: (sign * float(t.value or 0.0), t.user_attrs[ledger.POINT]), default=None
    )


def best_config(study: optuna.Study, plan: StudyPlan) -> tuple[FrozenTrial, RunConfig] | None:
    """The best trial and its configuration."""
    best = best_of(study)
    return None if best is None else (best, configured(plan.config, best.params))


def counts(study: optuna.Study, plan: StudyPlan) -> dict[str, int]:
    """Numbers of completed, pruned, diverged and failed points, and of repeated attempts."""
    found = dict.fromkeys(("complete", "pruned", "diverged", "error", "retried"), 0)
    for point, tried in ledger.by_point(study.get_trials(deepcopy=False)).items():
        if point >= plan.trials:
            continue
        found["retried"] += len(tried) - 1
        last = tried[-1]
        how = ledger.outcome(last)
        if how in (ledger.DIVERGED, ledger.ERROR):
            found[how] += 1
        elif last.state in (TrialState.COMPLETE, TrialState.PRUNED):
            found[last.state.name.lower()] += 1
    return found


def closing(study: optuna.Study, plan: StudyPlan, database: Database) -> str:
    """The lines printed at the end of a study."""
    census = ", ".join(f"{number} {name}" for name, number in counts(study, plan).items() if number)
    lines = [f"study {plan.name}: {census or 'no trial has ended'}"]
    best = best_of(study)
    if best is not None:
        settings = ", ".join(f"{key}={_short(value)}" for key, value in best.params.items())
        lines.append(f"best: {best.value:.6g} in trial {best.number}: {settings}")
    lines.append(f"open it with: optuna-dashboard {database.url} --host 127.0.0.1")
    return "\n".join(lines)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def record(study: optuna.Study, plan: StudyPlan, store: Store) -> str:
    """Writes the study's summary run, replacing an earlier one; returns its id."""
    found = best_config(study, plan)
    texts = {
        "space.json": json.dumps(plan.identity()["space"], indent=2),
        "study.json": json.dumps(plan.identity(), indent=2),
        "trials.csv": trials_csv(study, plan),
    }
    tags = {
        schema.STUDY: plan.name,
        schema.STUDY_SUMMARY: plan.name,
        schema.WORKLOAD: plan.config.workload.name,
        schema.OPTIMIZER: plan.config.optimizer.name,
        "search": plan.settings.search,
        "search_seed": str(plan.settings.seed),
        "objective": plan.settings.objective,
        "optuna": optuna.__version__,
    }
    metrics: dict[str, float] = {f"trials/{k}": float(v) for k, v in counts(study, plan).items()}
    if found is not None:
        best, config = found
        texts["best.yaml"] = configuration.to_yaml(config)
        tags |= {"best_trial": str(best.number), "best_params": json.dumps(best.params)}
        metrics["best/objective"] = float(best.value or 0.0)
    drawn = figures(study, plan)
    try:
        return write_summary(
            store, plan.config.tracking.experiment, plan.name, tags, metrics, texts, drawn
        )
    finally:
        for figure in drawn.values():
            pyplot.close(figure)


def trials_csv(study: optuna.Study, plan: StudyPlan) -> str:
    """One line per attempt, in order: number, point, state, outcome, value, seconds, parameters."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["trial", "point", "state", "outcome", "value", "steps", "train_seconds"]
    writer.writerow([*head, *plan.space])
    for trial in study.get_trials(deepcopy=False):
        facts = ledger.facts(trial)
        value = "" if trial.value is None else repr(trial.value)
        line = [trial.number, facts.get(ledger.POINT, ""), trial.state.name]
        line += [facts.get(ledger.OUTCOME, ""), value]
        line += [facts.get("steps", ""), facts.get("train_seconds", "")]
        writer.writerow([*line, *(trial.params.get(key, "") for key in plan.space)])
    return text.getvalue()


def figures(study: optuna.Study, plan: StudyPlan) -> Mapping[str, Figure]:
    """The plots of a study by file name; empty with fewer than ``FEWEST_TRIALS`` trials."""
    from optuna.visualization import matplotlib as draw

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < FEWEST_TRIALS:
        return {}
    varied = [
        key
        for key, values in plan.space.items()
        if not (isinstance(values, OneOf) and len(values.choices) == 1)
    ]
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    plots: dict[str, Callable[[], Any]] = {
        "history": lambda: draw.plot_optimization_history(study),
        "slice": lambda: draw.plot_slice(study, params=varied),
        "parallel_coordinate": lambda: draw.plot_parallel_coordinate(study, params=varied),
        "importance": lambda: draw.plot_param_importances(
            study, evaluator=evaluator, params=varied
        ),
    }
    drawn = {}
    with pyplot.rc_context(), warnings.catch_warnings():  # optuna sets the style of the process
        warnings.simplefilter("ignore")  # optuna warns at every experimental plot
        for name, plot in plots.items():
            try:
                axes = plot()
            except (ValueError, RuntimeError):  # all values are equal: nothing to attribute
                continue
            first = axes.flat[0] if hasattr(axes, "flat") else axes
            figure = first.figure
            figure.set_size_inches(max(8.0, 3.0 * len(varied)), 5.0)
            for part in figure.axes:  # labels between the powers of ten overlap
                part.xaxis.set_minor_formatter(NullFormatter())
            drawn[f"plots/{name}.png"] = figure
    return drawn


def export(study: optuna.Study, plan: StudyPlan, path: Path) -> None:
    """Writes the best configuration as a run preset; its header describes the study.

    Raises:
        UserError: no trial has completed, or the file cannot be written.
    """
    found = best_config(study, plan)
    if found is None:
        raise UserError(f"--export: expected a completed trial in study {plan.name}, found none")
    best, config = found
    trials = study.get_trials(deepcopy=False)
    seconds = sum(float(ledger.facts(trial).get("train_seconds", 0.0)) for trial in trials)
    host = host_tags()
    budget = config.budget
    local = ("tracking.", "study.storage=")  # left out: local places
    words = [word for word in plan.overrides if not word.startswith(local)]
    limit = f"{budget.steps} updates" if budget.steps else f"{budget.seconds} s"
    head = [
        f"{config.workload.name}: {config.optimizer.name} tuned in {plan.trials} trials of {limit}",
        f"timetrial tune {' '.join(words)}",
        f"study {plan.name}: {plan.settings.objective} of {plan.settings.search}, seed "
        f"{plan.settings.seed}: {best.value!r} in trial {best.number}",
        f"{host[schema.HOST_CPU]}, {os.cpu_count()} cores, {platform.system()}: {seconds:.0f} "
        "charged seconds in all",
    ]
    tree = configuration.without_place(config)
    for key in ("seed", "label", "stop"):
        del tree[key]
    tree["budget"] = {key: value for key, value in tree["budget"].items() if value}
    text = "".join(f"# {line}\n" for line in head) + configuration.yaml_of(tree)
    try:
        write_atomically(path, seal(masked(text)), PRIVATE)
    except OSError as error:
        raise UserError(f"--export: cannot write {path}: {error.strerror}") from error
