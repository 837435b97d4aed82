"""The point of evaluation: averages inside combinations, batch-norm statistics, what is charged."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import TinyWorkload

from timetrial.framework.budget import Budget
from timetrial.framework.callbacks import Callback, StepInfo
from timetrial.framework.clock import Clock
from timetrial.framework.entries import Optimizer, OptimizerEntry
from timetrial.framework.nested import at_owned, find_states
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer


class Averages(NamedTuple):
    mean: Any


def averaged(rate: float = 0.05, decay: float = 0.9) -> optax.GradientTransformation:
    """SGD that keeps an exponential moving average of the parameters."""

    def update(grads: Any, state: Averages, params: Any = None) -> tuple[Any, Averages]:
        updates = jax.tree.map(lambda g: -rate * g, grads)
        new = optax.apply_updates(params, updates)
        mean = jax.tree.map(lambda m, p: decay * m + (1 - decay) * p, state.mean, new)
        return updates, Averages(mean)

    return optax.GradientTransformation(lambda params: Averages(params), update)


def mean_of(opt_state: Any, params: Any) -> Any:
    for found in find_states(opt_state, Averages):
        params = at_owned(lambda mean, p: mean, found.mean, params)
    return params


PARAMS = {"a": jnp.ones(3), "b": jnp.ones((2, 2)), "c": {}}


@pytest.mark.parametrize(
    ("tx", "owned"),
    [
        (averaged(), "ab"),
        (optax.chain(optax.clip_by_global_norm(1.0), averaged()), "ab"),
        (optax.masked(averaged(), {"a": True, "b": False, "c": {}}), "a"),
        (optax.chain(optax.masked(averaged(), {"a": False, "b": True, "c": {}})), "b"),
        (
            optax.partition(
                {"x": averaged(), "y": averaged(decay=0.5)}, {"a": "x", "b": "y", "c": {}}
            ),
            "ab",
        ),
        (optax.MultiSteps(averaged(), 1).gradient_transformation(), "ab"),
    ],
    ids=["alone", "chain", "masked", "masked in a chain", "partition", "MultiSteps"],
)
def test_an_average_is_found_inside_any_combination(tx: Any, owned: str):
    state = tx.init(PARAMS)
    moved = jax.tree.map(lambda p: p + 1, PARAMS)
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    _, state = tx.update(grads, state, moved)
    found = mean_of(state, moved)
    assert jax.tree.structure(found) == jax.tree.structure(PARAMS)
    for name in "ab":
        same = np.array_equal(found[name], moved[name])
        assert same == (name not in owned)


def test_a_missing_state_is_named():
    state = optax.chain(optax.clip(1.0), optax.sgd(0.1)).init(PARAMS)
    with pytest.raises(LookupError, match="expected a Averages inside the state, got EmptyState"):
        find_states(state, Averages)


class Normed(TinyWorkload):
    """Keeps a running mean of the predictions, as batch norm does."""

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        return super().init(key)[0], {"mean": jnp.zeros(())}

    def loss(self, params: Any, model_state: Any, batch: Any, key: jax.Array) -> Any:
        loss, _ = super().loss(params, {"seen": 0}, batch, key)
        mean = 0.5 * model_state["mean"] + 0.5 * jnp.sum(params["w"])
        return loss, {"mean": mean}

    def eval_step(self, params: Any, model_state: Any, batch: Any) -> Any:
        sums, outputs = super().eval_step(params, {}, batch)
        return {**sums, "norm": (model_state["mean"], np.float32(1))}, outputs


@pytest.mark.parametrize("refresh", [0, 3])
def test_batch_norm_statistics_are_those_of_the_evaluated_point(refresh: int):
    optimizer = Optimizer(averaged(), (), mean_of, refresh)
    program = Program(Normed(), optimizer)
    result = Trainer(program, Budget(steps=12), []).fit(program.init(0))
    state = result.state
    at_mean = float(jnp.sum(mean_of(state.opt_state, state.params)["w"]))
    expected = float(state.model_state["mean"])
    for _ in range(refresh):
        expected = 0.5 * expected + 0.5 * at_mean
    splits = program.workload.splits
    found = [result.evaluations[-1].metrics[f"{split}/norm"] for split in splits]
    assert found == pytest.approx([expected] * len(splits), rel=1e-5)
    plain = Program(Normed(), averaged())
    trained = Trainer(plain, Budget(steps=12), []).fit(plain.init(0)).state
    jax.tree.map(np.testing.assert_array_equal, trained.model_state, state.model_state)
    jax.tree.map(np.testing.assert_array_equal, trained.params, state.params)


class Seconds(Callback):
    def __init__(self) -> None:
        self.at_steps: list[float] = []
        self.at_evaluations: list[float] = []

    def on_step_end(self, info: StepInfo) -> None:
        self.at_steps.append(info.train_seconds)

    def on_eval_end(self, info: StepInfo, metrics: Any, state: Any) -> None:
        self.at_evaluations.append(info.train_seconds)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_preparing_an_evaluation_is_charged_and_the_evaluation_is_not(elsewhere: bool):
    ticks = [0.0]

    class Slow(Program):
        def eval_point(self, state: Any) -> Any:
            ticks[0] += 5.0
            return super().eval_point(state)

        def evaluate(self, *arguments: Any) -> Any:
            ticks[0] += 100.0
            return super().evaluate(*arguments)

    optimizer = Optimizer(averaged(), (), mean_of) if elsewhere else Optimizer(averaged(), ())
    program = Slow(TinyWorkload(eval_every_steps=5), optimizer)
    seconds = Seconds()
    clock = Clock(now=lambda: ticks[0])
    result = Trainer(program, Budget(steps=10), [seconds], clock=clock).fit(program.init(0))
    evaluations = len(result.evaluations)
    assert evaluations >= 3
    assert result.seconds["train"] == (5.0 * evaluations if elsewhere else 0.0)
    assert result.seconds["eval"] >= 100.0 * evaluations
    assert seconds.at_evaluations == [result.seconds["train"] * (i + 1) / evaluations
                                      for i in range(evaluations)]  # fmt: skip


@pytest.mark.parametrize("refresh", [-1, 0.5])
def test_a_number_of_batches_that_is_none_is_refused(refresh: Any):
    @dataclasses.dataclass(frozen=True)
    class No:
        pass

    with pytest.raises(ValueError, match="norm_refresh: expected a whole number >= 0"):
        OptimizerEntry("bad", No, lambda settings, horizon: averaged(), norm_refresh=refresh)
