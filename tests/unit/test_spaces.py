"""Search spaces and points of every type of setting: checked before a study is made."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import optuna
import pytest

from timetrial.bench.tune import ledger
from timetrial.bench.tune.settings import StudyPlan, load_plan
from timetrial.bench.tune.space import configured
from timetrial.bench.tune.storage import open_storage
from timetrial.framework.entries import Entry, OptimizerEntry
from timetrial.framework.errors import UserError
from timetrial.framework.ranges import check
from timetrial.optimizers import OPTIMIZERS
from timetrial.workloads import WORKLOADS

BASE = ["workload=odd", "optimizer=odd"]


@dataclasses.dataclass(frozen=True)
class WorkloadSettings:
    step_hint: int = 10
    batch_size: int = 32
    widths: tuple[int, ...] = (8,)
    deep: bool = False
    name: str = "plain"


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    learning_rate: float = 0.1
    warmup: float = 0.0
    decay: float = 0.0
    momentum: float | None = None
    blocks: int | None = None
    schedule: str = "constant"
    nesterov: bool = False

    def __post_init__(self) -> None:
        check(self, learning_rate="> 0", momentum="[0, 1)")
        if self.schedule not in ("constant", "linear"):
            raise ValueError(f"schedule: expected constant or linear, got {self.schedule!r}")
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup: expected at most {1 - self.decay}, got {self.warmup}")


class Data:
    """A workload as far as a study looks at it before its first trial."""

    def __init__(self, settings: WorkloadSettings) -> None:
        if settings.batch_size > 100:
            raise ValueError(f"batch_size: expected at most 100 examples, got {settings}")


@pytest.fixture(autouse=True)
def odd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(WORKLOADS, "odd", Entry("odd", WorkloadSettings, Data))
    entry = OptimizerEntry("odd", OptimizerSettings, lambda settings, horizon: settings)
    monkeypatch.setitem(OPTIMIZERS, "odd", entry)
    monkeypatch.chdir(tmp_path)


def plan_of(space: str, *words: str) -> StudyPlan:
    Path("space.yaml").write_text(space)
    return load_plan([*BASE, "study.space=space.yaml", *words])


def plan_for(points: object, *words: str) -> StudyPlan:
    Path("points.json").write_text(json.dumps(points))
    return load_plan([*BASE, "study.points=points.json", *words])


SPACE = """\
learning_rate: {low: 1e-3, high: 1e-1}
one_minus_momentum: {low: 0.01, high: 0.5}
blocks: {low: 1, high: 9, scale: linear}
schedule: {choices: [constant, linear]}
nesterov: {choices: [true, false]}
workload.batch_size: {low: 8, high: 64}
workload.widths: {choices: [[8], [16, 8], 4]}
workload.deep: {choices: [false, true]}
workload.name: {choices: [010, on, 1.10]}
"""


def suggestions(plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The values of every trial, as they come back from a database."""
    monkeypatch.setattr(StudyPlan, "minimized", True)
    database = open_storage("sqlite:///studies.db", 15)
    study = ledger.open_study(plan, database)
    found = []
    for _ in range(plan.trials):
        ledger.settle(study, database, plan)
        claimed = ledger.claim(study, database, plan)
        assert claimed is not None
        found.append(ledger.suggested(claimed, plan))
        study.tell(claimed.trial, 1.0 + len(found))
    return found


@pytest.mark.parametrize("search", ["sobol", "random", "tpe"])
def test_every_type_of_setting_can_be_searched(search: str, monkeypatch: pytest.MonkeyPatch):
    plan = plan_of(SPACE, f"study.search={search}", "study.trials=12")
    for values in suggestions(plan, monkeypatch):
        config = configured(plan.config, values)
        optimizer, workload = config.optimizer.settings, config.workload.settings
        assert type(optimizer.blocks) is type(workload.batch_size) is int
        assert 8 <= workload.batch_size <= 64
        assert 1 <= optimizer.blocks <= 9
        assert workload.widths in ((8,), (16, 8), (4,))
        assert workload.name in ("010", "on", "1.10")
        assert type(workload.deep) is type(optimizer.nesterov) is bool
        assert 0.5 <= optimizer.momentum <= 0.99
    stored = optuna.load_study(study_name=plan.name, storage="sqlite:///studies.db")
    assert {t.params["workload.batch_size"] % 1 for t in stored.trials} == {0}
    if plan.points is not None:
        assert [t.params for t in stored.trials] == plan.points


