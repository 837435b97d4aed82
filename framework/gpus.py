"""State of NVIDIA GPUs: utilisation, clock, temperature, power, memory, other processes.

Boundary: reads NVML through ``nvidia-ml-py``, an optional package; without it there are no GPUs
here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

METRICS: Final = (
    "utilization_percentage",
    "memory_usage_megabytes",
    "power_usage_watts",
    "sm_clock_megahertz",
    "temperature_celsius",
    "other_processes",
)
"""Names of the numbers of one GPU; the first three are MLflow's."""

OTHER_PROCESSES: Final = "other_processes"


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        ordinal: its number in CUDA, after ``CUDA_VISIBLE_DEVICES``.
        name: its model.
        memory_bytes: its memory.
        driver: version of the driver.
        numbers: returns the numbers named in ``METRICS`` that the driver gives now.
        uuid: its UUID, or that of the MIG instance; "" if unknown.
    """

    ordinal: int
    name: str
    memory_bytes: int
    driver: str
    numbers: Callable[[], Mapping[str, float]]
    uuid: str = ""


def visible_gpus() -> list[Gpu]:
    """The GPUs that CUDA would show to this process; none without ``nvidia-ml-py`` or a driver."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        return gpus_of(pynvml, os.environ.get("CUDA_VISIBLE_DEVICES"))
    except pynvml.NVMLError:  # no driver, or an old one
        return []


def gpus_in_use() -> list[Gpu]:
    """The GPU of JAX's default device; none on another platform."""
    import jax  # the settings of launchers are read without

    if jax.default_backend() != "gpu":
        return []
    ordinal = jax.local_devices()[0].local_hardware_id
    return [gpu for gpu in visible_gpus() if gpu.ordinal == ordinal]


def gpus_of_process() -> list[Gpu]:
    """The GPUs of all JAX devices of this process; none on another platform."""
    import jax

    if jax.default_backend() != "gpu":
        return []
    ordinals = {device.local_hardware_id for device in jax.local_devices()}
    return [gpu for gpu in visible_gpus() if gpu.ordinal in ordinals]


def gpus_of(nvml: Any, visible: str | None) -> list[Gpu]:
    """The GPUs of an initialised NVML module.

    Args:
        nvml: the module ``pynvml``.
        visible: ``CUDA_VISIBLE_DEVICES``: numbers or UUIDs, separated by commas; None shows all.
    """
    count = int(nvml.nvmlDeviceGetCount())
    names = [str(number) for number in range(count)] if visible is None else visible.split(",")
    found = []
    for ordinal, name in enumerate(filter(None, map(str.strip, names))):
        handle = (
            nvml.nvmlDeviceGetHandleByIndex(int(name))
            if name.isdecimal()
            else nvml.nvmlDeviceGetHandleByUUID(name)
        )
        found.append(
            Gpu(
                ordinal,
                _text(nvml.nvmlDeviceGetName(handle)),
                int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
                _text(nvml.nvmlSystemGetDriverVersion()),
                _reader(nvml, handle),
                _uuid(nvml, handle),
            )
        )
    return found


def _uuid(nvml: Any, handle: Any) -> str:
    """UUID of a GPU or MIG instance; of a divided GPU, that of its first instance, as in CUDA.

    Source: NVIDIA Multi-Instance GPU User Guide, section CUDA Visible Devices,
    https://docs.nvidia.com/datacenter/tesla/mig-user-guide/.
    """
    with contextlib.suppress(nvml.NVMLError):  # a MIG instance has no mode
        if nvml.nvmlDeviceGetMigMode(handle)[0]:
            for index in range(int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))):
                with contextlib.suppress(nvml.NVMLError):  # no instance of this number
                    instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
                    return _text(nvml.nvmlDeviceGetUUID(instance))
    with contextlib.suppress(nvml.NVMLError):
        return _text(nvml.nvmlDeviceGetUUID(handle))
    return ""


def _reader(nvml: Any, handle: Any) -> Callable[[], Mapping[str, float]]:
    """Returns a function that reads one GPU; numbers that the driver refuses are left out."""
    temperature = nvml.NVML_TEMPERATURE_GPU
    readings: Sequence[Callable[[], float | None]] = (
        lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / 1e6,
        lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        lambda: nvml.nvmlDeviceGetTemperature(handle, temperature),
        lambda: _others(nvml.nvmlDeviceGetComputeRunningProcesses(handle)),
    )

    def numbers() -> dict[str, float]:
        found = {}
        for name, reading in zip(METRICS, readings, strict=True):
            with contextlib.suppress(nvml.NVMLError):
                value = reading()
                if value is not None:
                    found[name] = float(value)
        return found

    return numbers


def _others(processes: Sequence[Any]) -> int | None:
    """Number of other processes that compute on a GPU in use; None if none is listed.

    This process is one of those listed. Its number there may differ: containers have their own.
    """
    return len(processes) - 1 if processes else None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
