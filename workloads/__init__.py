"""Workloads: the fixed training problems, by name in ``WORKLOADS``.

Boundary: imports framework only.
"""

from __future__ import annotations

from collections.abc import Mapping

from timetrial.framework.entries import Entry
from timetrial.framework.workload import Workload
from timetrial.workloads.assays import AssaysGnn, AssaysGnnSettings
from timetrial.workloads.fashion_mnist import FashionMnistResnet, FashionMnistResnetSettings
from timetrial.workloads.flights import FlightsDlrm, FlightsDlrmSettings
from timetrial.workloads.icbm import IcbmUnet, IcbmUnetSettings

WORKLOADS: Mapping[str, Entry[Workload]] = {
    "fashion_mnist_resnet": Entry(
        "ResNet on 14,000 images of garments (accuracy, maximise)",
        FashionMnistResnetSettings,
        FashionMnistResnet,
    ),
    "icbm_unet": Entry(
        "U-Net on simulated 4x undersampled MRI of brain slices (ssim, maximise)",
        IcbmUnetSettings,
        IcbmUnet,
    ),
    "assays_gnn": Entry(
        "Graph network on 24,000 molecules in 7 screens (mean_average_precision, maximise)",
        AssaysGnnSettings,
        AssaysGnn,
    ),
    "flights_dlrm": Entry(
        "DLRM on 200,000 flights: late or not? (loss, minimise)", FlightsDlrmSettings, FlightsDlrm
    ),
}
