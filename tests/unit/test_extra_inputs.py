"""The extra inputs of an optimizer's update: declared, passed, refused, charged."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import TinyWorkload

from timetrial.framework import callbacks as cb
from timetrial.framework.budget import Budget
from timetrial.framework.entries import Horizon, Optimizer, OptimizerEntry
from timetrial.framework.errors import ConfigError
from timetrial.framework.extra_inputs import FROM_STEP
from timetrial.framework.records import RunResult
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.optimizers import OPTIMIZERS


@dataclasses.dataclass(frozen=True)
class NoSettings:
    pass


def spy(**keywords: Any) -> tuple[optax.GradientTransformationExtraArgs, list[set[str]]]:
    """SGD with any keyword, and the list of those it was passed."""
    seen: list[set[str]] = []

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        seen.append(set(extra))
        return jax.tree.map(lambda g: -0.05 * g, grads), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update), seen


def trained(optimizer: Optimizer | optax.GradientTransformation, steps: int = 20) -> RunResult:
    program = Program(TinyWorkload(), optimizer)
    callbacks: list[cb.Callback] = [cb.StopIfDiverged(), cb.FeedRemainingFraction()]
    return Trainer(program, Budget(steps=steps), callbacks).fit(program.init(0))


def last_loss(result: RunResult) -> float:
    return result.evaluations[-1].metrics["train/loss"]


@pytest.mark.parametrize(
    "takes", [(), ("value",), ("grad_fn", "remaining_fraction"), (*FROM_STEP, "remaining_fraction")]
)
def test_an_update_gets_just_what_its_entry_declares(takes: tuple[str, ...]):
    tx, seen = spy()
    entry = OptimizerEntry("spy", NoSettings, lambda settings, horizon: tx, takes=takes)
    trained(entry.build(NoSettings(), Horizon(20, 20)), steps=2)
    assert seen
    assert all(names == set(takes) for names in seen)


def test_without_a_declaration_the_signature_decides():
    tx, seen = spy()
    trained(tx, steps=2)
    assert seen[0] == {"value", "remaining_fraction"}  # no closures unless they are named

    def named(grads: Any, state: Any, params: Any = None, *, value_fn: Any) -> tuple[Any, Any]:
        assert callable(value_fn)
        return jax.tree.map(jnp.zeros_like, grads), state

    trained(optax.GradientTransformationExtraArgs(lambda params: (), named), steps=2)


def test_an_optimizer_with_a_strict_list_of_keywords_trains():
    tx = optax.contrib.sam(optax.sgd(0.05), optax.sgd(0.01))  # refuses the keyword value
    assert np.isfinite(last_loss(trained(Optimizer(tx, takes=()))))
    assert last_loss(trained(tx)) == last_loss(trained(Optimizer(tx, takes=())))


def test_closures_serve_a_line_search_and_sharpness_aware_minimisation():
    start = last_loss(trained(Optimizer(optax.sgd(0.0), takes=())))
    lbfgs = Optimizer(optax.lbfgs(), takes=("value", "grad", "value_fn"))
    assert last_loss(trained(lbfgs)) < 0.2 * start
    sam = optax.contrib.sam(optax.sgd(0.05), optax.sgd(0.01), opaque_mode=True)
    assert last_loss(trained(Optimizer(sam, takes=("grad_fn",)))) < start


def test_closures_compute_loss_and_gradient_of_the_same_batch_with_the_same_key():
    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        apart = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), extra["grad_fn"](params), grads)
        state = (extra["value_fn"](params) - extra["value"], max(jax.tree.leaves(apart), key=id))
        return jax.tree.map(jnp.zeros_like, grads), state

    def init(params: Any) -> Any:
        return jnp.ones(()), jnp.ones(())

    tx = optax.GradientTransformationExtraArgs(init, update)
    takes = ("value", "value_fn", "grad_fn")
    assert [float(x) for x in trained(Optimizer(tx, takes), 3).state.opt_state] == [0.0, 0.0]


def test_what_a_closure_costs_is_part_of_the_compiled_update():
    def flops(takes: tuple[str, ...]) -> float:
        def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
            if "grad_fn" in extra:
                elsewhere = jax.tree.map(lambda p: p + 0.1, params)
                grads = extra["grad_fn"](elsewhere)
            return jax.tree.map(lambda g: -0.05 * g, grads), state

        tx = optax.GradientTransformationExtraArgs(lambda params: (), update)
        program = Program(TinyWorkload(), Optimizer(tx, takes))
        state = program.init(0)
        program.compile(state, {})
        return float(program._train_step.cost_analysis()["flops"])

    assert flops(("grad_fn",)) > 1.5 * flops(())


@pytest.mark.parametrize(
    ("takes", "tx", "message"),
    [
        (("valu",), spy()[0], "takes: expected names among value, grad, .*, got 'valu'"),
        (("value",), optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1)), "'value' is declared, but"),
        (("value",), optax.GradientTransformation(*optax.sgd(0.1)), "'value' is declared, but"),
    ],
)
def test_an_input_that_is_unknown_or_not_accepted_is_named(takes: Any, tx: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        trained(Optimizer(tx, takes), steps=1)


def test_every_built_in_optimizer_declares_its_inputs():
    undeclared = [name for name, entry in OPTIMIZERS.built_in.items() if entry.takes is None]
    assert not undeclared
    feeding = [name for name, e in OPTIMIZERS.built_in.items() if e.needs_feed]
    assert all("remaining_fraction" in (OPTIMIZERS[name].takes or ()) for name in feeding)


@pytest.mark.parametrize("takes", ["value", (1,)])
def test_a_declaration_of_another_type_is_refused(takes: Any):
    with pytest.raises(TypeError, match=r"takes: expected names as in \(\"value\",\)"):
        OptimizerEntry("bad", NoSettings, lambda settings, horizon: spy()[0], takes=takes)
