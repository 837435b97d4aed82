"""The device that is measured, and the peaks of known GPUs.

Boundary: names and numbers; allocates nothing on the device.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from typing import Any, Final

import jax
import jaxlib


@dataclasses.dataclass(frozen=True)
class Peak:
    """Peak of a GPU at its boost clock, without sparsity.

    Attributes:
        float32: TFLOP/s outside the tensor cores.
        tf32: TFLOP/s of the tensor cores on tensorfloat32.
        bf16: TFLOP/s of the tensor cores on bfloat16.
        terabytes_per_second: bandwidth of the memory.
        source: publication of these numbers.
    """

    float32: float
    tf32: float
    bf16: float
    terabytes_per_second: float
    source: str

    def tflops(self, precision: str) -> float:
        """TFLOP/s for one of ``cases.PRECISIONS``."""
        return {"float32": self.float32, "tf32": self.tf32, "bf16": self.bf16}[precision]


_HOPPER: Final = "NVIDIA H100 Tensor Core GPU Architecture, 2022, table 2"
_NVL: Final = "NVIDIA H100 Tensor Core GPU, datasheet, 2024 (half of the figures with sparsity)"
_H200: Final = "NVIDIA H200 Tensor Core GPU, datasheet, 2024; the cores are those of the H100 SXM"
_AMPERE: Final = "NVIDIA A100 Tensor Core GPU, datasheet, 2021"

_H100_SXM: Final = Peak(66.9, 494.7, 989.4, 3.35, _HOPPER)
_A100: Final = {"float32": 19.5, "tf32": 156.0, "bf16": 312.0, "source": _AMPERE}

PEAKS: Final[Mapping[str, Peak]] = {
    "NVIDIA H100 80GB HBM3": _H100_SXM,
    "NVIDIA H100 SXM5 80GB": _H100_SXM,
    "NVIDIA H100 PCIe": Peak(51.2, 378.0, 756.0, 2.0, _HOPPER),
    "NVIDIA H100 NVL": Peak(60.0, 417.5, 835.5, 3.9, _NVL),
    "NVIDIA H200": dataclasses.replace(_H100_SXM, terabytes_per_second=4.8, source=_H200),
    "NVIDIA A100-SXM4-80GB": Peak(terabytes_per_second=2.039, **_A100),
    "NVIDIA A100-SXM4-40GB": Peak(terabytes_per_second=1.555, **_A100),
    "NVIDIA A100 80GB PCIe": Peak(terabytes_per_second=1.935, **_A100),
    "NVIDIA A100-PCIE-40GB": Peak(terabytes_per_second=1.555, **_A100),
}
"""By the name that the driver reports; a GPU that is not here has no share of a peak."""


def peak_tflops(kind: str, precision: str) -> float | None:
    """Peak TFLOP/s of a device for one of ``cases.PRECISIONS``; None if it is unknown."""
    peak = PEAKS.get(kind)
    return None if peak is None else peak.tflops(precision)


def memory_stats() -> Mapping[str, int]:
    """Numbers of the device's allocator in bytes; empty where it keeps none, as on CPUs."""
    return jax.local_devices()[0].memory_stats() or {}


def describe() -> dict[str, Any]:
    """The device, its limits and the versions, for the head of a table."""
    device = jax.local_devices()[0]
    peak = PEAKS.get(device.device_kind)
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "bytes_limit": memory_stats().get("bytes_limit"),
        "peak": None if peak is None else dataclasses.asdict(peak),
        "backend": device.client.platform_version.split("\n")[0],
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "python": platform.python_version(),
    }
