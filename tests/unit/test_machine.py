"""The machine under a run: CPU time of its cores, of this process and of others, and its GPUs."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from timetrial.framework.gpus import METRICS, Gpu, gpus_in_use, gpus_of
from timetrial.framework.machine import (
    TICK_SECONDS,
    CoreTimes,
    Usage,
    core_times,
    cores_in,
    cores_text,
    own_cpu_seconds,
    process_cpu_seconds,
    read_core_times,
    usable_cores,
    usage_of,
)
from timetrial.framework.meter import Meter

STAT = """\
cpu  1000 20 300 5000 40 5 6 70 11 0
cpu0 400 10 100 2000 20 5 1 30 11 0
cpu1 300 5 100 1500 10 0 2 20 0 0
cpu10 300 5 100 1500 10 0 3 20 0 0
intr 123 0 0
ctxt 99
"""


def test_columns_of_proc_stat():
    found = core_times(STAT, {0})
    assert found == pytest.approx(
        (516 * TICK_SECONDS, 30 * TICK_SECONDS, 2020 * TICK_SECONDS), rel=1e-12
    )  # guest time is part of user and not counted twice
    both = core_times(STAT, {0, 10})
    assert both is not None
    assert both.busy == pytest.approx((516 + 408) * TICK_SECONDS)
    assert both.steal == pytest.approx(50 * TICK_SECONDS)


@pytest.mark.parametrize("text", ["", "cpu 1 2 3\n", "cpu0 1 2 3\n", "intr 1\n" + STAT])
def test_other_texts_say_nothing(text: str):
    assert core_times(text, {0}) is None


def test_cores_that_are_not_listed_say_nothing():
    assert core_times(STAT, {0, 2}) is None
    assert core_times(STAT, set()) is None


@pytest.mark.parametrize(
    ("cores", "text"),
    [({0}, "0"), ({1, 0}, "0-1"), ({8, 0, 1, 2, 5}, "0-2,5,8"), (range(128), "0-127"), ((), "")],
)
def test_cores_as_text(cores: set[int], text: str):
    assert cores_text(cores) == text
    assert cores_in(text) == frozenset(cores)


@pytest.mark.parametrize("text", ["x", "0-", "-1", "0;1", "0-1-2", "0,", "0-999999999"])
def test_other_texts_are_no_cores(text: str):
    assert cores_in(text) == frozenset()


def test_this_machine_and_this_process(monkeypatch: pytest.MonkeyPatch):
    cores = usable_cores()
    assert cores
    before = own_cpu_seconds()
    while own_cpu_seconds() < before + 0.05:
        pass
    here = process_cpu_seconds(os.getpid())
    if sys.platform == "linux":
        found = read_core_times(cores)
        assert found is not None
        assert min(found) >= 0
        assert found.busy > 0
        assert here is not None
        assert here == pytest.approx(time.process_time(), abs=3 * TICK_SECONDS)
    assert process_cpu_seconds(-1) is None


WORKER = """
import multiprocessing, time
from timetrial.framework.machine import own_cpu_seconds

def spin(spun, end):
    while time.process_time() < 0.4:
        pass
    spun.set()
    end.wait(60)

