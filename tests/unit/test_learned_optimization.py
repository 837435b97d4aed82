"""The adapter for google/learned_optimization, driven with optimizers of the same interface.

The library itself cannot be installed on most machines; the last test needs it.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import TinyWorkload

from timetrial.framework.budget import Budget, StopReason
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.optimizers.adapters.learned_optimization import (
    from_learned_optimization,
    is_installed,
)


@flax.struct.dataclass
class State:
    params: Any
    momentum: Any
    state: Any
    num_steps: Any
    iteration: Any


class Optimizer:
    """The library's interface: the state owns the parameters."""

    def get_params(self, state: Any) -> Any:
        return state.params

    def set_params(self, state: Any, params: Any) -> Any:
        return state.replace(params=params)

    def init(self, params: Any, model_state: Any = None, num_steps: Any = None) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return State(params, zeros, model_state, num_steps, 0)

    def update(
        self, opt_state: Any, grad: Any, model_state: Any = None, loss: Any = None, **kwargs: Any
    ) -> Any:
        """Momentum with a rate that depends on the loss and on the share of steps made."""
        rate = 0.1 * jnp.tanh(loss) * (1 - opt_state.iteration / opt_state.num_steps)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, opt_state.momentum, grad)
        params = jax.tree.map(lambda p, m: p - rate * m, opt_state.params, momentum)
        return State(params, momentum, model_state, opt_state.num_steps, opt_state.iteration + 1)


@flax.struct.dataclass
class Wrapped:
    inner: Any


class Halving(Optimizer):
    """A wrapper that passes everything on, like the library's for weight decay."""

    def __init__(self, opt: Any) -> None:
        self.opt = opt

    def get_params(self, state: Any) -> Any:
        return self.opt.get_params(state.inner)

    def set_params(self, state: Any, params: Any) -> Any:
        return Wrapped(self.opt.set_params(state.inner, params))

    def init(self, params: Any, model_state: Any = None, **kwargs: Any) -> Any:
        return Wrapped(self.opt.init(params, model_state=model_state, **kwargs))

    def update(self, opt_state: Any, grad: Any, model_state: Any = None, **kwargs: Any) -> Any:
        grad = jax.tree.map(lambda g: g / 2, grad)
        return Wrapped(self.opt.update(opt_state.inner, grad, model_state=model_state, **kwargs))


class Stubborn(Halving):
    """A wrapper whose parameters cannot be set, as some of the library's are."""

    def set_params(self, state: Any, params: Any) -> Any:
        return state.replace(params=params)  # Wrapped has no such field: raises TypeError


class Noisy(Optimizer):
    """Needs a key, in ``init`` and in each update."""

    def init(self, params: Any, model_state: Any = None, num_steps: Any = None, *, key: Any) -> Any:
        return super().init(params, model_state, num_steps)

    def update(self, opt_state: Any, grad: Any, *, key: Any, **kwargs: Any) -> Any:
        noise = jax.random.normal(key)
        return super().update(opt_state, jax.tree.map(lambda g: g + noise, grad), **kwargs)


PARAMS = {"w": jnp.linspace(-1, 1, 12).reshape(3, 4), "b": jnp.float32(0.7)}
STEPS = 7


def loss_of(params: Any) -> jax.Array:
    return sum(jnp.sum((leaf - 0.3) ** 2) for leaf in jax.tree.leaves(params))


def natively(opt: Any, steps: int = STEPS, num_steps: int = 10) -> Any:
    state = opt.init(PARAMS, num_steps=num_steps)
    for _ in range(steps):
        loss, grads = jax.value_and_grad(loss_of)(opt.get_params(state))
        state = opt.update(state, grads, loss=loss)
    return opt.get_params(state)


def adapted(tx: Any, steps: int = STEPS, jit: bool = True) -> Any:
    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, state = tx.update(grads, state, params, value=loss, remaining_fraction=0.5)
        return (optax.apply_updates(params, updates), state), None

    carry = PARAMS, tx.init(PARAMS)
    if jit:
        return jax.lax.scan(step, carry, length=steps)[0][0]
    for _ in range(steps):
        carry, _ = step(carry, None)
    return carry[0]


