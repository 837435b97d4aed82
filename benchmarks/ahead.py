"""Counts what XLA compiles for a GPU that this machine does not have.

Boundary: compiles and counts; runs nothing. Needs the package ``jax-cuda12-plugin`` with
``jax-cuda12-pjrt``, both of the version of jaxlib, and NVIDIA's ``ptxas`` on the path.

The numbers are XLA's own: bytes that the instructions of the optimized program read and write, and
temporary memory. XLA counts a Pallas kernel as nothing: its operands and results are added.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import re
import shutil
import time
from collections.abc import Callable
from typing import Any, Final
from unittest import mock

import jax
import jaxlib
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks.gpu.kernels import launches

PyTree = Any

TARGETS: Final = {
    # NVIDIA, "NVIDIA H100 Tensor Core GPU Architecture", 2022; "CUDA C++ Programming Guide", table
    # of compute capability 9.0, https://docs.nvidia.com/cuda/cuda-c-programming-guide/.
    "h100": """
        platform_name: "CUDA"
        device_description_str: "NVIDIA H100 80GB HBM3"
        dnn_version_info { major: 9 minor: 10 }
        gpu_device_info {
          cuda_compute_capability { major: 9 }
          core_count: 132
          fpus_per_core: 128
          clock_rate_ghz: 1.98
          memory_bandwidth: 3352000000000
          device_memory_size: 84942979072
          l2_cache_size: 52428800
          threads_per_warp: 32
          threads_per_block_limit: 1024
          threads_per_core_limit: 2048
          registers_per_block_limit: 65536
          registers_per_core_limit: 65536
          shared_memory_per_block: 49152
          shared_memory_per_block_optin: 232448
          shared_memory_per_core: 233472
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
          driver_version: "12.8.0"
          runtime_version: "12.8.0"
          compile_time_toolkit_version: "12.8.0"
        }
    """,
}
"""Descriptions of GPUs as XLA reads them, by name."""

_BYTES: Final = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1, "pred": 1}
_ARRAY: Final = re.compile(rf"\b({'|'.join(_BYTES)})\[([\d,]*)\]")
_RESULT: Final = re.compile(r"^\s+(?:ROOT )?%?(\S+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)", re.M)


@dataclasses.dataclass(frozen=True)
class Counts:
    """Counts of one compiled program.

    Attributes:
        bytes: read and written by all kernels.
        temporary_bytes: memory beside arguments and results.
        kernels: launched instructions.
        most_operands: of the kernel that has most of them.
        compile_seconds: CPU time.
    """

    bytes: float
    temporary_bytes: int
    kernels: int
    most_operands: int
    compile_seconds: float


def missing() -> str:
    """What compilation for another device needs and does not find, or ""."""
    plugins = importlib.util.find_spec("jax_plugins")
    if plugins is None or importlib.util.find_spec("jax_plugins.xla_cuda12") is None:
        wanted = jaxlib.__version__
        return f"pip install jax-cuda12-plugin=={wanted} jax-cuda12-pjrt=={wanted}"
    return "" if shutil.which("ptxas") else "ptxas of NVIDIA's CUDA toolkit on the PATH"


def count(target: str, function: Callable[..., Any], *arguments: PyTree, **options: Any) -> Counts:
    """Compiles a function for a GPU and counts.

    Args:
        target: one of ``TARGETS``.
        function: to compile; code that asks for the backend is told that there is a GPU.
        arguments: arrays, or their shapes and dtypes.
        options: of ``jax.jit``.
    """
    text = TARGETS[target]
    topology = topologies.get_topology_desc(target, "cuda", target_config=text, topology="1x1x1")
    place = SingleDeviceSharding(topology.devices[0])
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments
    )
    with mock.patch.object(jax, "default_backend", return_value="gpu"):
        lowered = jax.jit(function, **options).lower(*shapes)
    cpu = time.process_time()
    compiled = lowered.compile()
    seconds = time.process_time() - cpu
    (module,) = compiled.runtime_executable().hlo_modules()
    client = jax.devices("cpu")[0].client
    cost = jaxlib._jax.hlo_module_cost_analysis(client, module)
    program = module.to_string()
    return Counts(
        bytes=cost["bytes accessed"] + custom_call_bytes(program),
        temporary_bytes=compiled.memory_analysis().temp_size_in_bytes,
        kernels=sum(launches(program).values()),
        most_operands=most_operands(program),
        compile_seconds=seconds,
    )


def custom_call_bytes(program: str) -> int:
    """Bytes of operands and results of all custom calls, among them Pallas kernels.

    Args:
        program: text of an optimized HLO module.
    """
    found = _RESULT.findall(program)
    sizes = {name: _size(shape) for name, shape, _, _ in found}
    calls = [(name, operands) for name, _, opcode, operands in found if opcode == "custom-call"]
    return sum(sizes[one] for name, operands in calls for one in (name, *_names(operands)))


def most_operands(program: str) -> int:
    """Operands of the kernel that has most of them."""
    entry = program[program.index("\nENTRY") :]
    launched = (found for found in _RESULT.findall(entry) if found[2] in ("fusion", "custom-call"))
    return max(len(_names(operands)) for _, _, _, operands in launched)


def _names(operands: str) -> list[str]:
    return re.findall(r"%([\w.-]+)", operands)


def _size(shape: str) -> int:
    """Bytes of an array, or of a tuple of arrays, from its text."""
    return sum(
        _BYTES[kind] * math.prod(int(n) for n in sizes.split(",") if n)
        for kind, sizes in _ARRAY.findall(shape)
    )
