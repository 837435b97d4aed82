"""All full-size data sets, prepared from small raw files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raw_files import molecule_tables, write_criteo, write_fastmri, write_imagenet, write_ogbg

from timetrial.workloads.data.catalogue import DATA_SETS
from timetrial.workloads.data.prepared import manifest_path
from timetrial.workloads.data.preparing import Workshop

WRITERS: dict[str, Callable[[Path], object]] = {
    "imagenet_resnet": write_imagenet,
    "fastmri": lambda directory: write_fastmri(directory, train=2),
    "ogbg": lambda directory: write_ogbg(directory, molecule_tables(40)),
    "criteo1tb": lambda directory: write_criteo(directory, rows=20),
}
"""By workload, a function that writes small raw files."""


def prepare_sample(workload: str, source: Path, root: Path, **options: Any) -> None:
    """Prepares raw files as a sample."""
    for name, step in DATA_SETS[workload].steps.items():
        step(Workshop(root, name, **options), source, sample=True)


def change_manifest(name: str, root: Path, **changed: Any) -> None:
    """Changes entries of a manifest."""
    path = manifest_path(name, root)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
