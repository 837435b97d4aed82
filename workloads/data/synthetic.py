"""Synthetic raw files in the layouts of the full-size data sets, from a seed.

Boundary: writes files; preparing and reading them is the work of the data sets' modules.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from timetrial.workloads.data.criteo import DAYS
from timetrial.workloads.data.criteo_text import INTEGERS, VOCABULARIES

WNIDS = ("n01440764", "n01443537", "n01739381", "n02105855")


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """An archive."""
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return result.getvalue()


def photograph(rng: np.random.Generator) -> bytes:
    """A JPEG of 500 x 375 pixels and about 100 kB, as usual in ImageNet."""
    from PIL import Image

    pixels = np.zeros((375, 500, 3), np.float32)
    for size, weight in (((4, 3), 70), ((25, 19), 35), ((125, 94), 14)):
        noise = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        smooth = Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC)
        pixels += weight / 100 * np.asarray(smooth, np.float32)
    pixels += rng.normal(0, 6, pixels.shape)
    file = io.BytesIO()
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def write_imagenet(directory: Path, images: int) -> None:
    """Writes the three archives; ``images`` for training, half as many for both other splits."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(0)
    each = images // len(WNIDS)
    inner = {
        f"{wnid}.tar": tar_of({f"{wnid}_{n}.JPEG": photograph(rng) for n in range(each)})
        for wnid in WNIDS
    }
    (directory / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    half = range(images // 2)
    validation = {f"ILSVRC2012_val_{n + 1:08d}.JPEG": photograph(rng) for n in half}
    (directory / "ILSVRC2012_img_val.tar").write_bytes(tar_of(validation))
    test = {f"imagenetv2-matched-frequency-format-val/{n}/a.jpeg": photograph(rng) for n in half}
    packed = gzip.compress(tar_of(test), 1, mtime=0)
    (directory / "imagenetv2-matched-frequency.tar.gz").write_bytes(packed)


def slice_of_kspace(
    rng: np.random.Generator, width: int, noise: float = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A smooth complex image: its k-space (640, width) and the magnitude of its middle.

    Args:
        rng: source of all random numbers.
        width: columns of k-space, >= 320.
        noise: standard deviation of the noise, real and imaginary; the image has about 1.
    """
    y, x = np.mgrid[-1 : 1 : 640 * 1j, -1 : 1 : width * 1j]
    image = sum(
        size * np.exp(-(((x - cx) / 0.2) ** 2) - ((y - cy) / 0.12) ** 2)
        for size, cx, cy in rng.uniform(0.1, 0.6, (4, 3))
    )
    image = 1e-4 * image * np.exp(1j * (x + y))
    if noise:
        image += 1e-4 * noise * (rng.normal(size=x.shape) + 1j * rng.normal(size=x.shape))
    k = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image), norm="ortho")).astype(np.complex64)
    left = (width - 320) // 2
    return k, np.abs(image)[160:480, left : left + 320].astype(np.float32)


def write_fastmri_volume(path: Path, slices: int, width: int, seed: int, noise: float = 0) -> None:
    """Writes one raw file."""
    import h5py

    rng = np.random.default_rng(seed)
    kspace, target = zip(*(slice_of_kspace(rng, width, noise) for _ in range(slices)), strict=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["kspace"] = np.stack(kspace)
        file["reconstruction_esc"] = np.stack(target)
        file["reconstruction_rss"] = np.stack(target)
        file["ismrmrd_header"] = b"<ismrmrdHeader/>"
        file.attrs["max"] = np.float64(np.max(target))
        file.attrs["norm"] = np.float64(np.linalg.norm(target))
        file.attrs["acquisition"] = "CORPD_FBK"
        file.attrs["patient_id"] = f"p{seed}"


def write_fastmri(directory: Path, slices: int) -> None:
    """Writes volumes of both usual widths, two for training, two for the other splits."""
    for split in ("train", "val"):
        for seed, width in enumerate((368, 372)):
            path = directory / f"singlecoil_{split}" / f"file{1000000 + seed}.h5"
            write_fastmri_volume(path, slices // 2, width, seed, noise=0.03)


def molecule_tables(graphs: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Tables of ogbg-molpcba; atoms, bonds and labels are as frequent as there.

    There a molecule has 26.0 atoms and 28.1 bonds on average, and 39 % of its labels are known.
    """
    rng = np.random.default_rng(seed)
    n_node = np.clip(rng.normal(26, 6.3, graphs).round().astype(int), 1, 332)
    n_edge = np.where(n_node > 1, n_node - 1 + rng.poisson(3.1, graphs), 0)
    size = np.repeat(n_node, n_edge)
    labels = (rng.random((graphs, 128)) < 0.015).astype(int).astype(str)
    labels[rng.random((graphs, 128)) < 0.61] = ""
    order = rng.permutation(graphs)
    first, second = int(0.8 * graphs), int(0.9 * graphs)
    return {
        "raw/graph-label": labels,
        "raw/num-node-list": n_node[:, None],
        "raw/num-edge-list": n_edge[:, None],
        "raw/node-feat": rng.integers(0, 9, (n_node.sum(), 9)),
        "raw/edge-feat": rng.integers(0, 4, (n_edge.sum(), 3)),
        "raw/edge": (rng.random((n_edge.sum(), 2)) * size[:, None]).astype(int),
        "split/scaffold/train": order[:first, None],
        "split/scaffold/valid": order[first:second, None],
        "split/scaffold/test": order[second:, None],
    }


def write_ogbg(directory: Path, tables: Mapping[str, Any]) -> None:
    """Writes ``pcba.zip`` from tables: arrays (rows, columns) or lists of rows."""
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(directory / "pcba.zip", "w") as archive:
        for name, rows in tables.items():
            cells = rows if isinstance(rows, list) else rows.tolist()
            text = "".join(",".join(map(str, row)) + "\n" for row in cells)
            info = zipfile.ZipInfo(f"pcba/{name}.csv.gz", (2020, 1, 1, 0, 0, 0))
            archive.writestr(info, gzip.compress(text.encode(), 1, mtime=0))


def criteo_text(rows: int) -> bytes:
    """Lines of about 220 bytes; small numbers and frequent categories are more frequent."""
    rng = np.random.default_rng(0)
    columns = [(rng.random(rows) < 0.03).astype(int).astype(str)]
    for _ in range(INTEGERS):
        cells = np.exp(rng.uniform(0, 9, rows)).astype(int).astype(str)
        cells[rng.random(rows) < 0.3] = ""
        columns.append(cells)
    for column, size in enumerate(VOCABULARIES):
        ids = np.exp(rng.uniform(0, np.log(size), rows)).astype(np.uint64)
        codes = (ids * np.uint64(2654435761) + np.uint64(column)) % np.uint64(2**32)
        cells = np.array([f"{code:08x}" for code in codes.tolist()])
        cells[rng.random(rows) < 0.25] = ""
        columns.append(cells)
    lines = zip(*(cells.tolist() for cells in columns), strict=True)
    return "".join("\t".join(line) + "\n" for line in lines).encode()


def write_criteo(directory: Path, rows: int) -> None:
    """Writes 24 equal days of ``rows`` rows, compressed."""
    directory.mkdir(parents=True)
    packed = gzip.compress(criteo_text(rows), 6, mtime=0)
    for day in range(DAYS):
        (directory / f"day_{day}.gz").write_bytes(packed)
