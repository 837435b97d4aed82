"""Races and studies from Python, with the words of the commands ``bench`` and ``tune``.

Boundary: words in, recorded runs and trials out; ``bench.race`` and ``bench.tune`` make them.
"""

from __future__ import annotations

import io

import pandas as pd

from timetrial.bench.commands.command import load_checked_suite
from timetrial.bench.doctor.command import require_idle
from timetrial.bench.library import store_at
from timetrial.bench.race import race as make_race
from timetrial.bench.tune import study as studies
from timetrial.bench.tune.settings import load_plan
from timetrial.bench.tune.summary import trials_csv
from timetrial.framework.records import RunRecord
from timetrial.framework.types import Condition
from timetrial.tracking.read.runs import load_runs


def race(*words: str) -> list[RunRecord]:
    """Makes or continues a race and writes its report, as ``timetrial bench`` with these words.

    Finished runs are not repeated. A run that raises is recorded as FAILED; the others go on.
    Progress, scores and the path of the report are printed.

    Args:
        words: ``key=value``, such as ``"suite=mine.yaml"`` or ``"seeds=[0]"``; a launcher is the
            command's alone.

    Returns:
        The recorded runs of the race's experiment, of any status, in order of their start.

    Raises:
        UserError: an unknown key or name, a suite that cannot run here, or a busy machine where
            runs have a time budget.
    """
    suite, tracking = load_checked_suite(words)
    if Condition.TIME in suite.conditions:
        require_idle()
    make_race(suite, tracking)
    store = store_at(tracking.uri, tracking.root, create=False)
    return load_runs(store, tracking.experiment)


def tune(*words: str) -> pd.DataFrame:
    """Makes or continues a study, as ``timetrial tune`` with these words in one process.

    Args:
        words: ``key=value``, such as ``"optimizer=adam"`` or ``"study.trials=20"``.

    Returns:
        One row per attempt at a trial, in order: ``trial``, ``point``, ``state``, ``outcome``,
        ``value`` (the objective), ``steps``, ``train_seconds``, and a column per tuned setting.

    Raises:
        UserError: an unknown key or name, an impossible search space or combination.
    """
    studies.tune(words)
    plan = load_plan(words)
    _, database, study = studies.opened(plan)
    with database.lock():
        table = trials_csv(study, plan)
    return pd.read_csv(io.StringIO(table))
