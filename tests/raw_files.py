"""Small files in the raw layouts of the full-size data sets, from a seed."""

from __future__ import annotations

import gzip
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from timetrial.workloads.data.libraries import missing_libraries
from timetrial.workloads.data.synthetic import (
    molecule_tables,
    slice_of_kspace,
    tar_of,
    write_fastmri_volume,
    write_ogbg,
)

__all__ = ["molecule_tables", "slice_of_kspace", "tar_of", "write_fastmri_volume", "write_ogbg"]

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


def check_small_and_picklable(source: Any, name: str, size: int, step: int = 0) -> None:
    """Checks that a used source is pickled without its data and makes the same part again."""
    batch = source.part(0, step, 0, 1)
    data = pickle.dumps(source)
    assert len(data) < size
    np.testing.assert_array_equal(pickle.loads(data).part(0, step, 0, 1)[name], batch[name])