context = multiprocessing.get_context("fork")
spun, end = context.Event(), context.Event()
worker = context.Process(target=spin, args=(spun, end), daemon=True)
before = own_cpu_seconds()
worker.start()
spun.wait(60)
alive = own_cpu_seconds() - before
end.set()
worker.join(60)
print(alive, own_cpu_seconds() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_worker_processes_belong_to_this_process():
    command = [sys.executable, "-c", WORKER]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    alive, ended = map(float, done.stdout.split())
    assert alive >= 0.3  # their CPU time is counted in steps of 10 ms
    assert ended >= 0.3


class Machine:
    """Cores, a clock and a process that only the test moves."""

    def __init__(self, cores: int = 2) -> None:
        self.seconds = self.own = 0.0
        self.times: CoreTimes | None = CoreTimes(100.0, 5.0, 900.0)
        self.cores = cores
        self.meter = Meter(
            range(cores), read_cores=self.read, own_cpu=lambda: self.own, now=lambda: self.seconds
        )

    def read(self, cores: object) -> CoreTimes | None:
        return self.times

    def run(self, seconds: float, own: float, others: float = 0.0, steal: float = 0.0) -> None:
        """Time passes: CPU seconds of this process and of others, and stolen ones."""
        self.seconds += seconds
        self.own += own
        if self.times is not None:
            busy, stolen, idle = self.times
            rest = seconds * self.cores - own - others - steal
            self.times = CoreTimes(busy + own + others, stolen + steal, idle + rest)

    def charged(self, *args: float, **options: float) -> None:
        self.meter.start()
        self.run(*args, **options)
        self.meter.stop()


def test_only_charged_intervals_are_summed():
    machine = Machine()
    machine.charged(2.0, own=3.0, others=0.4, steal=0.2)
    machine.run(50.0, own=0.0, others=100.0)  # an evaluation beside a busy machine
    machine.charged(2.0, own=3.0, others=0.0)
    usage = machine.meter.usage
    assert (usage.seconds, usage.own_cpu, usage.core_seconds) == pytest.approx((4, 6, 8))
    assert usage.others == pytest.approx(0.4 / 8)
    assert usage.stolen == pytest.approx(0.2 / 8)
    assert usage.utilization == pytest.approx(6.4 / 8)


def test_metrics_are_those_since_the_last_ones_and_never_of_less_than_half_a_second():
    machine = Machine()
    machine.charged(0.3, own=0.3)
    assert machine.meter.latest() == {}
    machine.charged(0.3, own=0.3, others=0.12)
    first = machine.meter.latest()
    assert first["other_processes_percentage"] == pytest.approx(10.0)
    assert first["cpu_utilization_percentage"] == pytest.approx(60.0)
    assert machine.meter.latest() == {}
    machine.charged(1.0, own=1.0, others=1.0, steal=0.0)
    assert machine.meter.latest()["other_processes_percentage"] == pytest.approx(50.0)
    summary = machine.meter.summary()
    assert summary["other_processes_percentage_mean"] == pytest.approx(100 * 1.12 / 3.2)
    assert summary["steal_percentage_mean"] == 0


def test_without_counters_the_shares_are_unknown():
    machine = Machine()
    machine.times = None
    machine.charged(2.0, own=3.0)
    assert machine.meter.usage == Usage(2.0, 3.0)
    assert machine.meter.usage.others is None
    assert not [key for key in machine.meter.summary() if "percentage" in key]
    assert not [key for key in machine.meter.latest() if "percentage" in key]


def test_counters_that_stand_still_are_unknown():
    """As in sandboxes with a made-up ``/proc/stat``."""
    machine = Machine()
    machine.meter.start()
    machine.seconds, machine.own = 2.0, 3.0
    machine.meter.stop()
    assert machine.meter.usage.others is None


def test_a_process_is_never_its_own_rival():
    """Ticks are coarser than the process's own CPU time: the difference may be below 0."""
    machine = Machine()
    machine.charged(1.0, own=1.5, others=-0.02)
    assert machine.meter.usage.others == 0


def test_failing_counters_end_no_run():
    def broken(cores: object) -> CoreTimes:
        raise RuntimeError

    def lost() -> dict[str, float]:
        raise RuntimeError

    meter = Meter({0}, [Gpu(0, "x", 1, "1", lost)], read_cores=broken)
    meter.start()
    meter.stop()
    assert meter.usage == Usage()
    assert meter.latest() == {}
    assert meter.gpu_others is None


def test_sums_survive_a_resume():
    first, second = Machine(), Machine()
    first.charged(2.0, own=3.0, others=0.8)
    second.meter.resume(first.meter.totals())
    second.charged(2.0, own=3.0, others=0.0)
    assert second.meter.usage.others == pytest.approx(0.8 / 8)
    assert second.meter.latest()["other_processes_percentage"] == pytest.approx(0.0, abs=1e-9)
    assert usage_of({}) == Usage()


def test_a_sample_takes_less_than_a_millisecond():
    """Judged by CPU seconds: the machine of this test may be busy."""
    meter = Meter()
    meter.start()
    started, count = time.process_time(), 200
    for _ in range(count):
        meter.start()
        meter.stop()
        meter.latest()
    assert (time.process_time() - started) / count < 1e-3


class NVMLError(Exception):
    """As in pynvml."""


def nvml(gpus: int = 2, **replaced: object) -> SimpleNamespace:
    """The calls of pynvml in use; the handle of a GPU is its number."""
    calls: dict[str, object] = {
        "NVMLError": NVMLError,
        "NVML_CLOCK_SM": 1,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlDeviceGetCount": lambda: gpus,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetHandleByUUID": lambda uuid: int(uuid[-1]),
        "nvmlDeviceGetName": lambda handle: b"GPU X",
        "nvmlSystemGetDriverVersion": lambda: "550.1",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=80e9, used=8e9),
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=90 + handle, memory=1),
        "nvmlDeviceGetPowerUsage": lambda handle: 350_000,
        "nvmlDeviceGetClockInfo": lambda handle, kind: 1980 + kind,
        "nvmlDeviceGetTemperature": lambda handle, sensor: 65,
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: ["ours", "theirs"],
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
        "nvmlDeviceGetMigMode": lambda handle: [0, 0],
    }
    return SimpleNamespace(**{**calls, **replaced})


