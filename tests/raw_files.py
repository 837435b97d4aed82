"""Small files in the raw layouts of the full-size data sets, from a seed."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from timetrial.workloads.data.libraries import missing_libraries

needs_data = pytest.mark.skipif(
    bool(missing_libraries()),
    reason=f"needs the extra [data]; missing: {', '.join(missing_libraries())}",
)


def records_in(path: Path) -> list[bytes]:
    """The records of an ArrayRecord file."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path))
    return [reader.read([row])[0] for row in range(reader.num_records())]


def in_one_order(record: bytes) -> bytes:
    """A record with its features in the order of their names; TFDS leaves the order open."""
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example.FromString(record)
    return bytes(example.SerializeToString(deterministic=True))


def criteo_lines(rows: int, seed: int) -> list[str]:
    """Lines of a day: labels, integers (some missing or negative), categories (some missing)."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        integers = [
            "" if rng.random() < 0.2 else str(rng.integers(-2, 10 ** rng.integers(1, 10)))
            for _ in range(13)
        ]
        categories = [
            "" if rng.random() < 0.1 else f"{rng.integers(0, 2**32):08x}" for _ in range(26)
        ]
        label = str(int(rng.random() < 0.03))
        lines.append("\t".join([label, *integers, *categories]) + "\n")
    return lines


def write_criteo(directory: Path, rows: int = 40) -> list[list[str]]:
    """Writes day_0 to day_23, every second one compressed; returns their lines."""
    directory.mkdir(parents=True, exist_ok=True)
    days = [criteo_lines(rows + 3 * day, day) for day in range(24)]
    for day, lines in enumerate(days):
        text = "".join(lines).encode()
        if day % 2:
            (directory / f"day_{day}").write_bytes(text)
        else:
            (directory / f"day_{day}.gz").write_bytes(gzip.compress(text, mtime=0))
    return days


def slice_of_kspace(rng: np.random.Generator, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth complex image: its k-space (640, width) and the magnitude of its middle."""
    y, x = np.mgrid[-1 : 1 : 640 * 1j, -1 : 1 : width * 1j]
    image = sum(
        size * np.exp(-(((x - cx) / 0.2) ** 2) - ((y - cy) / 0.12) ** 2)
        for size, cx, cy in rng.uniform(0.1, 0.6, (4, 3))
    )
    image = 1e-4 * image * np.exp(1j * (x + y))
    k = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image), norm="ortho")).astype(np.complex64)
    left = (width - 320) // 2
    return k, np.abs(image)[160:480, left : left + 320].astype(np.float32)


def write_fastmri_volume(path: Path, slices: int, width: int, seed: int) -> None:
    """Writes one raw file."""
    import h5py

    rng = np.random.default_rng(seed)
    kspace, target = zip(*(slice_of_kspace(rng, width) for _ in range(slices)), strict=True)
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


def write_fastmri(directory: Path, train: int = 3, held_out: int = 2, slices: int = 2) -> None:
    """Writes volumes of different widths; names are not in the order of the seeds."""
    widths = (372, 368, 320, 375)
    for split, volumes in (("train", train), ("val", held_out)):
        for v in range(volumes):
            path = directory / f"singlecoil_{split}" / f"file{1000100 - v}.h5"
            write_fastmri_volume(path, slices, widths[v % len(widths)], seed=v)


WNIDS = ("n02105855", "n01440764", "n01739381", "n01443537")  # labels 230, 0, 59, 1
CMYK, PNG = "n01739381_1309.JPEG", "n02105855_2933.JPEG"


def picture(rng: np.random.Generator) -> Any:
    """A smooth picture of random size."""
    from PIL import Image

    colours = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
    size = tuple(int(n) for n in rng.integers(40, 120, 2))
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Any, form: str = "JPEG") -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    image.save(file, form, **({"quality": 90} if form == "JPEG" else {}))
    return file.getvalue()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """An archive."""
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return result.getvalue()


def train_images(per_class: int = 3) -> dict[str, dict[str, bytes]]:
    """By WordNet id, images by name: also a grey one, a CMYK one and a PNG."""
    rng = np.random.default_rng(0)
    classes: dict[str, dict[str, bytes]] = {}
    for wnid in WNIDS:
        numbers = rng.choice(20_000, per_class, replace=False)
        images = {f"{wnid}_{number}.JPEG": encoded(picture(rng)) for number in numbers}
        images[next(iter(images))] = encoded(picture(rng).convert("L"))
        if CMYK.startswith(wnid):
            images[CMYK] = encoded(picture(rng).convert("CMYK"))
        if PNG.startswith(wnid):
            images[PNG] = encoded(picture(rng), "PNG")
        classes[wnid] = images
    return classes


def write_imagenet(directory: Path) -> None:
    """Writes the three archives; validation images and directories of labels are in no order."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    inner = {f"{wnid}.tar": tar_of(images) for wnid, images in train_images().items()}
    (directory / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    validation = {
        f"ILSVRC2012_val_{number + 1:08d}.JPEG": encoded(picture(rng))
        for number in rng.permutation(8)
    }
    (directory / "ILSVRC2012_img_val.tar").write_bytes(tar_of(validation))
    test = {
        f"imagenetv2-matched-frequency-format-val/{label}/{rng.bytes(20).hex()}.jpeg": encoded(
            picture(rng)
        )
        for label in (10, 0, 2, 100, 1)
        for _ in range(2)
    }
    packed = gzip.compress(tar_of(test), mtime=0)
    (directory / "imagenetv2-matched-frequency.tar.gz").write_bytes(packed)


def molecule_tables(graphs: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Tables of the raw file; atoms, bonds and labels are as frequent as in ogbg-molpcba.

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


def write_ogbg(directory: Path, tables: Mapping[str, np.ndarray]) -> None:
    """Writes ``pcba.zip``."""
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(directory / "pcba.zip", "w") as archive:
        for name, rows in tables.items():
            cells = rows if isinstance(rows, list) else rows.tolist()
            text = "".join(",".join(map(str, row)) + "\n" for row in cells)
            info = zipfile.ZipInfo(f"pcba/{name}.csv.gz", (2020, 1, 1, 0, 0, 0))
            archive.writestr(info, gzip.compress(text.encode(), 1, mtime=0))
