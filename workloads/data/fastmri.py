"""FastMRI knee, single coil: volumes of k-space, prepared slice by slice.

Boundary: raw files to records; ``fastmri_slices`` makes batches of them.

Raw: ``singlecoil_train/*.h5`` and ``singlecoil_val/*.h5`` with ``kspace`` (slices, 640, W),
``reconstruction_esc`` (slices, 320, 320) and the attribute ``max`` (Zbontar et al., "fastMRI: An
Open Dataset and Benchmarks for Accelerated MRI", 2018, https://arxiv.org/abs/1811.08839).
The first 100 volumes of the second directory, by name, are for validation, the rest for test, as in
AlgoPerf (Dahl et al., 2023, https://arxiv.org/abs/2306.07179).

A mask removes columns of k-space only. So the inverse transform along the rows and the crop to 320
rows do not depend on it, and are done here once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from timetrial.framework.types import Split
from timetrial.workloads.data import preparing, workers
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.prepared import Manifest

NAME: Final = "fastmri_knee/1.0.0"
"""Directory of the prepared data set."""

SIZE: Final = 320
"""Rows and columns of an image."""

OPTIONS: Final = preparing.UNCOMPRESSED
"""Options of ArrayRecord: noise can hardly be compressed, and reading takes a third of the time."""

VALIDATION_VOLUMES: Final = 100
"""Volumes for validation, the first of ``singlecoil_val`` by name."""

MOST_SAMPLES: Final = 2**24
"""Most samples of a slice; fastMRI's have 640 x 372."""


def half_transformed(kspace: np.ndarray) -> np.ndarray:
    """Prepares the k-space of one slice.

    Args:
        kspace: complex (H, W), lowest frequencies in the middle, H >= 320.

    Returns:
        Complex64 (320, W): the middle rows of the image, columns still in k-space, with the lowest
        frequency first.
    """
    centred = np.fft.ifftshift(kspace, axes=0)
    image = np.fft.fftshift(np.fft.ifft(centred, axis=0, norm="ortho"), axes=0)
    top = (len(kspace) - SIZE) // 2
    rows: np.ndarray = np.fft.ifftshift(image[top : top + SIZE], axes=1).astype(np.complex64)
    return rows


def rule_of(kspace: np.ndarray, target: np.ndarray) -> str | None:
    """The rule that a raw slice breaks, or None."""
    if kspace.dtype.kind != "c" or min(kspace.shape) < SIZE:
        return f"expected complex k-space, 320 x 320 or larger, got {kspace.dtype} {kspace.shape}"
    if target.shape != (SIZE, SIZE):
        return f"expected a reconstruction of 320 x 320, got {target.shape}"
    if not (np.isfinite(kspace).all() and np.isfinite(target).all()):
        return "expected finite numbers"
    return None


@dataclasses.dataclass(frozen=True)
class Volume:
    """Writes the slices of one raw file.

    Attributes:
        path: the raw file.
        split: its split.
    """

    path: Path
    split: str

    @property
    def name(self) -> str:
        return f"{self.split}-{self.path.stem}"

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def fingerprint(self) -> Any:
        return [preparing.raw_fingerprint(self.path), self.split, OPTIONS]

    def run(self, directory: Path, skipped: preparing.BadRecords) -> preparing.Result:
        from timetrial.workloads.data.builders import FastmriKnee

        serialised = preparing.Serialiser(FastmriKnee(data_dir=str(directory)).info.features)
        records = map(serialised, self._slices(skipped))
        shard = preparing.write_shard(directory / self.name, records, OPTIONS)
        workers.advance(self.size)
        if not shard.examples:
            (directory / self.name).unlink()
            return {"shards": {}}
        return {"shards": {self.split: [dataclasses.asdict(shard)]}}

    def _slices(self, skipped: preparing.BadRecords) -> Iterator[dict[str, Any]]:
        import h5py

        try:
            with h5py.File(self.path, "r") as file:
                largest = float(file.attrs["max"])
                if not 0 < largest < np.inf:
                    skipped.add(self.path, f"expected the attribute max > 0, got {largest}")
                    return
                kspace, target = file["kspace"], file["reconstruction_esc"]
                if max(math.prod(kspace.shape[1:]), math.prod(target.shape[1:])) > MOST_SAMPLES:
                    skipped.add(self.path, f"expected at most {MOST_SAMPLES:,} samples per slice")
                    return
                if len(kspace) != len(target):
                    found = f"{len(kspace)} and {len(target)}"
                    skipped.add(self.path, f"expected equally many slices twice, got {found}")
                    return
                for number in range(len(kspace)):
                    one, image = kspace[number], target[number]
                    if rule := rule_of(one, image):
                        skipped.add(f"{self.path}: slice {number}", rule)
                        continue
                    with np.errstate(over="ignore", invalid="ignore"):
                        rows = half_transformed(one)
                    if not np.isfinite(rows).all():
                        rule = "expected k-space with a finite transform"
                        skipped.add(f"{self.path}: slice {number}", rule)
                        continue
                    yield {
                        "kspace": rows.view(np.float32).reshape(*rows.shape, 2),
                        "target": image.astype(np.float32),
                        "volume_max": np.float32(largest),
                        "file_name": self.path.name,
                        "slice": number,
                    }
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            text = "expected HDF5 with kspace, reconstruction_esc and the attribute max"
            skipped.add(self.path, f"{text} ({error})")


def raw_volumes(source: Path, *, sample: bool = False) -> list[Volume]:
    """The raw files with their splits, by name within a split.

    Args:
        source: directory of ``singlecoil_train`` and ``singlecoil_val``.
        sample: half of the volumes of ``singlecoil_val`` are for validation.

    Raises:
        DataError: a directory has no such files, or too few.
    """
    found = []
    for folder in ("singlecoil_train", "singlecoil_val"):
        files = sorted((source / folder).glob("*.h5"))
        if not files:
            raise DataError(f"{source / folder}: expected .h5 files, found none")
        found.append(files)
    train, held_out = found
    first = len(held_out) // 2 if sample else VALIDATION_VOLUMES
    if not 0 < first < len(held_out):
        raise DataError(
            f"{source / 'singlecoil_val'}: expected more than {max(first, 1)} volumes, "
            f"found {len(held_out)}"
        )
    return [
        *(Volume(path, Split.TRAIN.value) for path in train),
        *(Volume(path, Split.VALIDATION.value) for path in held_out[:first]),
        *(Volume(path, Split.TEST.value) for path in held_out[first:]),
    ]


def prepare(workshop: preparing.Workshop, source: Path, *, sample: bool = False) -> None:
    """Prepares the data set.

    Args:
        workshop: where and how.
        source: directory of ``singlecoil_train`` and ``singlecoil_val``.
        sample: the raw files are a small sample.

    Raises:
        DataError: raw files are missing, or have too many bad slices.
    """
    from timetrial.workloads.data.builders import FastmriKnee

    volumes = raw_volumes(source, sample=sample)
    with workshop.opened() as unfinished:
        if not unfinished:
            return
        results = workshop.run(volumes)
        manifest = Manifest(
            name=NAME,
            splits={split.value: preparing.shards_in(results, split.value) for split in Split},
            settings={"volumes": len(volumes)},
            skipped=preparing.skipped_in(results),
            sample=sample,
        )
        workshop.finish(FastmriKnee(data_dir=str(workshop.root)), manifest)
