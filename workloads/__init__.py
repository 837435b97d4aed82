"""Workloads: fixed training problems by name, in ``WORKLOADS``.

Boundary: imports framework only.
"""

from __future__ import annotations

from timetrial.framework.entries import WorkloadEntry
from timetrial.framework.registry import Registry
from timetrial.workloads import assays, fashion_mnist, flights, icbm

WORKLOADS: Registry[WorkloadEntry] = Registry(
    "workload",
    WorkloadEntry,
    {
        "fashion_mnist_resnet": fashion_mnist.ENTRY,
        "icbm_unet": icbm.ENTRY,
        "assays_gnn": assays.ENTRY,
        "flights_dlrm": flights.ENTRY,
    },
)
"""All workloads, plug-ins included."""
