"""What ends a run as diverged, when it is found, and what the record says of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import TinyWorkload

from timetrial.bench.naming import end_tags
from timetrial.framework import callbacks as cb
from timetrial.framework.budget import Budget, StopReason
from timetrial.framework.entries import EvalParams, Optimizer, current_params
from timetrial.framework.records import RunResult
from timetrial.framework.state import TrainState
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.framework.types import PyTree, Split
from timetrial.framework.update import all_finite, make_train_step
from timetrial.framework.workload import Batch, Sums

BAD = 7
"""The update in which a number is not finite."""


class Poisoned(TinyWorkload):
    """Tiny, with a parameter that no loss depends on, and one number that is not finite."""

    def __init__(self, where: str = "", value: float = np.nan) -> None:
        super().__init__(eval_every_steps=5)
        self.where, self.value = where, value

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        params, model_state = super().init(key)
        return {**params, "unused": jnp.ones((2, 3))}, model_state

    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        value, model_state = super().loss(params, model_state, batch, key)
        # the derivative of sqrt is infinite at 0: 0 * inf is NaN, of a loss that is finite
        return value + jnp.mean(jnp.sqrt(batch["root"] * jnp.sum(params["w"] ** 2))), model_state

    def train_batch(self, seed: int, step: int) -> Batch:
        batch = super().train_batch(seed, step)
        bad = step == BAD - 1
        if bad and self.where == "loss":
            batch["y"] = batch["y"] * np.float32(self.value)
        root = 0.0 if bad and self.where == "gradient" else 1.0
        return {**batch, "root": np.full(4, root, np.float32)}

    def batch_spec(self) -> PyTree:
        return self.train_batch(0, 0)

    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        sums, outputs = super().eval_step(params, model_state, batch)
        return {**sums, "other": sums["loss"]}, outputs

    def finish(self, outputs: Sequence[PyTree]) -> dict[str, float]:
        bad = self.where == "metric"
        return {"batches": 2.0, "shown": self.value if bad else 1.0}


def poison(value: float, at: int = BAD) -> optax.GradientTransformation:
    """SGD that adds a value to one row of an unused parameter, in one update."""

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates = jax.tree.map(lambda g: -0.05 * g, grads)
        row = jnp.where(state == at - 1, value, 0.0)
        updates["unused"] = updates["unused"].at[1].add(row)
        return updates, state + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def fit(
    workload: TinyWorkload,
    tx: optax.GradientTransformation | None = None,
    eval_params: EvalParams = current_params,
    steps: int = 20,
) -> tuple[RunResult, str]:
    stop = cb.StopIfDiverged()
    program = Program(workload, Optimizer(tx or optax.sgd(0.05), eval_params=eval_params))
    result = Trainer(program, Budget(steps=steps), [stop]).fit(program.init(0))
    return result, stop.found


def test_a_run_of_finite_numbers_does_not_diverge():
    result, found = fit(Poisoned())
    assert (result.reason, result.step, found) == (StopReason.BUDGET, 20, "")
    names = {"loss", "other", "batches", "shown"}  # the check adds none
    assert set(result.evaluations[-1].metrics) == {f"{s}/{n}" for s in Split for n in names}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_ends_the_run(value: float):
    result, found = fit(Poisoned("loss", value))
    assert (result.reason, found) == (StopReason.DIVERGED, "loss")
    assert BAD <= result.step <= BAD + 1  # one update is issued ahead


@pytest.mark.parametrize(
    "tx",
    [
        optax.sgd(0.05),
        optax.apply_if_finite(optax.sgd(0.05), 5),
        optax.chain(optax.zero_nans(), optax.clip_by_global_norm(1.0), optax.sgd(0.05)),
    ],
    ids=["used", "skipped", "cleaned and clipped"],
)
def test_a_gradient_that_is_not_finite_ends_the_run_whatever_the_optimizer_does(tx: Any):
    result, found = fit(Poisoned("gradient"), tx)
    assert (result.reason, found) == (StopReason.DIVERGED, "gradient")
    assert BAD <= result.step <= BAD + 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_parameters_that_no_loss_depends_on_are_found_at_the_next_evaluation(value: float):
    result, found = fit(Poisoned(), poison(value))
    assert (result.reason, found, result.step) == (StopReason.DIVERGED, "parameters", 10)
    assert all(np.isfinite(list(row.metrics.values())).all() for row in result.evaluations)


def test_trained_and_evaluated_parameters_are_both_checked():
    def without(opt_state: Any, params: Any) -> Any:
        return {**params, "unused": jnp.ones((2, 3))}

    def with_nan(opt_state: Any, params: Any) -> Any:
        return {**params, "unused": jnp.full((2, 3), jnp.nan)}

    assert fit(Poisoned(), poison(np.nan), without)[1] == "parameters"
    result, found = fit(Poisoned(), None, with_nan)
    assert (result.step, found) == (0, "parameters")


def test_parameters_are_checked_at_the_last_evaluation_too():
    result, found = fit(Poisoned(), poison(np.nan, at=8), steps=8)
    assert (result.reason, result.step, found) == (StopReason.DIVERGED, 8, "parameters")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_evaluated_metric_that_is_not_finite_ends_the_run(value: float):
    result, found = fit(Poisoned("metric", value))
    assert (result.reason, result.step, found) == (StopReason.DIVERGED, 0, "metric train/shown")


def test_the_first_finding_stays():
    stop = cb.StopIfDiverged()
    info = cb.StepInfo(3, 0.0, 0.1, 3, {"loss": 1.0, "grad_norm": float("inf")})
    assert stop.on_step_end(info) is StopReason.DIVERGED
    later = cb.StepInfo(3, 0.0, 0.1, 3, ending=StopReason.DIVERGED, finite_params=False)
    state = TrainState(*[jnp.zeros(())] * 5)
    assert stop.on_eval_end(later, {"train/loss": float("nan")}, state) is StopReason.DIVERGED
    assert stop.found == "gradient"


def test_all_finite_looks_at_every_kind_of_leaf():
    good = {"a": jnp.ones((2, 3)), "n": jnp.arange(3), "h": jnp.ones(2, jnp.bfloat16), "e": {}}
    assert bool(all_finite(good))
    assert bool(all_finite({}))
    for bad in ([1.0, jnp.nan], np.float16(-np.inf), 1j * np.inf):
        assert not bool(all_finite({**good, "x": jnp.asarray(bad)}))


def test_the_norm_of_a_half_precision_gradient_does_not_overflow():
    workload = TinyWorkload()
    params, model_state = workload.init(jax.random.key(0))
    params = jax.tree.map(lambda p: p.astype(jnp.float16), params)
    tx = optax.sgd(1e-6)
    step, key = jnp.zeros((), jnp.int32), jax.random.key(0)
    state = TrainState(step, params, model_state, tx.init(params), key)
    batch = workload.train_batch(0, 0)
    batch = {name: jnp.asarray(30 * value, jnp.float16) for name, value in batch.items()}
    norm = float(make_train_step(workload, tx)(state, batch, {})[1]["grad_norm"])
    assert 256 < norm < 60_000  # its square is infinite in float16


def test_the_record_says_what_was_not_finite():
    result, _ = fit(Poisoned("loss"))
    assert "not_finite" not in end_tags(fit(Poisoned())[0])
    told = end_tags(dataclasses.replace(result, not_finite="loss"))
    assert (told["diverged"], told["not_finite"]) == ("true", "loss")
