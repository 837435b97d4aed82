"""Every shipped check fails on a violation of its rule, and its text shows the violation."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import io_callback

from timetrial.bench.check import check
from timetrial.bench.contracts import optimizers, workloads
from timetrial.bench.contracts.regression import Regression
from timetrial.framework.config import Choice
from timetrial.framework.entries import Horizon, OptimizerEntry, WorkloadEntry
from timetrial.framework.errors import UserError
from timetrial.framework.spaces import Range
from timetrial.framework.types import Direction, Split
from timetrial.optimizers import OPTIMIZERS
from timetrial.workloads import WORKLOADS


@dataclasses.dataclass(frozen=True)
class Rate:
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.learning_rate > 1:
            raise ValueError(f"learning_rate: expected at most 1, got {self.learning_rate}")


@dataclasses.dataclass
class Loose:
    learning_rate: float = 0.1


def make(settings: Any, horizon: Horizon) -> optax.GradientTransformation:
    return optax.sgd(settings.learning_rate)


def _stateful(change: Callable[[Any, Any], Any], start: Any = 0) -> Callable[..., Any]:
    """``make`` of an optimizer whose state after each update is ``change(state, grads)``."""

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree.map(lambda g: -0.1 * g, grads), change(state, grads)

    return lambda settings, horizon: optax.GradientTransformation(
        lambda params: jnp.asarray(start), update
    )


def _impure() -> Callable[..., Any]:
    """An optimizer that counts how often it is traced."""

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        calls.append(1)
        return jax.tree.map(lambda g: -0.1 * len(calls) * g, grads), state

    calls: list[int] = []
    return lambda settings, horizon: optax.GradientTransformation(lambda params: (), update)


def _hidden() -> Callable[..., Any]:
    """An optimizer that counts its updates outside its state."""
    calls = itertools.count()

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        number = io_callback(lambda: np.float32(next(calls)), jnp.float32(0))
        return jax.tree.map(lambda g: -0.1 / (1 + number) * g, grads), state

    return lambda settings, horizon: optax.GradientTransformation(lambda params: (), update)


def _swayed() -> dict[str, Any]:
    """An optimizer whose updates depend on the number of evaluations."""
    evaluations: list[int] = []

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        number = io_callback(lambda: np.float32(len(evaluations)), jnp.float32(0))
        return jax.tree.map(lambda g: -0.1 / (1 + number) * g, grads), state

    def eval_params(state: Any, params: Any) -> Any:
        io_callback(lambda: evaluations.append(1), None)
        return jax.tree.map(lambda p: p + 0, params)

    tx = optax.GradientTransformation(lambda params: (), update)
    return {"made": lambda settings, horizon: tx, "eval_params": eval_params}


def _nan_when_masked(settings: Any, horizon: Horizon) -> optax.GradientTransformation:
    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        whole = len(jax.tree.leaves(grads)) == 4
        factor = -0.1 if whole else jnp.nan
        return jax.tree.map(lambda g: factor * g, grads), jnp.float32(factor)

    return optax.GradientTransformation(lambda params: jnp.float32(0), update)


def entry(settings: Any = Rate, made: Any = make, **more: Any) -> OptimizerEntry:
    return OptimizerEntry("broken", settings, made, **more)


BAD_OPTIMIZERS: dict[str, tuple[OptimizerEntry, str]] = {
    "settings_are_frozen_and_described": (entry(Loose), "frozen=True"),
    "records_text_and_finite_learning_rates": (
        entry(learning_rates=lambda settings, horizon: lambda step: 1.0 / step),
        "expected finite learning rates at 201 steps, got 200 of them",
    ),
    "takes_every_value_of_its_search_space": (
        entry(space={"learning_rate": Range(0.1, 2.0)}),
        "learning_rate = 2.0",
    ),
    "keeps_shapes_and_dtypes_and_moves_every_tensor": (
        entry(made=_stateful(lambda state, grads: state + 0.5)),
        "expected a state",
    ),
    "updates_alike_compiled_one_by_one_and_under_scan": (entry(made=_impure()), "Not equal"),
    "vmap_over_seeds_equals_a_loop_over_seeds": (entry(made=_impure()), "Not equal"),
    "works_in_a_chain_and_masked": (entry(made=_nan_when_masked), "expected finite numbers"),
    "keeps_the_types_of_its_state_for_parameters_of_any_dtype": (
        entry(made=_stateful(lambda state, grads: state.astype(grads["matrix"].dtype), 0.0)),
        r"expected a state \(bfloat16, x64 False\)",
    ),
    "evaluations_leave_the_training_unchanged": (
        entry(**_swayed()),
        "without evaluations, got another one",
    ),
    "evaluates_at_parameters_of_the_same_shapes": (
        entry(eval_params=lambda state, params: {"scalar": params["scalar"]}),
        "expected parameters",
    ),
    "training_lowers_the_loss_and_repeats_bitwise": (
        entry(made=lambda settings, horizon: optax.sgd(-1e-4)),
        "expected a loss below",
    ),
    "a_run_from_a_checkpoint_is_bitwise_the_same": (
        entry(made=_hidden()),
        "after a checkpoint, got another one",
    ),
}


@pytest.mark.parametrize("each", optimizers.CHECKS, ids=lambda each: each.__name__)
def test_an_optimizer_that_breaks_a_rule_fails_its_check(
    each: optimizers.Check, monkeypatch: pytest.MonkeyPatch
):
    broken, message = BAD_OPTIMIZERS[each.__name__]
    monkeypatch.setitem(OPTIMIZERS, "broken", broken)
    with pytest.raises((AssertionError, UserError), match=message):
        each(optimizers.Subject(Choice("broken", broken.settings())))


def test_a_make_that_returns_something_else_is_named(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setitem(OPTIMIZERS, "broken", entry(made=lambda settings, horizon: 3))
    assert check(["optimizer=broken"]) == 1
    out = capsys.readouterr().out
    assert "to return an optax.GradientTransformation, got int" in out
    assert out.splitlines()[-1] == "9 checks failed"
    assert "  ok     The settings are a frozen dataclass" in out


@dataclasses.dataclass(frozen=True)
class Sizes:
    batch_size: int = 4
    eval_batch_size: int = 4


class Sound(Regression):
    """Keeps the contract; each broken one breaks one rule of it."""

    name = "broken"

    def __init__(self, settings: Sizes) -> None:
        if min(settings.batch_size, settings.eval_batch_size) < 1:
            raise ValueError("batch_size, eval_batch_size: expected >= 1")
        super().__init__(batch_size=settings.batch_size)
        self.size = settings.eval_batch_size
        self.count = 0


class WrongName(Sound):
    name = "another"


class Random(Sound):
    def train_batch(self, seed: int, step: int) -> Any:
        self.count += 1
        return super().train_batch(seed, step + self.count)


class Shared(Sound):
    def train_batch(self, seed: int, step: int) -> Any:
        if not self.count:
            self.kept, self.count = super().train_batch(seed, step), 1
        return self.kept


class Behind(Sound):
    def batches(self, seed: int, start: int) -> Any:
        return (self.train_batch(seed, step) for step in itertools.count(start + 1))


class Moving(Sound):
    def eval_batches(self, split: Split) -> Any:
        self.count += 1
        return super().eval_batches(list(Split)[self.count % 3])


class Backwards(Sound):
    def loss(self, params: Any, model_state: Any, batch: Any, key: Any) -> Any:
        loss, state = super().loss(params, model_state, batch, key)
        return -loss, state


class SizeCounts(Sound):
    def finish(self, outputs: Any) -> dict[str, float]:
        return {"size": float(self.size)}


class PaddingCounts(Sound):
    def eval_step(self, params: Any, model_state: Any, batch: Any) -> Any:
        sums, outputs = super().eval_step(params, model_state, batch)
        return sums | {"mean": (jnp.sum(jnp.asarray(batch["y"])), jnp.float32(4))}, outputs


class SameStart(Sound):
    def init(self, key: jax.Array) -> Any:
        return super().init(jax.random.key(0))


class Growing(Sound):
    def loss(self, params: Any, model_state: Any, batch: Any, key: Any) -> Any:
        loss, state = super().loss(params, model_state, batch, key)
        return loss, state | {"more": loss}


class NoDigest(Sound):
    def datasets(self) -> Any:
        return {"data": "of yesterday"}


class TakesAnything(Sound):
    def __init__(self, settings: Sizes) -> None:
        super().__init__(Sizes())


BAD_WORKLOADS: dict[str, tuple[type[Sound], str]] = {
    "the_entry_describes_it": (WrongName, "expected name = 'broken', got 'another'"),
    "batches_are_a_function_of_seed_and_step": (Random, "expected equal batches of update 0"),
    "changing_a_batch_changes_no_other": (Shared, "expected the same batch again"),
    "batches_ahead_are_those_of_every_step": (Behind, "the batch of 0"),
    "evaluation_batches_are_fixed_and_of_one_shape": (Moving, "the same batches of train again"),
    "it_learns": (Backwards, "expected a train loss below"),
    "metrics_do_not_depend_on_the_evaluation_batch_size": (SizeCounts, "eval_batch_size=7"),
    "padding_counts_for_nothing": (PaddingCounts, "mean"),
    "initialisation_is_a_function_of_the_key": (SameStart, "expected other parameters"),
    "training_state_keeps_its_structure": (Growing, "expected a model state"),
    "a_run_from_a_checkpoint_is_bitwise_the_same": (Random, "after a checkpoint, got another one"),
    "data_sets_have_digests": (NoDigest, "expected 64 hexadecimal digits for data"),
    "impossible_sizes_are_refused": (TakesAnything, "a ValueError for batch_size=-1"),
    "targets_are_finite": (Sound, "a finite target for validation"),
}


@pytest.mark.parametrize("each", workloads.CHECKS, ids=lambda each: each.__name__)
def test_a_workload_that_breaks_a_rule_fails_its_check(
    each: workloads.Check, monkeypatch: pytest.MonkeyPatch
):
    broken, message = BAD_WORKLOADS[each.__name__]
    targets = {Split.VALIDATION: float("nan")} if broken is Sound else {}
    made = WorkloadEntry("broken", Sizes, broken, targets)
    monkeypatch.setitem(WORKLOADS, "broken", made)
    with pytest.raises(AssertionError, match=message):
        each(workloads.Subject(Choice("broken", Sizes())))


def test_a_sound_workload_passes_every_check(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setitem(WORKLOADS, "broken", WorkloadEntry("sound", Sizes, Sound))
    assert check(["workload=broken", "workload.eval_batch_size=4"]) == 0, capsys.readouterr().out


def test_an_entry_is_checked_where_it_is_made():
    for bad, message in (
        (lambda: OptimizerEntry(3, Rate, make), "summary: expected text, got 3"),
        (lambda: entry(settings=dict), "settings: expected a class decorated with @dataclasses"),
        (lambda: entry(made=None), "make: expected a function, got None"),
        (lambda: entry(made=lambda settings: 3), r"expected make\(settings, horizon\), got make"),
        (lambda: WorkloadEntry("x", Sizes, lambda: 3), r"expected make\(settings\), got make\(\)"),
        (lambda: entry(color="red"), "color: expected \"\" or #rrggbb, got 'red'"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            bad()


def test_metric_and_direction_come_from_the_class_the_annotation_or_a_workload():
    def annotated(settings: Sizes) -> Regression:
        raise AssertionError("made without need")

    def bare(settings):
        return Sound(settings)

    for made in (Sound, annotated, bare):
        stated = WorkloadEntry("x", Sizes, made)
        assert (stated.metric, stated.direction) == ("loss", Direction.MINIMIZE)
    assert np.isfinite(Regression().step_hint)
