"""The quick race's numbers on the device against those on the CPU of the same process.

Boundary: trains the mini workloads for some updates on both; judges nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import jax
import numpy as np

from benchmarks.gpu import cases
from timetrial.framework.step import Program
from timetrial.framework.update import make_train_step
from timetrial.workloads import WORKLOADS

WORKLOAD_NAMES: Final = ("flights_dlrm", "assays_gnn", "fashion_mnist_resnet", "icbm_unet")
OPTIMIZER_NAMES: Final = ("adam", "nadamw", "velo")

MARKS: Final = (1, 2, 5, 10, 20, 50)
"""Updates before which losses are compared, 1-based, as far as there are so many."""


def compare(name: str, optimizer: str, updates: int) -> dict[str, Any]:
    """Losses on both devices at ``MARKS``, as (CPU, device), and their relative differences.

    Both start from the same parameters, at the default precision of the device: a GPU multiplies
    matrices in tensorfloat32 then. VeLO has the weights that ship.
    """
    workload = WORKLOADS[name].make(WORKLOADS[name].settings())
    batches = [dict(workload.train_batch(0, step)) for step in range(updates)]
    tx = cases.optimizer(optimizer, weights="embedded")
    host, device = jax.devices("cpu")[0], jax.local_devices()[0]
    state = jax.device_get(_without_key(Program(workload, tx).init(0)))
    step = jax.jit(make_train_step(workload, tx))
    on_host, on_device = (_losses(step, state, batches, place) for place in (host, device))
    marks = [mark for mark in MARKS if mark <= updates]
    pairs = [(float(on_host[mark - 1]), float(on_device[mark - 1])) for mark in marks]
    return {
        "devices": [host.platform, device.platform],
        "marks": marks,
        "losses": pairs,
        "relative_differences": [abs(b - a) / max(abs(a), 1e-30) for a, b in pairs],
    }


def _without_key(state: Any) -> Any:
    """The state with its random key as numbers, which can move between devices."""
    return dataclasses.replace(state, key=jax.random.key_data(state.key))


def _losses(step: Any, state: Any, batches: Sequence[Any], device: jax.Device) -> np.ndarray:
    """The loss before each update."""
    state = jax.device_put(state, device)
    state = dataclasses.replace(state, key=jax.random.wrap_key_data(state.key))
    losses = []
    for batch in batches:
        state, metrics = step(state, jax.device_put(batch, device), {})
        losses.append(metrics["loss"])
    return np.array(jax.device_get(losses))
