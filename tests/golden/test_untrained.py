"""Untrained full-size models on synthetic data: loss, metric and gradient are those on real data.

The figures are means and standard deviations over 120 public baseline runs of AlgoPerf (MLCommons,
"Algorithmic Efficiency", 2023, https://github.com/mlcommons/algorithmic-efficiency).
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from raw_files import needs_data

from timetrial.bench.data.untrained import judged, untrained
from timetrial.framework.types import Split
from timetrial.workloads.criteo1tb import Criteo1tb, Criteo1tbSettings
from timetrial.workloads.data import synthetic
from timetrial.workloads.data.catalogue import DATA_SETS
from timetrial.workloads.data.preparing import Workshop
from timetrial.workloads.fastmri import Fastmri, FastmriSettings
from timetrial.workloads.full_size import FullSize
from timetrial.workloads.imagenet_resnet import ImagenetResnet, ImagenetResnetSettings
from timetrial.workloads.ogbg import Ogbg, OgbgSettings

pytestmark = [pytest.mark.slow, needs_data]

SIZES = {"parts": 2, "threads": 2, "train_examples": 8}


def prepared(name: str, root: Path) -> Path:
    for place, step in DATA_SETS[name].steps.items():
        step(Workshop(root, place), root / "raw", sample=True)
    return root


def validation_metrics(workload: FullSize, seed: int = 0) -> dict[str, float]:
    """Metrics of the untrained model on the first validation batch."""
    params, model_state = jax.jit(workload.init)(jax.random.key(seed))
    batch = next(iter(workload.eval_batches(Split.VALIDATION)))
    sums, outputs = jax.device_get(jax.jit(workload.eval_step)(params, model_state, batch))
    means = {name: float(value / weight) for name, (value, weight) in sums.items()}
    return means | workload.finish([outputs])


def check(workload: FullSize) -> None:
    finding = judged(workload.name, *untrained(workload))
    assert finding.passed, finding.text


def test_imagenet_resnet():
    n = 32
    workload = ImagenetResnet(ImagenetResnetSettings(batch_size=n, parts=1), Path("no-data"))
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, 224, 224, 3), np.uint8)
    batch = {"x": x, "y": rng.integers(0, 1000, n, np.int32)}
    key = jax.random.key(0)
    params, model_state = jax.jit(workload.init)(key)
    loss_of = jax.jit(jax.value_and_grad(workload.loss, has_aux=True))
    (loss, _), gradient = loss_of(params, model_state, batch, key)
    # The gradient of a batch is mostly the noise of its images: its norm falls as 1 / sqrt(n).
    norm = float(optax.tree.norm(gradient)) * math.sqrt(n / ImagenetResnetSettings().batch_size)
    finding = judged(workload.name, float(loss), norm)
    assert finding.passed, finding.text
    weighted = {**batch, "weight": np.ones(n, np.float32)}
    sums, _ = jax.jit(workload.eval_step)(params, model_state, weighted)
    means = {name: float(value / weight) for name, (value, weight) in sums.items()}
    assert means["loss"] == pytest.approx(math.log(1000), abs=0.05)
    assert means["accuracy"] <= 1 / n


def test_fastmri(tmp_path: Path):
    for split in ("train", "val"):
        for seed in range(2):  # smooth images
            path = tmp_path / "raw" / f"singlecoil_{split}" / f"file{seed}.h5"
            synthetic.write_fastmri_volume(path, 2, 368, seed)
    sizes = {"batch_size": 4, "eval_batch_size": 2, "validation_examples": 2, "test_examples": 2}
    settings = FastmriSettings(**{**SIZES, **sizes, "train_examples": 4})
    workload = Fastmri(settings, prepared("fastmri", tmp_path))
    found = np.array([untrained(workload, seed) for seed in range(4)])
    loss, norm = found.mean(axis=0)
    assert loss == pytest.approx(0.938, abs=3 * 0.109), found
    assert 5.16 / 2 < norm < 5.16 * 2, found
    metrics = validation_metrics(workload)
    assert metrics["loss"] == pytest.approx(0.964, abs=4 * 0.109)
    assert -0.1 < metrics["ssim"] < 0.5


def test_ogbg(tmp_path: Path):
    synthetic.write_ogbg(tmp_path / "raw", synthetic.molecule_tables(4000))
    sizes = {"batch_size": 512, "eval_batch_size": 400, "validation_examples": 400}
    settings = OgbgSettings(**{**SIZES, **sizes, "parts": 1, "test_examples": 8})
    workload = Ogbg(settings, prepared("ogbg", tmp_path))
    check(workload)
    plain = dataclasses.replace(settings, dropout_rate=0.0)
    check(Ogbg(plain, tmp_path))
    metrics = validation_metrics(workload)
    assert metrics["loss"] == pytest.approx(0.748, abs=4 * 0.029)
    assert 0.01 < metrics["mean_average_precision"] < 0.1


def test_criteo1tb(tmp_path: Path):
    synthetic.write_criteo(tmp_path / "raw", rows=512)
    sizes = {"batch_size": 1024, "eval_batch_size": 128, "validation_examples": 128}
    settings = Criteo1tbSettings(**{**SIZES, **sizes, "test_examples": 128})
    workload = Criteo1tb(settings, prepared("criteo1tb", tmp_path))
    check(workload)
    metrics = validation_metrics(workload)
    assert 0.1 < metrics["loss"] < 2.1
