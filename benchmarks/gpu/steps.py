"""One update of a workload, compiled and timed with a batch that stays on the device.

Boundary: measures; ``table`` shows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
import optax

from benchmarks.gpu import cases, hardware, kernels
from timetrial.framework.state import StepMetrics, TrainState
from timetrial.framework.step import Program
from timetrial.framework.types import PyTree
from timetrial.framework.update import make_train_step
from timetrial.framework.workload import Workload

DIGEST_STEPS: Final = 3
"""Updates before the digest of the parameters is taken."""

PROFILED_STEPS: Final = 3
BLOCKED_STEPS: Final = 5


@dataclasses.dataclass
class Prepared:
    """A compiled update with its state and batch on the device.

    Attributes:
        step: the compiled update ``(state, batch, inputs) -> (state, metrics)``; donates the state.
        state, batch: its arguments.
        facts: what compilation tells: seconds, floating-point operations, bytes, launches.
    """

    step: Callable[..., tuple[TrainState, StepMetrics]]
    state: TrainState
    batch: PyTree
    facts: dict[str, Any]

    def update(self) -> StepMetrics:
        """Issues one update; returns its metrics."""
        self.state, metrics = self.step(self.state, self.batch, {})
        return metrics


def prepare(
    workload: Workload, tx: optax.GradientTransformation, batch: PyTree, seed: int = 0
) -> Prepared:
    """Compiles the update of a workload ahead of time, as a run does."""
    began = time.perf_counter()
    state = jax.block_until_ready(Program(workload, tx).init(seed))
    init_seconds = time.perf_counter() - began
    began = time.perf_counter()
    lowered = jax.jit(make_train_step(workload, tx), donate_argnums=0).lower(state, batch, {})
    lower_seconds = time.perf_counter() - began
    began = time.perf_counter()
    compiled = lowered.compile()
    facts = {
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "init_seconds": init_seconds,
        "lower_seconds": lower_seconds,
        "compile_seconds": time.perf_counter() - began,
        "flops": operations(lowered, compiled),
        "memory": memory(compiled),
        "launches": launches(compiled),
    }
    return Prepared(compiled, state, jax.device_put(batch), facts)


def operations(lowered: Any, compiled: Any) -> dict[str, float]:
    """Floating-point operations of an update by XLA's count.

    ``before``: of the program as it is written, the same on all devices. ``after``: of the compiled
    program, where XLA counts it; that leaves out library calls that it does not know.
    """
    found = {}
    for name, stage in (("before", lowered), ("after", compiled)):
        with contextlib.suppress(Exception):  # not every backend counts
            costs = stage.cost_analysis()
            costs = costs[0] if isinstance(costs, list) else costs
            found[name] = float(costs["flops"])
    return found


def memory(compiled: Any) -> dict[str, int]:
    """Bytes by XLA's buffer plan; ``plan`` is the most that the update holds at once."""
    found = compiled.memory_analysis()
    if found is None:
        return {}
    arguments, made = found.argument_size_in_bytes, found.output_size_in_bytes
    temporary, in_place = found.temp_size_in_bytes, found.alias_size_in_bytes
    return {
        "arguments": arguments,
        "temporary": temporary,
        "in_place": in_place,
        "plan": arguments + temporary + made - in_place,
    }


def launches(compiled: Any) -> dict[str, int]:
    """Launched instructions by opcode; empty where the backend gives no text."""
    text = compiled.as_text()
    return kernels.launches(text) if text else {}


def digest(tree: PyTree) -> str:
    """Sha256 of the bits of all arrays, in order of leaves; one array at a time on the host."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        sha.update(np.ascontiguousarray(jax.device_get(leaf)).view(np.uint8).data)
    return sha.hexdigest()


def first_steps(prepared: Prepared) -> tuple[str, list[float]]:
    """Digest of the parameters after ``DIGEST_STEPS`` updates, and the losses."""
    losses = [float(prepared.update()["loss"]) for _ in range(DIGEST_STEPS)]
    return digest(prepared.state.params), losses


def chain(prepared: Prepared, updates: int) -> list[float]:
    """Seconds between the ends of consecutive updates, each issued while the last one runs.

    So a training runs: the device never waits for the host unless an update is shorter than its
    dispatch.
    """
    ends = []
    under_way = prepared.update()
    for _ in range(updates):
        following = prepared.update()
        jax.block_until_ready(under_way)
        ends.append(time.perf_counter())
        under_way = following
    jax.block_until_ready(under_way)
    ends.append(time.perf_counter())
    return list(np.diff(ends))


def blocked(prepared: Prepared, updates: int) -> list[float]:
    """Seconds of updates that are waited for before the next one is issued."""
    seconds = []
    for _ in range(updates):
        began = time.perf_counter()
        jax.block_until_ready(prepared.update())
        seconds.append(time.perf_counter() - began)
    return seconds


def profiled(prepared: Prepared, updates: int) -> dict[str, Any] | None:
    """What the GPU runs in an update; None where there is no GPU or no profile."""
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            for _ in range(updates):
                metrics = prepared.update()
            jax.block_until_ready(metrics)
        return kernels.profile(Path(directory), updates)


def measure(
    name: str, optimizer: str, precision: str, *, reduced: bool, updates: int
) -> dict[str, Any]:
    """All measurements of one workload with one optimizer at one precision."""
    case = cases.CASES[name]
    workload = case.workload(precision, reduced=reduced)
    prepared = prepare(workload, cases.optimizer(optimizer), case.synthetic(workload))
    found, losses = first_steps(prepared)
    between = np.array(chain(prepared, updates)) * 1e3
    alone = np.array(blocked(prepared, BLOCKED_STEPS)) * 1e3
    median = float(np.median(between))
    examples = workload.settings.batch_size  # type: ignore[attr-defined]
    flops = prepared.facts["flops"].get("before") or prepared.facts["flops"].get("after")
    speed = None if not flops else flops / median / 1e9
    kind = jax.local_devices()[0].device_kind
    peak = hardware.peak_tflops(kind, precision)
    result = {
        **prepared.facts,
        "batch": examples,
        "updates": len(between),
        "step_ms": median,
        "spread_ms": [float(np.percentile(between, share)) for share in (10, 90)],
        "chain_ms": float(between.mean()),
        "blocked_ms": float(np.median(alone)),
        "examples_per_second": examples / median * 1e3,
        "tflops_per_second": speed,
        "share_of_peak": None if speed is None or peak is None else speed / peak,
        "peak_bytes": hardware.memory_stats().get("peak_bytes_in_use"),
        "losses": losses,
        "digest": found,
    }
    return {**result, "profile": _attempt(lambda: profiled(prepared, PROFILED_STEPS))}


def _attempt(measurement: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    """A measurement that may be forbidden: profiling needs rights on some machines."""
    try:
        return measurement()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
