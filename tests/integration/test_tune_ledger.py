"""Claims without runs: what workers read, and studies that an earlier version began."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import tiny_cli
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from timetrial.bench.tune import ledger
from timetrial.bench.tune.settings import StudyPlan, load_plan
from timetrial.bench.tune.storage import Database, open_storage
from timetrial.framework.entries import WorkloadEntry
from timetrial.workloads import WORKLOADS

TRIALS = 24


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyPlan:
    entry = WorkloadEntry("tiny", tiny_cli.TinySettings, tiny_cli.make_tiny)
    monkeypatch.setitem(WORKLOADS, "tiny", entry)
    words = ["workload=tiny", "optimizer=adam", f"study.trials={TRIALS}"]
    return load_plan([*words, f"tracking.root={tmp_path}"])


def opened(plan: StudyPlan, url: str = "") -> tuple[optuna.Study, Database]:
    database = open_storage(url or plan.storage, 15)
    with database.lock():
        return ledger.open_study(plan, database), database


def turn(
    plan: StudyPlan, study: optuna.Study, database: Database, **options: bool
) -> ledger.Claimed | None:
    """One turn of a worker up to its claim."""
    with database.lock():
        ledger.settle(study, database, plan, **options)
        claimed = ledger.claim(study, database, plan)
        if claimed is None:
            ledger.settle(study, database, plan)
            claimed = ledger.claim(study, database, plan)
    if claimed is not None:
        assert ledger.suggested(claimed, plan) == dict(plan.points[claimed.point])
    return claimed


def enqueue_all(plan: StudyPlan, study: optuna.Study) -> None:
    """As an earlier version did: every point waits from the start."""
    for point, fixed in enumerate(plan.points):
        study.enqueue_trial(dict(fixed), user_attrs={ledger.POINT: point})


@pytest.mark.parametrize("kind", ["sqlite", "journal", "sqlite, all enqueued"])
def test_workers_in_turn_make_every_point_once_and_in_order(
    plan: StudyPlan, kind: str, tmp_path: Path
):
    url = f"journal:{tmp_path}/study.log" if kind == "journal" else ""
    workers = [opened(plan, url) for _ in range(3)]
    if "enqueued" in kind:
        enqueue_all(plan, workers[0][0])
    points = []
    while live := [(w, c) for w in workers if (c := turn(plan, *w)) is not None]:
        for (study, _), claimed in live:
            points.append(claimed.point)
            study.tell(claimed.trial, 1.0)
    assert points == list(range(TRIALS))
    trials = workers[0][0].get_trials(deepcopy=False)
    assert [t.state for t in trials] == [TrialState.COMPLETE] * TRIALS
    assert [t.params for t in trials] == plan.points


def test_failed_points_are_seen_by_workers_that_knew_them_as_waiting(plan: StudyPlan):
    one, other = opened(plan), opened(plan)
    enqueue_all(plan, one[0])
    first = turn(plan, *other)  # now both know all points as waiting
    assert first is not None
    fail(other[0], first, ledger.INTERRUPTED)
    while (claimed := turn(plan, *one)) is not None:
        if claimed.point == 3:
            fail(one[0], claimed, ledger.ERROR)
        elif claimed.point == 5 and not claimed.reported:
            claimed.trial.report(0.5, 1)
            fail(one[0], claimed, ledger.INTERRUPTED)
        else:
            one[0].tell(claimed.trial, 1.0)
    assert turn(plan, *other) is None
    again = turn(plan, *other, retry_errors=True)
    assert again is not None
    assert again.point == 3


def fail(study: optuna.Study, claimed: ledger.Claimed, text: str) -> None:
    claimed.trial.set_user_attr(ledger.OUTCOME, text)
    study.tell(claimed.trial, state=TrialState.FAIL)


@pytest.mark.parametrize("enqueued", [False, True])
def test_a_turn_reads_as_much_at_the_end_as_at_the_beginning(
    plan: StudyPlan, enqueued: bool, monkeypatch: pytest.MonkeyPatch
):
    study, database = opened(plan)
    if enqueued:
        enqueue_all(plan, study)
    built: list[int] = []
    build = RDBStorage._build_frozen_trial_from_trial_model

    def counted(self, model):
        built[-1] += 1
        return build(self, model)

    monkeypatch.setattr(RDBStorage, "_build_frozen_trial_from_trial_model", counted)
    for _ in range(TRIALS):
        built.append(0)
        claimed = turn(plan, study, database)
        assert claimed is not None
        study.tell(claimed.trial, 1.0)
    assert max(built[1:]) <= 8
    assert built[-3] <= built[2]