def assert_close(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("opt", [Optimizer(), Halving(Optimizer()), Stubborn(Optimizer())])
def test_same_trajectory_as_the_library_itself(opt: Any, jit: bool) -> None:
    assert_close(adapted(from_learned_optimization(opt, 10), jit=jit), natively(opt))


def test_loss_and_number_of_steps_arrive() -> None:
    few = adapted(from_learned_optimization(Optimizer(), 10))
    many = adapted(from_learned_optimization(Optimizer(), 1000))
    assert not np.allclose(few["w"], many["w"], rtol=1e-3)


def test_parameters_are_not_stored_twice() -> None:
    def stored(opt: Any) -> int:
        state = from_learned_optimization(opt, 10).init(PARAMS)
        return sum(leaf.size for leaf in jax.tree.leaves(state))

    numbers_beside = 2 + 2  # num_steps, iteration; the key
    assert stored(Optimizer()) == 13 + numbers_beside
    assert stored(Halving(Optimizer())) == 13 + numbers_beside
    assert stored(Stubborn(Optimizer())) == 2 * 13 + numbers_beside


def test_parameters_given_are_the_truth() -> None:
    """What others do to the parameters between two updates is not undone."""
    tx = from_learned_optimization(Optimizer(), 10)
    moved = jax.tree.map(lambda p: p + 100, PARAMS)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = tx.update(zeros, tx.init(PARAMS), moved, value=jnp.float32(1))
    assert_close(updates, zeros)


def test_rounding_does_not_accumulate_where_parameters_cannot_be_set() -> None:
    """The adapter's parameters stay within one rounding of the optimizer's own."""
    opt = Stubborn(Optimizer())
    ours = adapted(from_learned_optimization(opt, 400), steps=200)
    assert_close(ours, natively(opt, steps=200, num_steps=400))


def test_keys_are_handed_out_to_those_that_want_them() -> None:
    def run(seed: int) -> Any:
        return adapted(from_learned_optimization(Noisy(), 10, key=jax.random.key(seed)))

    assert_close(run(0), run(0))
    assert_close(run(0), adapted(from_learned_optimization(Noisy(), 10)))
    assert not np.allclose(run(0)["w"], run(1)["w"])
    tx = from_learned_optimization(Noisy(), 10, key=jax.random.PRNGKey(3))
    noises = []
    state, zeros = tx.init(PARAMS), jax.tree.map(jnp.zeros_like, PARAMS)
    for _ in range(2):
        _, state = tx.update(zeros, state, PARAMS, value=jnp.float32(1))
        noises.append(float(state.inner.momentum["b"]))
    assert noises[0] * 0.9 != pytest.approx(noises[1])


def test_dtype_of_the_parameters_is_kept() -> None:
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    tx = from_learned_optimization(Optimizer(), 10)
    updates, _ = tx.update(params, tx.init(params), params, value=jnp.float32(1))
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}


def test_in_a_chain_and_under_vmap() -> None:
    tx = optax.chain(
        optax.clip_by_global_norm(1.0), from_learned_optimization(Optimizer(), 10), optax.scale(0.5)
    )

    def one(scale: jax.Array) -> Any:
        params = jax.tree.map(lambda p: scale * p, PARAMS)
        updates, _ = tx.update(params, tx.init(params), params, value=jnp.float32(1))
        return updates

    scales = jnp.array([0.5, 2.0])
    assert_close(jax.vmap(one)(scales)["w"][1], one(scales[1])["w"])


@pytest.mark.parametrize("opt", [Optimizer(), Stubborn(Optimizer())])
def test_runs_in_the_trainer(opt: Any) -> None:
    program = Program(TinyWorkload(), from_learned_optimization(opt, 40))
    result = Trainer(program, Budget(steps=20), []).fit(program.init(seed=0))
    assert (result.reason, result.step) == (StopReason.BUDGET, 20)
    losses = [e.metrics["train/loss"] for e in result.evaluations]
    assert losses[-1] < losses[0]


def test_misuse_is_told() -> None:
    with pytest.raises(TypeError, match="with a method get_params, got GradientTransformation"):
        from_learned_optimization(optax.sgd(0.1), 10)
    with pytest.raises(ValueError, match="num_steps: expected a whole number > 0 or None, got 0"):
        from_learned_optimization(Optimizer(), 0)
    tx = from_learned_optimization(Optimizer(), 10)
    with pytest.raises(ValueError, match="params: expected the current parameters"):
        tx.update(PARAMS, tx.init(PARAMS), value=jnp.float32(1))
    with pytest.raises(TypeError, match="value"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_the_library_is_never_imported() -> None:
    code = (
        "import sys; from timetrial.optimizers.adapters import learned_optimization as ours; "
        "ours.is_installed(); "
        "sys.exit('learned_optimization' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.filterwarnings("ignore")
def test_with_the_library_itself() -> None:
    """Its own optimizers, driven by its own interface and by ours."""
    pytest.importorskip("learned_optimization.optimizers.nadamw")  # the stand-in has no such module
    from learned_optimization.optimizers import nadamw, optax_opts, optimizer_wrappers

    assert is_installed()
    for opt in (
        optax_opts.Adam(1e-2),
        nadamw.NAdamW(1e-2),
        optimizer_wrappers.WeightDecayWrapper(optax_opts.Adam(1e-2), 1e-3),
    ):
        assert_close(adapted(from_learned_optimization(opt, 10), jit=False), natively(opt))
