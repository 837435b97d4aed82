"""The cost of an update beside Adam's."""

from __future__ import annotations

import jax.numpy as jnp
import optax
import pytest

from timetrial.bench.contracts.cost import cost
from timetrial.bench.contracts.optimizers import Subject
from timetrial.framework.config import Choice
from timetrial.framework.entries import OptimizerEntry
from timetrial.framework.plugins import entry_of
from timetrial.optimizers import OPTIMIZERS

PARAMS = {"w": jnp.ones((300, 200)), "b": jnp.ones(200)}


def test_adam_costs_what_adam_costs():
    found = cost(Subject(Choice("adam", OPTIMIZERS["adam"].settings())), PARAMS, "a layer")
    assert 1 / 3 < found.ratio < 3
    assert found.seconds > 0
    assert found.bytes == pytest.approx(8, abs=0.01)  # two float32 moments, and a count
    assert found.tree == "a layer (60,200 parameters in 2 tensors)"
    assert "x Adam's" in str(found)


def test_an_optimizer_that_keeps_nothing_and_one_that_works_hard(monkeypatch: pytest.MonkeyPatch):
    def hard(rate: float = 0.1):
        def update(grads, state, params=None):
            matrix = grads["w"]
            for _ in range(20):
                matrix = jnp.tanh(matrix @ (matrix.T @ matrix))
            return {"w": -rate * matrix, "b": grads["b"]}, state

        return optax.GradientTransformation(lambda params: optax.EmptyState(), update)

    entry = entry_of(hard, OptimizerEntry)
    monkeypatch.setitem(OPTIMIZERS, "hard", entry)
    found = cost(Subject(Choice("hard", entry.settings())), PARAMS, "a layer")
    assert found.bytes == 0
    assert found.ratio > 3