def test_the_numbers_of_gpus():
    gpus = gpus_of(nvml(), None)
    assert [(gpu.ordinal, gpu.name, gpu.driver) for gpu in gpus] == [
        (0, "GPU X", "550.1"),
        (1, "GPU X", "550.1"),
    ]
    assert gpus[1].numbers() == {
        "utilization_percentage": 91,
        "memory_usage_megabytes": 8000,
        "power_usage_watts": 350,
        "sm_clock_megahertz": 1981,
        "temperature_celsius": 65,
        "other_processes": 1,
    }
    assert set(gpus[1].numbers()) == set(METRICS)


def test_gpus_are_those_that_cuda_shows():
    names = {"nvmlDeviceGetName": lambda handle: f"gpu {handle}"}
    assert [g.name for g in gpus_of(nvml(4, **names), "2, 0")] == ["gpu 2", "gpu 0"]
    assert [g.name for g in gpus_of(nvml(4, **names), "GPU-3")] == ["gpu 3"]
    assert gpus_of(nvml(4), "") == []


def no_instance(handle: object, index: int = 0) -> None:
    raise NVMLError


def test_uuids_of_gpus_and_of_instances():
    assert [gpu.uuid for gpu in gpus_of(nvml(4), "3,1")] == ["GPU-3", "GPU-1"]

    def instance(handle: object, index: int) -> str:
        return f"{handle}/{index}" if index else no_instance(handle)

    divided = {
        "nvmlDeviceGetMigMode": lambda handle: [1, 1],
        "nvmlDeviceGetMaxMigDeviceCount": lambda handle: 7,
        "nvmlDeviceGetMigDeviceHandleByIndex": instance,
        "nvmlDeviceGetUUID": lambda handle: f"MIG-{handle}".encode(),
    }
    (gpu,) = gpus_of(nvml(1, **divided), None)
    assert gpu.uuid == "MIG-0/1"  # CUDA shows the first instance that exists
    named = {"nvmlDeviceGetMigMode": no_instance, "nvmlDeviceGetUUID": lambda handle: "MIG-x"}
    assert [gpu.uuid for gpu in gpus_of(nvml(1, **named), "MIG-0")] == ["MIG-x"]
    old = {"nvmlDeviceGetMigMode": no_instance, "nvmlDeviceGetUUID": no_instance}
    assert [gpu.uuid for gpu in gpus_of(nvml(1, **old), None)] == [""]


def test_a_number_that_the_driver_refuses_is_left_out():
    def refused(handle: object) -> int:
        raise NVMLError

    calls = {"nvmlDeviceGetPowerUsage": refused}
    calls["nvmlDeviceGetComputeRunningProcesses"] = lambda handle: []
    (gpu,) = gpus_of(nvml(1, **calls), None)
    assert "power_usage_watts" not in gpu.numbers()
    assert "other_processes" not in gpu.numbers()  # containers do not list them
    assert gpu.numbers()["temperature_celsius"] == 65


def test_gpus_are_read_at_the_end_of_each_interval():
    values = iter([(50.0, 0), (70.0, 2), (60.0, 0)])

    def numbers() -> dict[str, float]:
        use, others = next(values)
        return {"utilization_percentage": use, "other_processes": others}

    meter = Meter({0}, [Gpu(3, "x", 1, "1", numbers)], now=iter(range(100)).__next__)
    for _ in range(3):
        meter.start()
        meter.stop()
    assert meter.latest()["gpu_3_utilization_percentage"] == 60
    assert meter.summary()["gpu_3_utilization_percentage_mean"] == 60
    assert meter.summary()["gpu_3_utilization_percentage_max"] == 70
    assert meter.gpu_others == 2


def test_no_gpus_on_another_platform():
    assert gpus_in_use() == []
    assert math.isfinite(sum(Meter(gpus=gpus_in_use()).summary().values()))
