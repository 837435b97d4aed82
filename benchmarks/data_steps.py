"""The steps of the data pipelines as functions to be timed.

Boundary: prepares small data sets and calls the pipelines; ``data`` times them.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from timetrial.framework.types import Split
from timetrial.workloads.data import (
    criteo,
    criteo_rows,
    criteo_text,
    fastmri,
    fastmri_slices,
    imagenet,
    imagenet_images,
    ogbg,
    ogbg_graphs,
    resize,
    synthetic,
)
from timetrial.workloads.data.jpeg import decoded
from timetrial.workloads.data.parts import Source
from timetrial.workloads.data.prepared import Records, load_manifest
from timetrial.workloads.data.preparing import Workshop


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the raw files.

    Attributes:
        images: training images.
        slices: training slices.
        graphs: molecules of all splits.
        rows: rows of one of the 24 days.
        block_rows: rows of a block.
    """

    images: int
    slices: int
    graphs: int
    rows: int
    block_rows: int


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a pipeline.

    Attributes:
        name: name of the step; ``part`` is the whole pipeline.
        run: works on the input of a number, for variety; returns the number of examples.
    """

    name: str
    run: Callable[[int], int]


def prepare_all(root: Path, sizes: Sizes) -> dict[str, float]:
    """Writes raw files and prepares them; returns examples per CPU second of the preparation."""
    import timetrial.workloads.data.builders  # noqa: F401  # imports are not timed

    synthetic.write_imagenet(root / "imagenet", sizes.images)
    synthetic.write_fastmri(root / "fastmri", sizes.slices)
    synthetic.write_ogbg(root / "ogbg", synthetic.molecule_tables(sizes.graphs))
    synthetic.write_criteo(root / "criteo", sizes.rows)
    data = root / "data"

    def imagenet_all() -> None:
        imagenet.prepare(Workshop(data, imagenet.NAME), root / "imagenet", sample=True)
        imagenet.prepare_v2(Workshop(data, imagenet.V2_NAME), root / "imagenet", sample=True)

    def criteo_all() -> None:
        shop = Workshop(data, criteo.NAME)
        criteo.prepare(shop, root / "criteo", sample=True, block_rows=sizes.block_rows)

    jobs: dict[str, tuple[int, Callable[[], None]]] = {
        "imagenet_resnet": (2 * sizes.images, imagenet_all),
        "fastmri": (
            2 * sizes.slices,
            lambda: fastmri.prepare(Workshop(data, fastmri.NAME), root / "fastmri", sample=True),
        ),
        "ogbg": (
            sizes.graphs,
            lambda: ogbg.prepare(Workshop(data, ogbg.NAME), root / "ogbg", sample=True),
        ),
        "criteo1tb": (criteo.DAYS * sizes.rows, criteo_all),
    }
    speeds = {}
    for workload, (examples, job) in jobs.items():
        started = time.process_time()
        job()
        speeds[workload] = examples / (time.process_time() - started)
    return speeds


def whole_part(source: Source, size: int) -> Step:
    """The step that makes whole batches of ``size`` examples."""

    def run(number: int) -> int:
        source.part(0, number, 0, 1)
        return size

    return Step("part", run)


def imagenet_steps(root: Path, sizes: Sizes) -> Sequence[Step]:
    """Reading, decoding, both ways of resizing, and a batch."""
    records = Records(root / imagenet.NAME, "train", ("image",))
    files = [records[row]["image"] for row in range(len(records))]
    pixels = [decoded(data) for data in files[:16]]
    generators = [np.random.default_rng(i) for i in range(len(pixels))]
    boxes = [
        resize.random_box(*one.shape[:2], rng) or resize.centre_box(*one.shape[:2])
        for one, rng in zip(pixels, generators, strict=True)
    ]

    def read(number: int) -> int:
        return min(1, len(records[number % len(records)]["image"]))

    def decode(number: int) -> int:
        return min(1, len(decoded(files[number % len(files)])))

    def resized(method: str) -> Callable[[int], int]:
        def run(number: int) -> int:
            place = number % len(pixels)
            return min(1, len(imagenet_images.cropped(pixels[place], boxes[place], method)))

        return run

    size = min(32, sizes.images)
    return [
        Step("read", read),
        Step("decode", decode),
        Step("resize cv2", resized("cv2")),
        Step("resize exact", resized("exact")),
        whole_part(imagenet_images.train_source(root, size), size),
    ]


def fastmri_steps(root: Path, sizes: Sizes) -> Sequence[Step]:
    """Reading, the inverse transform, and a batch."""
    records = Records(root / fastmri.NAME, "train")
    halves = [
        np.ascontiguousarray(records[row]["kspace"]).view(np.complex64)[..., 0]
        for row in range(len(records))
    ]
    masks = {half.shape[1]: fastmri_slices.fixed_mask(half.shape[1]) for half in halves}

    def read(number: int) -> int:
        return min(1, len(records[number % len(records)]["kspace"]))

    def transform(number: int) -> int:
        half = halves[number % len(halves)]
        return min(1, len(fastmri_slices.magnitude(half, masks[half.shape[1]])))

    size = min(8, len(records))
    source = fastmri_slices.train_source(root, size)
    return [Step("read", read), Step("transform", transform), whole_part(source, size)]


def ogbg_steps(root: Path, sizes: Sizes) -> Sequence[Step]:
    """Reading all flat arrays, and a batch."""
    examples = load_manifest(ogbg.NAME, root).examples(Split.TRAIN.value)

    def load(number: int) -> int:
        return ogbg.load_graphs(root, Split.TRAIN).count

    size = min(512, examples)
    return [Step("load", load), whole_part(ogbg_graphs.train_source(root, size), size)]


def criteo_steps(root: Path, sizes: Sizes) -> Sequence[Step]:
    """Unpacking and parsing of raw text, reading of blocks, and a batch."""
    raw = root.parent / "criteo" / "day_0.gz"
    text = b"".join(criteo.texts(raw))
    lines = b"".join(itertools.islice(text.splitlines(keepends=True), sizes.block_rows))
    records = Records(root / criteo.NAME, "train")

    def unpack(number: int) -> int:
        return sum(piece.count(b"\n") for piece in criteo.texts(raw))

    def parse(number: int) -> int:
        rows, _ = criteo_text.parse(lines, 1, lambda line, rule: None)
        return len(rows)

    def read(number: int) -> int:
        return len(records[number % len(records)]["rows"])

    size = 16 * sizes.block_rows
    source = criteo_rows.train_source(root, size)
    return [
        Step("unpack", unpack),
        Step("parse", parse),
        Step("read", read),
        whole_part(source, size),
    ]


STEPS: dict[str, Callable[[Path, Sizes], Sequence[Step]]] = {
    "imagenet_resnet": imagenet_steps,
    "fastmri": fastmri_steps,
    "ogbg": ogbg_steps,
    "criteo1tb": criteo_steps,
}
"""By workload, a function of the root of the prepared data sets that gives the steps."""
