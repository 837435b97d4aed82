"""Workloads: fixed training problems by name, in ``WORKLOADS``.

Boundary: imports framework only.
"""

from __future__ import annotations

from timetrial.framework.entries import WorkloadEntry
from timetrial.framework.registry import Registry
from timetrial.workloads import (
    assays,
    criteo1tb,
    fashion_mnist,
    fastmri,
    flights,
    icbm,
    imagenet_resnet,
    ogbg,
)

WORKLOADS: Registry[WorkloadEntry] = Registry(
    "workload",
    WorkloadEntry,
    {
        "fashion_mnist_resnet": fashion_mnist.ENTRY,
        "icbm_unet": icbm.ENTRY,
        "assays_gnn": assays.ENTRY,
        "flights_dlrm": flights.ENTRY,
        "imagenet_resnet": imagenet_resnet.ENTRY,
        "fastmri": fastmri.ENTRY,
        "ogbg": ogbg.ENTRY,
        "criteo1tb": criteo1tb.ENTRY,
    },
)
"""All workloads, plug-ins included."""
