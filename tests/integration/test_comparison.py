"""``timetrial.compare`` and ``timetrial.supervised``: races from Python, in a few lines."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_suite
from tiny import TinyWorkload

from timetrial import (
    Budget,
    Direction,
    OptimizerEntry,
    Split,
    UserError,
    compare,
    load_runs,
    supervised,
    train,
)
from timetrial.bench import comparison
from timetrial.bench.contracts import NotApplicableError
from timetrial.bench.contracts.workloads import CHECKS, Subject
from timetrial.framework.config import Choice
from timetrial.framework.entries import WorkloadEntry
from timetrial.tracking.record import schema
from timetrial.tracking.report import ReportOptions, write_report
from timetrial.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]
STEPS = Budget(steps=10)


@dataclasses.dataclass(frozen=True)
class Rate:
    rate: float = 0.1


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def test_the_table_is_ranked_and_runs_and_report_are_recorded(root: Path):
    entry = OptimizerEntry("mine", Rate, lambda settings, horizon: optax.sgd(settings.rate))
    found = compare(
        {"adam": optax.adam(1e-3), "mine": entry, "adam2": "adam"},
        TinyWorkload(),
        STEPS,
        seeds=(0, 1),
        settings={"mine": {"rate": 0.05}, "adam2": {"learning_rate": 0.1}},
        root=root,
    )
    table = found.table
    assert set(table.index) == {"adam", "mine", "adam2"}
    assert table["validation/loss"].is_monotonic_increasing
    assert list(table["finished runs"]) == [2, 2, 2]
    assert (table["lowest"] <= table["validation/loss"]).all()
    assert set(table["steps"]) == {10}
    recorded = load_runs("comparison", root=root)
    assert {run.run_id for run in recorded} == {run.run_id for run in found.runs}
    mine = [run for run in recorded if run.optimizer == "mine"]
    assert {run.config["optimizer.rate"] for run in mine} == {"0.05"}
    (first, _) = [run for run in recorded if run.optimizer == "adam2"]
    assert found.table.loc["adam2", "highest"] >= first.evaluations[-1].metrics["validation/loss"]
    assert found.report == root / "reports" / "comparison" / "report.html"
    assert "adam2" in found.report.read_text()
    shown = found._repr_html_()
    assert "<table" in shown
    assert found.report.as_uri() in shown
    assert str(found.report) in str(found)


def test_what_is_known_by_name_is_not_repeated_and_objects_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tiny_suite.register(monkeypatch, tmp_path, steps=10, eval_every_steps=5)
    monkeypatch.setattr(comparison, "write_page", lambda records, directory, options: directory)
    racers = {"adam": "adam", "mine": optax.sgd(0.1)}
    first, again = (compare(racers, "tiny", STEPS, seeds=[0], root=tmp_path) for _ in range(2))
    ids = [{run.optimizer: run.run_id for run in found.runs} for found in (first, again)]
    assert ids[0]["adam"] == ids[1]["adam"]
    assert ids[0]["mine"] != ids[1]["mine"]
    assert len(load_runs("comparison", root=tmp_path)) == 3
    assert list(again.table["finished runs"]) == [1, 1]
    anew = compare({"adam": "adam"}, TinyWorkload(), STEPS, seeds=[0], root=tmp_path)
    assert anew.runs[0].run_id not in ids[0].values()  # the workload is an object


def test_one_that_fails_is_told_and_the_others_go_on(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(comparison, "write_page", lambda records, directory, options: directory)

    def update(grads, state, params=None):
        return jax.tree.map(lambda g: g + jax.pure_callback(fails, g, g), grads), state

    def fails(value):
        raise RuntimeError("out of ideas")

    bad = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    found = compare({"bad": bad, "sgd": optax.sgd(0.1)}, TinyWorkload(), STEPS, seeds=[0],
                    root=root, experiment="failing")  # fmt: skip
    assert list(found.failures) == ["tiny bad seed 0"]
    assert "out of ideas" in str(found)
    assert found.table.loc["sgd", "finished runs"] == 1
    assert found.table.loc["bad", "finished runs"] == 0


REFUSED = {
    "did you mean 'adam'": {"optimizers": {"x": "adan"}},
    "optimizers: expected at least one": {"optimizers": {}},
    "seeds: expected at least one": {"seeds": ()},
    r"seed: expected a whole number in \[0": {"seeds": (-1,)},
    "unknown optimizer in settings 'b'": {"settings": {"b": {}}},
    "settings: expected none": {"settings": {"a": {"x": 1}}},
    "did you mean 'flights_dlrm'": {"workload": "flight_dlrm"},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_compared_is_refused_and_leaves_no_file(message: str, tmp_path: Path):
    given = {"optimizers": {"a": optax.sgd(0.1)}, "workload": TinyWorkload(), "budget": STEPS}
    with pytest.raises(UserError, match=message):
        compare(**{**given, "root": tmp_path, **REFUSED[message]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_report_of_suspect_runs_only_is_written(root: Path, tmp_path: Path):
    runs = load_runs("comparison", root=root)
    tags = {schema.SECONDS_SUSPECT: "busy", schema.LEARNED: "true"}
    timed = [dataclasses.replace(run, condition="time", tags={**run.tags, **tags}) for run in runs]
    timed += [dataclasses.replace(run, optimizer="b", tags={**run.tags, schema.LEARNED: "false"})
              for run in timed]  # fmt: skip
    assert write_report(timed, tmp_path, ReportOptions()).exists()


class Noisy(nn.Module):
    """A classifier with dropout and batch norm."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(8)(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(3)(nn.relu(x))


RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = np.argmax(X[:, :3], axis=1)
CROSS = optax.softmax_cross_entropy_with_integer_labels


def correct(outputs, y):
    return jnp.argmax(outputs, -1) == y


def noisy(batch_size: int = 8):
    return supervised(
        Noisy(), CROSS, (X[:24], Y[:24]), (X[24:35], Y[24:35]), (X[35:], Y[35:]),
        metrics={"accuracy": correct}, direction=Direction.MAXIMIZE, name="noisy",
        batch_size=batch_size, step_hint=30,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class BatchSize:
    batch_size: int = 8


def test_a_workload_of_arrays_keeps_the_contract(monkeypatch: pytest.MonkeyPatch):
    entry = WorkloadEntry("noisy", BatchSize, lambda settings: noisy(settings.batch_size))
    monkeypatch.setitem(WORKLOADS, "noisy", entry)
    subject = Subject(Choice("noisy", BatchSize()))
    for check in CHECKS:
        try:
            check(subject)
        except NotApplicableError:
            continue


def test_evaluation_is_the_mean_over_examples_without_padding_or_noise():
    task = noisy()
    params, state = task.init(jax.random.key(0))
    assert set(state) == {"batch_stats"}
    (batch,) = task.eval_batches(Split.VALIDATION)
    assert len(batch["x"]) == 24  # 11 examples, padded
    sums, _ = task.eval_step(params, state, batch)
    outputs = Noisy().apply({"params": params, **state}, X[24:35], train=False)
    loss, weight = sums["loss"]
    assert weight == 11
    assert loss / weight == pytest.approx(float(CROSS(outputs, Y[24:35]).mean()), rel=1e-5)
    hits, _ = sums["accuracy"]
    assert hits == (np.argmax(outputs, -1) == Y[24:35]).sum()
    one, two = (task.loss(params, state, task.train_batch(0, 0), jax.random.key(k)) for k in (0, 1))
    assert one[0] != two[0]  # dropout
    assert jax.tree.structure(one[1]) == jax.tree.structure(state)


def test_a_loss_that_returns_the_mean_of_a_batch_is_weighted_right():
    def mean(outputs, y):
        return jnp.mean((outputs - y) ** 2)

    x, y = X, X[:, :1]
    task = supervised(nn.Dense(1), mean, (x[:30], y[:30]), (x[30:37], y[30:37]), batch_size=8)
    assert (task.name, task.metric, task.direction) == ("dense", "loss", Direction.MINIMIZE)
    assert task.splits == (Split.TRAIN, Split.VALIDATION)
    params, state = task.init(jax.random.key(0))
    (batch,) = task.eval_batches(Split.VALIDATION)
    loss, weight = task.eval_step(params, state, batch)[0]["loss"]
    expected = mean(nn.Dense(1).apply({"params": params}, x[30:37]), y[30:37])
    assert (weight, float(loss / weight)) == (7, pytest.approx(float(expected), rel=1e-5))
    assert len(set(task.datasets().values())) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train": (X, Y[:3])}, "train: expected x and y of equally many examples"),
        ({"batch_size": 41}, "batch_size: expected at most 40"),
        ({"batch_size": 0}, "batch_size: expected a whole number >= 1"),
        ({"step_hint": 0}, "step_hint: expected a whole number >= 1"),
        ({"metrics": {"accuracy": correct}}, "direction: expected Direction.MINIMIZE or"),
        ({"model": lambda x: x}, "model: expected a flax.linen module"),
    ],
)
def test_what_makes_no_workload_is_refused(changed: dict, message: str):
    given = {"model": nn.Dense(3), "loss": CROSS, "train": (X, Y), "validation": (X, Y)}
    with pytest.raises((ValueError, TypeError), match=message):
        supervised(**{**given, **changed})


def test_batch_statistics_are_trained_and_recorded(tmp_path: Path):
    result = train(noisy(), optax.adam(1e-2), Budget(steps=20), name="a", root=tmp_path)
    first, last = result.evaluations[0].metrics, result.evaluations[-1].metrics
    assert last["train/loss"] < first["train/loss"]
    assert not np.allclose(result.state.model_state["batch_stats"]["BatchNorm_0"]["mean"], 0)
    (run,) = load_runs(root=tmp_path)
    assert (run.metric, run.workload) == ("accuracy", "noisy")
