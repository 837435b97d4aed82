"""Workloads: the fixed training problems, by name in ``WORKLOADS``.

Boundary: imports framework only.
"""

from __future__ import annotations

from collections.abc import Mapping

from framework.types import Entry, Workload
from workloads.fashion_mnist import FashionMnistResnet, FashionMnistResnetSettings
from workloads.flights import FlightsDlrm, FlightsDlrmSettings

WORKLOADS: Mapping[str, Entry[Workload]] = {
    "fashion_mnist_resnet": Entry(
        "ResNet on 14,000 images of garments (accuracy, maximise)",
        FashionMnistResnetSettings,
        FashionMnistResnet,
    ),
    "flights_dlrm": Entry(
        "DLRM on 200,000 flights: late or not? (loss, minimise)", FlightsDlrmSettings, FlightsDlrm
    ),
}
