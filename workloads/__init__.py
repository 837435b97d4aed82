"""Workloads: fixed training problems by name, in ``WORKLOADS``.

Boundary: imports framework only. A workload is imported when it is looked up.
"""

from __future__ import annotations

import functools

from timetrial.framework.entries import WorkloadEntry
from timetrial.framework.listed import Listed
from timetrial.framework.registry import Registry
from timetrial.workloads.data.missing import missing

WORKLOADS: Registry[WorkloadEntry] = Registry(
    "workload",
    WorkloadEntry,
    {
        "fashion_mnist_resnet": Listed(
            "fashion_mnist:ENTRY",
            "ResNet on 14,000 images of garments (accuracy, higher is better)",
            roles="convolution 9, head 1, norm 18, bias 1",
        ),
        "icbm_unet": Listed(
            "icbm:ENTRY",
            "U-Net on simulated 4x undersampled MRI of brain slices (ssim, higher is better)",
            roles="convolution 12, head 1, bias 1",
        ),
        "assays_gnn": Listed(
            "assays:ENTRY",
            "Graph network on 24,000 molecules in 7 screens (mean_average_precision, higher is "
            "better)",
            roles="hidden 8, head 1, norm 12, bias 9",
        ),
        "flights_dlrm": Listed(
            "flights:ENTRY",
            "DLRM on 200,000 flights: late or not? (loss, lower is better)",
            roles="hidden 7, embedding 1, head 1, bias 8",
        ),
        "imagenet_resnet": Listed(
            "imagenet_resnet:ENTRY",
            "ResNet-50 on ImageNet (accuracy, higher is better)",
            functools.partial(
                missing,
                "imagenet_resnet",
                ("imagenet2012/5.1.0", "imagenet_v2/matched-frequency/3.0.0"),
            ),
            roles="convolution 53, head 1, norm 106, bias 1",
        ),
        "fastmri": Listed(
            "fastmri:ENTRY",
            "U-Net on fastMRI knee, single coil (ssim, higher is better)",
            functools.partial(missing, "fastmri", ("fastmri_knee/1.0.0",)),
            roles="convolution 22, head 1, bias 1",
        ),
        "ogbg": Listed(
            "ogbg:ENTRY",
            "Graph network on OGBG-molpcba, molecules in 128 assays (mean_average_precision, "
            "higher is better)",
            functools.partial(missing, "ogbg", ("ogbg_molpcba/0.1.3",)),
            roles="hidden 17, head 1, norm 30, bias 18",
        ),
        "criteo1tb": Listed(
            "criteo1tb:ENTRY",
            "DLRM on the Criteo 1TB click logs (loss, lower is better)",
            functools.partial(missing, "criteo1tb", ("criteo1tb/1.0.0",)),
            roles="hidden 7, embedding 1, head 1, bias 8",
        ),
    },
)
"""All workloads, plug-ins included."""
