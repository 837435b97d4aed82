from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import TinyWorkload

from timetrial.framework import callbacks as cb
from timetrial.framework.budget import Budget, StopReason
from timetrial.framework.clock import Clock
from timetrial.framework.records import Row, RunResult
from timetrial.framework.state import TrainState
from timetrial.framework.step import Program, weighted_mean
from timetrial.framework.trainer import Trainer
from timetrial.framework.types import Direction, Metrics


class Recorder(cb.Callback):
    """Notes every call."""

    def __init__(self) -> None:
        self.starts = 0
        self.steps: list[cb.StepInfo] = []
        self.evals: list[cb.StepInfo] = []
        self.ends: list[RunResult | None] = []

    def on_fit_start(self, info: cb.StepInfo) -> None:
        self.starts += 1

    def on_step_end(self, info: cb.StepInfo) -> None:
        self.steps.append(info)

    def on_eval_end(self, info: cb.StepInfo, metrics: Metrics, state: TrainState) -> None:
        self.evals.append(info)

    def on_fit_end(self, result: RunResult | None) -> None:
        self.ends.append(result)


def fit(
    workload: TinyWorkload,
    budget: Budget,
    *callbacks: cb.Callback,
    tx: optax.GradientTransformation | None = None,
    clock: Clock | None = None,
    seed: int = 0,
) -> RunResult:
    program = Program(workload, tx or optax.sgd(0.05))
    chosen = [cb.StopIfDiverged(), cb.FeedRemainingFraction(), *callbacks]
    return Trainer(program, budget, chosen, seed, clock).fit(program.init(seed))


def test_a_step_budget_is_met_exactly_and_the_model_learns():
    result = fit(TinyWorkload(), Budget(steps=33))
    assert (result.step, result.reason) == (33, StopReason.BUDGET)
    assert int(result.state.step) == 33
    assert float(result.state.model_state["seen"]) == 33
    first, last = result.evaluations[0], result.evaluations[-1]
    assert last.metrics["train/loss"] < 0.2 * first.metrics["train/loss"]


def test_evaluates_before_the_first_update_at_the_cadence_and_once_at_the_end():
    at = [e.step for e in fit(TinyWorkload(eval_every_steps=3), Budget(steps=11)).evaluations]
    assert at == [0, 3, 6, 9, 11]
    at = [e.step for e in fit(TinyWorkload(eval_every_steps=3), Budget(steps=12)).evaluations]
    assert at == [0, 3, 6, 9, 12]


@pytest.mark.parametrize(("steps", "mark"), [(20, 15), (12, 9), (7, 6), (1, 1)])
def test_every_run_is_evaluated_at_three_quarters_of_its_budget(steps: int, mark: int):
    never = TinyWorkload(eval_every_steps=None)
    at = [e.step for e in fit(never, Budget(steps=steps)).evaluations]
    assert at == sorted({0, mark, steps})
    device = FakeTime(step_seconds=1.0)
    never = TinyWorkload(eval_every_steps=None)
    found = device.fit(never, Budget(seconds=float(steps))).evaluations
    assert [e.train_seconds for e in found] == sorted({0, mark, steps})


def test_a_budget_of_steps_and_seconds_is_evaluated_at_three_quarters_of_both():
    device = FakeTime(step_seconds=1.0)
    workload = TinyWorkload(eval_every_steps=None)
    found = device.fit(workload, Budget(steps=8, also_seconds=40.0)).evaluations
    assert [e.step for e in found] == [0, 6, 8, 30, 40]


def test_evaluates_at_a_cadence_of_charged_seconds():
    device = FakeTime(step_seconds=1.0)
    workload = TinyWorkload(eval_every_steps=None, eval_every_seconds=3.0)
    result = device.fit(workload, Budget(steps=10))
    seconds = [e.train_seconds for e in result.evaluations]
    assert seconds[0] == 0
    assert seconds[-1] == 10
    gaps = np.diff(seconds[:-1])
    assert (gaps >= 3).all()
    assert (gaps <= 4).all()


