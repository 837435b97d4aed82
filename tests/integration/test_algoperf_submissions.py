"""AlgoPerf submissions for JAX, as they are, on workloads of this package."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import tiny_suite
from submissions import HALVED, JIT, PMAP, submission
from tiny import TinyWorkload

from timetrial.bench import cli
from timetrial.bench.suite import load_run
from timetrial.framework import callbacks as cb
from timetrial.framework.budget import Budget
from timetrial.framework.config import digest
from timetrial.framework.entries import Horizon, Optimizer
from timetrial.framework.errors import UserError
from timetrial.framework.records import RunRecord
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.framework.whole_step import WholeStepProgram
from timetrial.optimizers import OPTIMIZERS
from timetrial.optimizers.adapters.algoperf import Submission
from timetrial.optimizers.adapters.algoperf_points import constants_of, read_point
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.store.opening import open_store

STEPS = 12
POINTS = [{"learning_rate": 0.01}, {"learning_rate": 0.05}]


def trained(optimizer: Optimizer | optax.GradientTransformation, steps: int = STEPS, seed: int = 0):
    workload = TinyWorkload(step_hint=steps, eval_every_steps=4)
    whole = isinstance(optimizer, Optimizer) and optimizer.step is not None
    program = (WholeStepProgram if whole else Program)(workload, optimizer)
    callbacks = [cb.StopIfDiverged(), cb.FeedRemainingFraction()]
    return Trainer(program, Budget(steps=steps), callbacks, seed).fit(program.init(seed))


def built(file: Path, point: int = 0) -> Optimizer:
    entry = OPTIMIZERS["algoperf"]
    workload = TinyWorkload(step_hint=STEPS, eval_every_steps=4)
    return entry.build(entry.settings(str(file), point), Horizon(STEPS, STEPS), workload)


def assert_same(one, other, rtol: float = 1e-5) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7)


@pytest.mark.parametrize(
    ("code", "package"),
    [(JIT, "algoperf"), (PMAP, "algoperf"), (PMAP, "algorithmic_efficiency")],
)
def test_a_submission_makes_the_updates_of_the_same_optimizer_of_ours(
    code: str, package: str, tmp_path: Path
):
    file = submission(tmp_path / "sgd", code, POINTS, package=package)
    theirs, ours = trained(built(file, point=1)), trained(optax.sgd(0.05))
    assert_same(theirs.state.params, ours.state.params)
    assert_same(theirs.state.model_state, ours.state.model_state)  # it passes through
    assert theirs.step == STEPS
    for one, other in zip(theirs.evaluations, ours.evaluations, strict=True):
        assert one.metrics == pytest.approx(other.metrics, rel=1e-5)
    assert not [name for name in sys.modules if name.split(".")[0] == package]


def test_prepare_for_eval_is_evaluated_charged_and_never_written_back(tmp_path: Path):
    plain = trained(built(submission(tmp_path / "plain", JIT, POINTS)))
    halved = trained(built(submission(tmp_path / "halved", JIT, POINTS, more=HALVED)))
    assert_same(plain.state.params, halved.state.params, rtol=0)
    program = Program(TinyWorkload(step_hint=STEPS, eval_every_steps=4), optax.identity())
    state = program.init(0)
    program.compile(state, {})
    half = jax.tree.map(lambda p: p / 2, plain.state.params)
    expected = program.evaluate(dataclasses.replace(state, params=half))
    assert halved.evaluations[-1].metrics == pytest.approx(expected, rel=1e-6)
    assert plain.evaluations[-1].metrics["validation/loss"] != expected["validation/loss"]


def test_evaluations_are_given_to_it_and_each_run_begins_anew(tmp_path: Path):
    file = submission(tmp_path / "sgd", JIT, POINTS)
    optimizer = built(file)
    assert isinstance(optimizer.step, Submission)
    first, again = trained(optimizer), trained(optimizer)
    assert_same(first.state.params, again.state.params, rtol=0)
    calls = optimizer.step._functions["update_params"].__globals__["CALLS"]
    steps = [call for call in calls if call[0] == STEPS - 1]
    assert steps == [(STEPS - 1, 4)] * 2  # evaluations at 0, 4, 8 and 11


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny_suite.register(monkeypatch, tmp_path, steps=STEPS, eval_every_steps=6)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def timetrial(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    return int(stopped.value.code or 0)


def runs(experiment: str = "timetrial") -> list[RunRecord]:
    return load_runs(open_store(root=Path("runs"), create=False), experiment)


def words(file: Path, *more: str) -> tuple[str, ...]:
    return ("workload=tiny", "optimizer=algoperf", f"optimizer.file={file}", *more)


def test_it_is_recorded_as_foreign_and_leaves_no_checkpoint(folder: Path):
    file = submission(folder / "mine", JIT, POINTS)
    assert timetrial("train", *words(file, "optimizer.point=1", f"budget.steps={STEPS}")) == 0
    assert timetrial("train", *words(file, f"budget.seconds={0.2}")) == 0
    stepped, timed = runs()
    assert stepped.tags["foreign"] == "true"
    assert stepped.optimizer.startswith("algoperf[mine,point 1,")
    assert json.loads(stepped.config["optimizer.hyperparameters"]) == POINTS[1]
    assert (stepped.status, stepped.step) == ("FINISHED", STEPS)
    assert timed.train_seconds >= 0.2
    assert not list((folder / "runs").glob("checkpoints/*/*/*[0-9]"))
    assert timetrial("train", *words(file, "optimizer.point=1", f"budget.steps={STEPS}")) == 0
    assert len(runs()) == 2  # a finished run is not repeated


def test_it_is_neither_tuned_nor_checked_by_contract(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    file = submission(folder / "mine", JIT, POINTS)
    (folder / "points.json").write_text(json.dumps([{"point": 0}, {"point": 1}]))
    assert timetrial("tune", *words(file), "study.points=points.json") == 2
    assert "makes whole updates by itself" in capsys.readouterr().err
    assert timetrial("check", *words(file)[1:]) == 2
    assert "makes whole updates by itself" in capsys.readouterr().err


ASKS = {
    "workload.num_train_examples, which the workloads here do not have; there are:": (
        "def init_optimizer_state(workload):\n    return workload.num_train_examples\n"
    ),
    "algoperf.spec.TuningRuleset, which is not here": "spec.TuningRuleset\n",
    "ModuleNotFoundError: No module named 'torch'": "import torch\n",
    "a second batch in one update": (
        "def data_selection(input_queue):\n    next(input_queue)\n    return next(input_queue)\n"
    ),
    "the loss of its own logits": (
        "def update_params(workload, batch):\n"
        "    workload.loss_fn(batch['targets'], batch['targets'])\n"
    ),
    "expected update_params to return (optimizer state, parameters, model state), got NoneType": (
        "def update_params(workload):\n    pass\n"
    ),
    "got none named update_params": "del update_params\n",
    "has no attribute 'beta'": (
        "def init_optimizer_state(hyperparameters):\n    return hyperparameters.beta\n"
    ),
}


@pytest.mark.parametrize("message", ASKS)
def test_errors_say_what_a_submission_asks_for(
    message: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    file = submission(folder / "mine", JIT, POINTS, more=f"\n{ASKS[message]}")
    line = file.read_text().count("\n")
    assert timetrial("train", *words(file, "budget.steps=2")) in (1, 2)
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in told
    assert str(file) in told
    if "line" in told:
        assert int(told.rpartition("line ")[2].split(")")[0]) >= line - 3


def test_the_point_sets_what_the_workload_has_and_a_warning_tells_the_rest(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    points = [{"learning_rate": 0.1, "dropout_rate": 0.25, "label_smoothing": 0.1}]
    file = submission(folder / "mine", JIT, points)
    given = ["workload=fashion_mnist_resnet", *words(file)[1:]]
    assert load_run(given).workload.settings.label_smoothing == 0.1
    assert load_run([*given, "workload.label_smoothing=0"]).workload.settings.label_smoothing == 0
    assert timetrial("train", *words(file, "budget.steps=2")) == 0
    assert "asks for dropout_rate = 0.25, and workload tiny has no such setting" in caplog.text
    assert "label_smoothing" in runs()[0].tags["lacks"]
    own = submission(folder / "own", JIT, more="\nHPARAMS = {'dropout_rate': 0.5, 'a': None}\n")
    assert constants_of(own) == {"dropout_rate": 0.5, "a": None}
    asked = OPTIMIZERS["algoperf"].workload_settings(OPTIMIZERS["algoperf"].settings(str(own)))
    assert asked == {"dropout_rate": 0.5}


def test_an_edited_file_or_another_point_is_another_run(folder: Path):
    file = submission(folder / "mine", JIT, POINTS)
    first = load_run(words(file))
    assert digest(load_run(words(file, "optimizer.point=1"))) != digest(first)
    file.write_text(file.read_text() + "\n# edited\n")
    assert digest(load_run(words(file))) != digest(first)
    with pytest.raises(UserError, match=r"optimizer\.file_sha256: expected 0123"):
        load_run(words(file, "optimizer.file_sha256=0123"))


def test_points_of_a_list_and_of_ranges(tmp_path: Path):
    file = submission(tmp_path / "sub" / "jax", JIT)
    (tmp_path / "sub" / "tuning_search_space.json").write_text(json.dumps(POINTS))
    settings = OPTIMIZERS["algoperf"].settings(str(file), 1)  # the space is one folder above
    assert json.loads(settings.hyperparameters) == POINTS[1]
    with pytest.raises(ValueError, match=r"point: expected one of 0 to 1, .* got 2"):
        OPTIMIZERS["algoperf"].settings(str(file), 2)
    with pytest.raises(ValueError, match="point: expected 0 without"):
        OPTIMIZERS["algoperf"].settings(str(submission(tmp_path / "a" / "b", JIT)), 1)
    space = tmp_path / "space.json"
    space.write_text(json.dumps({
        "rate": {"min": 1e-4, "max": 1e-2, "scaling": "log"},
        "momentum": {"min": 0.5, "max": 0.9, "scaling": "linear"},
        "kind": {"feasible_points": ["a", "b"]},
    }))  # fmt: skip
    found = [read_point(space, number) for number in range(20)]
    assert found[0]["rate"] == pytest.approx(1e-3)  # the middle, on a log scale
    assert len({point["rate"] for point in found}) == 20
    assert all(0.5 <= point["momentum"] <= 0.9 for point in found)
    assert {point["kind"] for point in found} == {"a", "b"}
    for text in ("[]", "3", '{"a": 1}', '{"a": {"min": 0}}', "{", '{"a": {"min": 0, "max": 1, '
                 '"scaling": "log"}}'):  # fmt: skip
        space.write_text(text)
        with pytest.raises(ValueError, match="search_space: "):
            read_point(space, 0)


def test_microbatches_are_refused(tmp_path: Path):
    file = submission(tmp_path / "mine", JIT, POINTS)
    with pytest.raises(UserError, match="expected devices=1 and microbatches=1"):
        WholeStepProgram(TinyWorkload(), built(file), microbatches=2)
