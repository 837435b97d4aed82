"""What is missing on this machine for the runs of a suite.

Boundary: looks for data, weights and devices; imports JAX only where it could find an accelerator.
"""

from __future__ import annotations

import importlib.util
import os

from timetrial.bench.suite import Suite
from timetrial.framework.registry import declared_points
from timetrial.optimizers.weights.catalogue import is_fetched
from timetrial.workloads import WORKLOADS


def obstacles(suite: Suite) -> list[str]:
    """What is missing on this machine for the runs of a suite, one line each."""
    found = {name: WORKLOADS.listed(name).unavailable() for name in suite.workloads}
    reasons = [f"workload {name}: {reason}" for name, reason in found.items() if reason]
    if "gpu" in suite.needs and not has_accelerator():
        reasons.append("a GPU; needs=[] runs the suite without")
    if "google_weights" in suite.needs and not is_fetched("velo"):
        reasons.append("Google's weights of VeLO, which timetrial fetch velo gets")
    return reasons


def has_accelerator() -> bool:
    """Whether JAX computes on anything but a CPU."""
    if not _may_have_accelerator():
        return False
    import jax

    return jax.default_backend() != "cpu"


def _may_have_accelerator() -> bool:
    """Whether JAX could find a device besides CPUs: one of its plug-ins is installed.

    Plug-ins are modules of ``jax_plugins`` or entry points of that group. Source: OpenXLA, "PJRT
    plugin integration", https://openxla.org/xla/pjrt/pjrt_integration. TPUs need ``libtpu``.
    """
    if os.environ.get("JAX_PLATFORMS", "").lower() == "cpu":
        return False
    variables = ("PJRT_NAMES_AND_LIBRARY_PATHS", "TPU_LIBRARY_PATH")
    if any(os.environ.get(name) for name in variables):
        return True
    if any(importlib.util.find_spec(name) is not None for name in ("jax_plugins", "libtpu")):
        return True
    return any(True for _ in declared_points("jax_plugins"))