def test_every_update_is_reported_once_in_order_with_its_own_loss():
    recorder = Recorder()
    fit(TinyWorkload(eval_every_steps=4), Budget(steps=11), recorder)
    assert [info.step for info in recorder.steps] == list(range(1, 12))
    assert recorder.starts == 1
    assert len(recorder.ends) == 1
    losses = [info.metrics["loss"] for info in recorder.steps]
    assert losses == pytest.approx(reference_losses(11), rel=1e-5)


def mean_loss(workload: TinyWorkload, batch, params) -> jax.Array:
    return workload.loss(params, {"seen": 0}, batch, jax.random.key(0))[0]


def reference_losses(steps: int) -> list[float]:
    """The same training in five plain lines."""
    workload, tx = TinyWorkload(), optax.sgd(0.05)
    state = Program(workload, tx).init(0)
    params, opt_state, losses = state.params, state.opt_state, []
    for step in range(steps):
        batch = workload.train_batch(0, step)
        loss_of = functools.partial(mean_loss, workload, batch)
        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(loss))
    return losses


def test_a_run_repeats_bitwise_and_another_seed_differs():
    first, again = (fit(TinyWorkload(), Budget(steps=9), seed=3) for _ in range(2))
    other = fit(TinyWorkload(), Budget(steps=9), seed=4)
    np.testing.assert_array_equal(first.state.params["w"], again.state.params["w"])
    assert not np.array_equal(first.state.params["w"], other.state.params["w"])


def test_starting_from_a_later_state_continues_the_run_bitwise():
    workload = TinyWorkload()
    program = Program(workload, optax.adam(0.05))
    callbacks = [cb.FeedRemainingFraction()]
    whole = Trainer(program, Budget(steps=13), callbacks).fit(program.init(0))
    half = Trainer(program, Budget(steps=6), callbacks).fit(program.init(0))
    rest = Trainer(program, Budget(steps=13), callbacks).fit(half.state)
    assert rest.step == 13
    np.testing.assert_array_equal(whole.state.params["w"], rest.state.params["w"])


def test_feeds_the_share_of_the_budget_that_remains():
    seen: list[float] = []

    def update(updates, state, params=None, *, remaining_fraction, **extra):
        jax.debug.callback(lambda value: seen.append(float(value)), remaining_fraction)
        return jax.tree.map(jnp.zeros_like, updates), state

    tx = optax.GradientTransformationExtraArgs(lambda params: (), update)
    fit(TinyWorkload(eval_every_steps=100), Budget(steps=4), tx=tx)
    jax.effects_barrier()
    assert sorted(seen, reverse=True) == [1.0, 0.75, 0.5, 0.25]


def test_on_fit_end_is_called_exactly_once_also_after_an_exception():
    class Bomb(cb.Callback):
        def on_step_end(self, info: cb.StepInfo) -> None:
            if info.step == 3:
                raise RuntimeError("boom")

    recorder = Recorder()
    with pytest.raises(RuntimeError, match="boom"):
        fit(TinyWorkload(), Budget(steps=9), recorder, Bomb())
    assert recorder.ends == [None]


def test_a_callback_that_fails_at_the_end_does_not_keep_the_others_from_ending():
    class Bomb(cb.Callback):
        def on_fit_end(self, result: RunResult | None) -> None:
            raise RuntimeError("boom")

    before, after = Recorder(), Recorder()
    with pytest.raises(RuntimeError, match="boom"):
        fit(TinyWorkload(), Budget(steps=2), before, Bomb(), after)
    assert len(before.ends) == len(after.ends) == 1


def test_ctrl_c_reaches_the_caller_and_every_row_was_handed_over():
    class Interrupt(cb.Callback):
        def on_step_end(self, info: cb.StepInfo) -> None:
            if info.step == 7:
                raise KeyboardInterrupt

    tracker = MemoryTracker()
    with pytest.raises(KeyboardInterrupt):
        fit(TinyWorkload(eval_every_steps=5), Budget(steps=20), cb.Track(tracker), Interrupt())
    steps = [row.step for row in tracker.rows if "batch/loss" in row.metrics]
    assert steps == [1, 2, 3, 4, 5, 6, 7]