def test_points_of_every_type(monkeypatch: pytest.MonkeyPatch):
    points = [
        {"workload.widths": [16, 8], "workload.batch_size": 64, "nesterov": True, "momentum": None},
        {"workload.widths": [4], "workload.batch_size": 32.0, "nesterov": False, "momentum": 0.5},
    ]
    plan = plan_for(points)
    found = [configured(plan.config, values) for values in suggestions(plan, monkeypatch)]
    assert [c.workload.settings.widths for c in found] == [(16, 8), (4,)]
    assert [c.workload.settings.batch_size for c in found] == [64, 32]
    assert [c.optimizer.settings.nesterov for c in found] == [True, False]
    assert [c.optimizer.settings.momentum for c in found] == [None, 0.5]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            "workload.batch_size: {low: 0.5, high: 64}",
            "batch_size = 0.5: .* a whole number, got 0.5",
        ),
        ("workload.batch_size: {low: 8, high: 500}", "batch_size = 500.0: .* at most 100 examples"),
        ("workload.batch_size: {choices: [8, 500]}", "batch_size = 500: .* at most 100 examples"),
        ("workload.batch_size: {choices: [8, 1.5]}", "expected a whole number, got '1.5'"),
        (
            "workload.widths: {low: 1, high: 2}",
            r"expected choices: \[...\], because the setting is",
        ),
        (
            "workload.widths: {choices: [[8], [x]]}",
            r"widths\[0\]: expected a whole number, got 'x'",
        ),
        ("workload.widths: {choices: [[8], 8]}", "expected different choices"),
        ("workload.deep: {low: 1, high: 2}", r"expected choices: \[...\]"),
        ("workload.deep: {choices: [yes, no]}", "expected true or false, got 'yes'"),
        (
            "schedule: {choices: [linear, cosine]}",
            "schedule = cosine: optimizer.schedule: expected",
        ),
        ("schedule: {low: 1, high: 2}", r"expected choices: \[...\]"),
        ("learning_rate: {low: 0.1, high: inf}", "finite bounds"),
        ("learning_rate: {low: 0.1, high: x}", "learning_rate: high: expected a number, got 'x'"),
        ("learning_rate: {low: 0.1, high: 1, scale: lin}", "scale: expected log or linear"),
        ("learning_rate: {low: 0.1}", "expected low and high"),
        ("learning_rate: [0.1, 1]", "expected low and high.*; got a list"),
        ("learning_rate: {choices: 1}", "expected low and high"),
        ("learning_rate: {choices: [-1, 1]}", "learning_rate = -1.0: .* value > 0, got -1.0"),
        ("lr: {low: 0.1, high: 1}", "unknown parameter 'lr'; did you mean 'learning_rate'"),
        ("workload.bs: {choices: [1, 2]}", "'workload.bs'; did you mean 'workload.batch_size'"),
        ("one_minus_schedule: {choices: [0.1, 0.2]}", "optimizer.schedule: expected text"),
        ("one_minus_blocks: {low: 0.1, high: 0.2}", "blocks: expected a whole number, got 0.9"),
        ("one_minus_schedule: {low: 0.1, high: 0.2}", "expected choices: .* no number"),
        (
            "warmup: {low: 0.1, high: 0.7}\ndecay: {low: 0.1, high: 0.7}",
            "warmup = 0.7, decay = 0.7: optimizer.warmup: expected at most",
        ),
        (
            "momentum: {choices: [0.1, 0.2]}\none_minus_momentum: {choices: [0.1, 0.2]}",
            "optimizer.momentum is set twice",
        ),
        ("learning_rate: {low: 0.1, high: 1}\nlearning_rate: {low: 0.1, high: 1}", "given twice"),
        ("", "is empty"),
    ],
)
def test_a_bad_space_is_refused_before_a_study_is_made(space: str, message: str):
    for search in ("tpe", "sobol"):
        with pytest.raises(UserError, match=message):
            plan_of(space, f"study.search={search}")
    assert {path.name for path in Path.cwd().iterdir()} == {"space.yaml"}


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            [{"workload.batch_size": 63.5}],
            "point 0: workload.batch_size: .* whole number, got 63.5",
        ),
        ([{"workload.batch_size": 8}, {"workload.batch_size": 500}], "at most 100 examples"),
        ([{"workload.batch_size": 500}], "at most 100 examples"),
        ([{"workload.widths": [[8]]}], r"widths\[0\]: expected a whole number, got a list"),
        ([{"workload.widths": {"a": 1}}], "expected a list"),
        ([{"schedule": 3}], "schedule: expected text, got 3"),
        ([{"nesterov": 1}], "nesterov: expected true or false, got 1"),
        ([{"learning_rate": 0.1}, {"learning_rate": None}], "point 1: .* a number, got None"),
        ([{"learning_rate": True}], "expected a number, got True"),
        ([{"warmup": 0.7, "decay": 0.7}], "point 0: optimizer.warmup: expected at most"),
        ([{"momentum": 0.1, "one_minus_momentum": 0.1}], "momentum is set twice"),
        ([{"lr": 0.1}], "unknown parameter 'lr'; did you mean 'learning_rate'"),
    ],
)
def test_bad_points_are_refused_before_a_study_is_made(points: object, message: str):
    with pytest.raises(UserError, match=message):
        plan_for(points)
    assert {path.name for path in Path.cwd().iterdir()} == {"points.json"}


def test_an_optimizer_without_a_space_asks_for_one():
    with pytest.raises(UserError, match=r"odd has no search space: .*study\.space=FILE"):
        load_plan(BASE)
