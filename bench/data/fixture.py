"""Tiny synthetic data sets in the true formats, for trying out the full-size workloads.

Boundary: writes raw files and prepares them with the code that prepares real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from timetrial.workloads.data import synthetic
from timetrial.workloads.data.catalogue import DATA_SETS
from timetrial.workloads.data.libraries import require_libraries
from timetrial.workloads.data.preparing import Workshop

_WRITE: Final[Mapping[str, Callable[[Path], None]]] = {
    "imagenet_resnet": lambda place: synthetic.write_imagenet(place, images=40),
    "fastmri": lambda place: synthetic.write_fastmri(place, slices=12),
    "ogbg": lambda place: synthetic.write_ogbg(place, synthetic.molecule_tables(100)),
    "criteo1tb": lambda place: synthetic.write_criteo(place, rows=256),
}


def fixture(root: Path) -> int:
    """Makes and prepares tiny data of every full-size workload; returns the exit code.

    Args:
        root: root of the prepared data sets; raw files go into its directory ``raw``.

    Raises:
        UserError: the extra ``[data]`` is missing, or the files cannot be written.
    """
    require_libraries("data fixture")
    for name, data in DATA_SETS.items():
        source = root / "raw" / name
        if not data.is_prepared(root):
            if not source.exists():
                _WRITE[name](source)
            for place, step in data.steps.items():
                step(Workshop(root, place), source, sample=True)
        counts = ", ".join(f"{split} {count}" for split, count in data.examples(root).items())
        print(f"{name}: {counts}", flush=True)
    print(f"\nto use them: TIMETRIAL_DATA={root} timetrial bench suite=paper-step-fixture")
    return 0
