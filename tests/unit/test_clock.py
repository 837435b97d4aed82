from __future__ import annotations

import contextlib
import hashlib
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.framework.clock import Clock
from timetrial.framework.meter import Meter


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


def test_cpu_seconds_are_booked_like_wall_seconds():
    device = FakeDevice()
    cpu = {"seconds": 3.0}  # of the process before the clock was made
    clock = Clock(device.now, device.wait, cpu=lambda: cpu["seconds"])
    with clock.charge("train"):
        device.seconds, cpu["seconds"] = 2.0, 6.5
        with clock.charge("eval"):
            device.seconds, cpu["seconds"] = 3.0, 7.5
    cpu["seconds"] = 7.75
    assert clock.cpu_accounts() == {"eval": 1.0, "other": 0.25, "train": 3.5}
    later = Clock(device.now, device.wait, cpu=lambda: cpu["seconds"])
    later.resume(clock.accounts(), clock.cpu_accounts())
    with later.charge("train"):
        cpu["seconds"] += 1.0
    assert later.cpu_accounts() == {"eval": 1.0, "other": 0.25, "train": 4.5}


def test_the_cpu_seconds_of_all_threads_count():
    """Two threads that hash outside the interpreter's lock."""
    clock = Clock()
    data = bytes(2**20)

    def work() -> None:
        started = time.thread_time()
        while time.thread_time() < started + 0.2:
            hashlib.sha256(data).digest()

    with clock.charge("train"):
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 0.4 <= clock.cpu_accounts()["train"] < 1.0


class FakeMeter(Meter):
    """Notes when it is read; a reading takes a second."""

    def __init__(self, device: FakeDevice) -> None:
        super().__init__({0})
        self.device = device
        self.calls: list[tuple[str, float]] = []

    def start(self) -> None:
        self.device.seconds += 1
        self.calls.append(("start", self.device.seconds))

    def stop(self) -> None:
        self.calls.append(("stop", self.device.seconds))
        self.device.seconds += 1


def test_the_meter_is_read_around_charged_time_and_never_inside():
    device = FakeDevice()
    meter = FakeMeter(device)
    clock = Clock(device.now, device.wait, meter=meter)
    with clock.charge("train"):
        device.seconds += 2
        with clock.charge("eval"):
            device.seconds += 4
        device.seconds += 8
    with clock.charge("log"):
        device.seconds += 16
    assert meter.calls == [("start", 1), ("stop", 3), ("start", 9), ("stop", 17)]
    assert clock.accounts() == {"other": 2, "train": 10, "eval": 6, "log": 16}


def test_a_resumed_clock_hands_the_earlier_sums_to_its_meter():
    first, second = (Clock(meter=Meter({0})) for _ in range(2))
    assert Clock().machine() == {}
    with first.charge("train"):
        pass
    second.resume({}, {}, first.machine())
    assert second.machine() == first.machine()
    assert second.machine()["seconds"] > 0


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
