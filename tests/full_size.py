"""Full-size workloads on small data in the true formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import raw_files

from timetrial.workloads.data import criteo, fastmri, imagenet, ogbg, preparing

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "imagenet_resnet": {
        "stage_sizes": (1, 1),
        "num_filters": 4,
        "batch_size": 4,
        "eval_batch_size": 4,
        "train_examples": 10,
        "validation_examples": 8,
        "test_examples": 10,
        "parts": 2,
        "threads": 2,
    },
    "fastmri": {
        "channels": 2,
        "num_pool_layers": 2,
        "batch_size": 2,
        "eval_batch_size": 2,
        "train_examples": 3,
        "validation_examples": 3,
        "test_examples": 3,
        "parts": 2,
        "threads": 2,
    },
    "ogbg": {
        "latent_dim": 8,
        "hidden_dims": (8,),
        "num_message_passing_steps": 1,
        "batch_size": 8,
        "eval_batch_size": 8,
        "train_examples": 20,
        "validation_examples": 5,
        "test_examples": 5,
        "parts": 2,
        "threads": 2,
    },
    "criteo1tb": {
        "vocab_size": 1000,
        "embed_dim": 8,
        "mlp_bottom_dims": (16, 8),
        "mlp_top_dims": (16, 1),
        "batch_size": 64,
        "eval_batch_size": 32,
        "train_examples": 100,
        "validation_examples": 30,
        "test_examples": 30,
        "parts": 2,
        "threads": 2,
    },
}
"""Settings of each workload that fit ``prepare`` and compile soon."""


def _imagenet(root: Path, source: Path) -> None:
    raw_files.write_imagenet(source)
    for name, prepare in ((imagenet.NAME, imagenet.prepare),
                          (imagenet.V2_NAME, imagenet.prepare_v2)):  # fmt: skip
        prepare(preparing.Workshop(root, name), source, sample=True)


def _fastmri(root: Path, source: Path) -> None:
    raw_files.write_fastmri(source, train=5, held_out=4)
    fastmri.prepare(preparing.Workshop(root, fastmri.NAME), source, sample=True)


def _ogbg(root: Path, source: Path) -> None:
    raw_files.write_ogbg(source, raw_files.molecule_tables(60))
    ogbg.prepare(preparing.Workshop(root, ogbg.NAME), source, sample=True)


def _criteo(root: Path, source: Path) -> None:
    raw_files.write_criteo(source)
    criteo.prepare(preparing.Workshop(root, criteo.NAME), source, sample=True, block_rows=16)


PREPARE: Mapping[str, Callable[[Path, Path], None]] = {
    "imagenet_resnet": _imagenet,
    "fastmri": _fastmri,
    "ogbg": _ogbg,
    "criteo1tb": _criteo,
}


def prepare(name: str, root: Path) -> None:
    """Prepares small data of a workload below ``root``."""
    PREPARE[name](root, root / "raw" / name)
