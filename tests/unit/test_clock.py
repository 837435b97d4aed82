from __future__ import annotations

import contextlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.framework.clock import Clock


class FakeDevice:
    """A device that works on after a call has returned, on a clock that only it moves."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.busy_until = 0.0

    def now(self) -> float:
        return self.seconds

    def issue(self, seconds: float) -> str:
        self.busy_until = max(self.busy_until, self.seconds) + seconds
        return "array"

    def wait(self, arrays: object) -> None:
        if arrays:
            self.seconds = max(self.seconds, self.busy_until)


def test_each_moment_is_charged_to_one_account():
    device = FakeDevice()
    clock = Clock(device.now, device.wait)
    device.seconds += 1
    with clock.charge("train"):
        device.seconds += 2
        with clock.charge("eval"):
            device.seconds += 4
        device.seconds += 8
    device.seconds += 16
    assert clock.accounts() == {"other": 17, "train": 10, "eval": 4}


def test_an_account_pays_until_the_device_has_finished_its_work():
    device = FakeDevice()
    clock = Clock(device.now, device.wait)
    with clock.charge("train"):
        state = device.issue(5.0)
        with clock.charge("eval", after=state):
            device.seconds += 1
    assert clock.accounts() == {"other": 0, "train": 5, "eval": 1}


def test_wait_returns_train_seconds_after_the_device_has_finished():
    device = FakeDevice()
    clock = Clock(device.now, device.wait)
    with clock.charge("train"):
        assert clock.wait(device.issue(3.0)) == 3.0


def test_accounts_survive_an_exception():
    device = FakeDevice()
    clock = Clock(device.now, device.wait)
    with contextlib.suppress(KeyError), clock.charge("train"):
        device.seconds += 2
        raise KeyError
    device.seconds += 1
    assert clock.accounts() == {"other": 1, "train": 2}


def test_a_real_device_that_is_still_computing_is_charged():
    """JAX returns before the device is done; the clock must not."""

    @jax.jit
    def slow(x: jax.Array) -> jax.Array:
        def sleep(value: np.ndarray) -> np.ndarray:
            time.sleep(0.5)
            return np.asarray(value)

        return jax.pure_callback(sleep, jax.ShapeDtypeStruct((), jnp.float32), x)

    slow(jnp.float32(0)).block_until_ready()
    clock = Clock()
    with clock.charge("train"):
        result = slow(jnp.float32(1))
        with clock.charge("eval", after=result):
            pass
    assert clock.seconds("train") >= 0.5
    assert clock.seconds("eval") < 0.4
