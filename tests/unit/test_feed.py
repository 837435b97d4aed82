"""Batches on their way to the device, and the seconds that updates wait for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import jax
import numpy as np
import optax
import pytest
from tiny import TinyWorkload

from timetrial.framework import callbacks as cb
from timetrial.framework.budget import Budget
from timetrial.framework.clock import Clock
from timetrial.framework.feed import Feed, is_ready
from timetrial.framework.step import EVALUATIONS_AHEAD, Program
from timetrial.framework.trainer import Trainer
from timetrial.framework.workload import Batch


class Source:
    """Numbered batches that count how far they were made, and know whether they are closed."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = False

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.made += 1
        return {"x": np.full(3, self.made)}

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
def test_batches_come_in_order_and_so_many_ahead(ahead: int) -> None:
    source = Source()
    feed = Feed(source, ahead)
    for number in range(1, 9):
        np.testing.assert_array_equal(next(feed)["x"], np.full(3, number))
        assert source.made == number + ahead
    feed.close()
    assert source.closed


def test_batches_ahead_are_on_the_device() -> None:
    assert isinstance(next(Feed(Source(), 2))["x"], jax.Array)
    assert isinstance(next(Feed(Source(), 0))["x"], np.ndarray)
    Feed(iter([])).close()  # a list iterator has no close


def test_metrics_that_are_computed_are_ready() -> None:
    array = jax.block_until_ready(jax.numpy.ones(3))
    assert is_ready({"loss": array, "host": np.float32(1)})


class SlowData(TinyWorkload):
    """Batches that take 0.25 s of a clock that stands still otherwise."""

    seconds = 0.0

    def batches(self, seed: int, start: int) -> Iterator[Batch]:
        for step in itertools.count(start):
            self.seconds += 0.25
            yield self.train_batch(seed, step)


def test_the_budget_pays_for_waiting_for_data_in_an_account_of_its_own() -> None:
    workload = SlowData(eval_every_steps=None)
    clock = Clock(lambda: workload.seconds)
    program = Program(workload, optax.sgd(0.05))
    feeds = [cb.FeedRemainingFraction()]
    trainer = Trainer(program, Budget(seconds=2.0), feeds, 0, clock)
    result = trainer.fit(program.init(0))
    assert result.step == 8
    assert result.seconds["data_wait"] == 2.0
    assert result.seconds["train"] == 0.0
    assert result.train_seconds == clock.train_seconds == 2.0
    assert sum(result.seconds.values()) == workload.seconds
    assert 0 <= result.stalled_updates <= 7
    again = Clock(lambda: 0.0)
    again.resume(clock.accounts())
    assert again.train_seconds == 2.0


def test_training_from_batches_ahead_is_bitwise_that_from_single_ones() -> None:
    def losses(workload: TinyWorkload) -> list[float]:
        program = Program(workload, optax.adam(0.01))
        fit = Trainer(program, Budget(steps=9), [cb.FeedRemainingFraction()]).fit
        return [row.metrics["train/loss"] for row in fit(program.init(0)).evaluations]

    class Ahead(TinyWorkload):
        def batches(self, seed: int, start: int) -> Iterator[Batch]:
            return Feed(super().batches(seed, start), 3)

    assert losses(Ahead(eval_every_steps=2)) == losses(TinyWorkload(eval_every_steps=2))


class Counted(TinyWorkload):
    """Evaluation batches made one by one; the largest number under way at once."""

    made = 0

    def eval_batches(self, split):
        for batch in super().eval_batches(split):
            self.made += 1
            yield batch


def test_evaluation_batches_are_made_one_by_one_and_not_kept(monkeypatch) -> None:
    workload = Counted()
    program = Program(workload, optax.sgd(0.1))
    state = program.init(0)
    program.compile(state, {})
    fetched: list[int] = []
    real = jax.device_get

    def device_get(tree):
        fetched.append(workload.made)
        return real(tree)

    workload.made = 0
    monkeypatch.setattr(jax, "device_get", device_get)
    whole = program.evaluate(state)
    plain = Program(TinyWorkload(), optax.sgd(0.1))
    plain.compile(state, {})
    assert whole == plain.evaluate(state)
    assert fetched[0] <= EVALUATIONS_AHEAD + 1