def test_divergence_ends_the_run_at_once():
    result = fit(TinyWorkload(), Budget(steps=500), tx=optax.sgd(1e6))
    assert result.reason is StopReason.DIVERGED
    assert result.step < 60


def test_stop_at_target_ends_at_the_first_evaluation_that_reaches_it():
    target = cb.StopAtTarget("validation/loss", 0.5, Direction.MINIMIZE)
    result = fit(TinyWorkload(eval_every_steps=1), Budget(steps=500), target)
    assert result.reason is StopReason.TARGET
    values = [e.metrics["validation/loss"] for e in result.evaluations]
    assert values[-1] <= 0.5
    assert all(value > 0.5 for value in values[:-1])


def test_a_target_on_an_unknown_metric_names_the_known_ones():
    target = cb.StopAtTarget("validation/speed", 0.5, Direction.MINIMIZE)
    with pytest.raises(ValueError, match=r"validation/loss.*validation/speed"):
        fit(TinyWorkload(), Budget(steps=5), target)


def test_padding_and_ragged_batches_do_not_bias_a_mean():
    workload = TinyWorkload()
    program = Program(workload, optax.sgd(0.0))
    state = program.init(0)
    program.compile(state, {})
    x = np.concatenate([b["x"][b["weight"] > 0] for b in workload.eval_batches("test")])
    y = np.concatenate([b["y"][b["weight"] > 0] for b in workload.eval_batches("test")])
    expected = np.mean((x @ np.asarray(state.params["w"]) - y) ** 2)
    metrics = program.evaluate(state)
    assert metrics["test/loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["test/batches"] == 2


def test_weighted_mean_adds_up_in_float64_and_of_nothing_is_nan():
    many = [(np.float32(1.0), np.float32(1.0))] + [(np.float32(1e-8), np.float32(0.0))] * 10_000
    assert weighted_mean(many) == pytest.approx(1.0001, abs=1e-9)
    assert math.isnan(weighted_mean([(np.float32(0), np.float32(0))]))


class MemoryTracker:
    def __init__(self) -> None:
        self.rows: list[Row] = []

    def log(self, rows: Sequence[Row]) -> None:
        self.rows += rows

    def finish(self, status: str, tags: Mapping[str, str], summary: Mapping[str, float]) -> None:
        pass


class FakeTime:
    """A device on which every update takes the same time, which nothing else does."""

    def __init__(self, step_seconds: float) -> None:
        self.step_seconds = step_seconds
        self.seconds = 0.0
        self.ready: dict[int, float] = {}
        self.busy_until = 0.0

    def fit(self, workload: TinyWorkload, budget: Budget, *callbacks: cb.Callback) -> RunResult:
        program = Program(workload, optax.sgd(0.05))
        state = program.init(0)
        program.compile(state, {"remaining_fraction": np.float32(1)})
        step = program.train_step

        def timed_step(state, batch, inputs):
            state, metrics = step(state, batch, inputs)
            self.busy_until = max(self.busy_until, self.seconds) + self.step_seconds
            self.ready[id(metrics)] = self.busy_until
            self.kept = [*getattr(self, "kept", []), metrics]  # ids stay unique
            return state, metrics

        program.train_step = timed_step
        clock = Clock(lambda: self.seconds, self.wait)
        chosen = [cb.FeedRemainingFraction(), *callbacks]
        return Trainer(program, budget, chosen, 0, clock).fit(state)

    def wait(self, arrays: object) -> None:
        if isinstance(arrays, TrainState):
            self.seconds = max(self.seconds, self.busy_until)
        elif id(arrays) in self.ready:
            self.seconds = max(self.seconds, self.ready[id(arrays)])


@pytest.mark.parametrize("limit", [0.3, 1.0, 4.0, 10.2, 99.9])
def test_a_time_budget_is_overshot_by_less_than_one_update(limit: float):
    result = FakeTime(step_seconds=1.0).fit(TinyWorkload(eval_every_steps=7), Budget(seconds=limit))
    assert result.reason is StopReason.BUDGET
    assert limit <= result.seconds["train"] < limit + 1.0
    assert result.evaluations[-1].step == result.step


@pytest.mark.parametrize(("steps", "seconds"), [(20, 5.5), (5, 12.0), (8, 8.0)])
def test_one_run_can_serve_a_step_and_a_time_budget(steps: int, seconds: float):
    result = FakeTime(step_seconds=1.0).fit(
        TinyWorkload(eval_every_steps=7), Budget(steps=steps, also_seconds=seconds)
    )
    assert result.step == max(steps, math.ceil(seconds))
    at = [e.step for e in result.evaluations]
    assert {0, steps, math.ceil(seconds)} <= set(at)
    assert len(at) == len(set(at))


def test_the_device_is_kept_busy_while_the_loop_waits_for_the_update_before():
    """With one update issued ahead, N updates take N times one, not more."""
    device = FakeTime(step_seconds=1.0)
    recorder = Recorder()
    device.fit(TinyWorkload(eval_every_steps=100), Budget(steps=20), recorder)
    assert [info.train_seconds for info in recorder.steps] == list(range(1, 21))


def test_the_accounts_sum_to_the_wall_time_on_a_slow_device():
    class Slow(TinyWorkload):
        def loss(self, params, model_state, batch, key):
            loss, state = super().loss(params, model_state, batch, key)
            return loss + 0 * device_sleep(batch["x"][0, 0], 0.02), state

        def eval_step(self, params, model_state, batch):
            sums, outputs = super().eval_step(params, model_state, batch)
            value, weight = sums["loss"]
            return {"loss": (value + 0 * device_sleep(batch["x"][0, 0], 0.01), weight)}, outputs

    class SlowLog(cb.Callback):
        def on_eval_end(self, info: cb.StepInfo, metrics: Metrics, state: TrainState) -> None:
            time.sleep(0.03)

    program = Program(Slow(eval_every_steps=10), optax.sgd(0.05))
    state, clock = program.init(0), Clock()  # the accounts begin with the trainer
    trainer = Trainer(program, Budget(steps=20), [SlowLog()], 0, clock)
    started = time.perf_counter()
    result = trainer.fit(state)
    wall = time.perf_counter() - started
    assert sum(result.seconds.values()) == pytest.approx(wall, rel=0.02)
    assert result.seconds["train"] >= 20 * 0.02
    assert result.seconds["eval"] >= 3 * 6 * 0.01
    assert result.seconds["log"] >= 3 * 0.03
    assert result.seconds["compile"] > 0


def device_sleep(x: jax.Array, seconds: float) -> jax.Array:
    def sleep(value: np.ndarray) -> np.ndarray:
        time.sleep(seconds)
        return np.asarray(value)

    shape = jax.ShapeDtypeStruct((), jnp.float32)
    return jax.lax.stop_gradient(jax.pure_callback(sleep, shape, jax.lax.stop_gradient(x)))


def test_charging_compilation_moves_it_from_its_own_account_to_training():
    apart = fit(TinyWorkload(), Budget(steps=2))
    together = fit(TinyWorkload(), Budget(steps=2, charge_compile=True))
    assert apart.seconds["compile"] > 5 * apart.seconds["train"]
    assert "compile" not in together.seconds
    assert together.seconds["train"] > 5 * apart.seconds["train"]


def test_a_budget_binds_without_any_callback():
    program = Program(TinyWorkload(eval_every_steps=None), optax.sgd(0.01))
    result = Trainer(program, Budget(steps=10), []).fit(program.init(0))
    assert (result.reason, result.step) == (StopReason.BUDGET, 10)


@pytest.mark.parametrize("last_step", [19, 20, 21, 22])
def test_the_last_step_is_not_overshot_behind_an_evaluation(last_step: int):
    program = Program(TinyWorkload(eval_every_steps=20), optax.sgd(0.01))
    trainer = Trainer(program, Budget(steps=40), [], last_step=last_step)
    result = trainer.fit(program.init(0))
    assert (result.reason, result.step) == (StopReason.COMPLETE, last_step)
    assert result.evaluations[-1].step == last_step
