"""The full-size data sets: what each one needs, and how it is prepared.

Boundary: a table of facts; the modules of the data sets read the raw files.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from timetrial.workloads.data import criteo, fastmri, imagenet, ogbg
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.prepared import Manifest, is_prepared, load_manifest
from timetrial.workloads.data.preparing import Workshop

GB: Final = 10**9


@dataclasses.dataclass(frozen=True)
class RawFile:
    """One raw file, or the files of one directory.

    Attributes:
        patterns: alternatives below the source directory, such as ``singlecoil_train/*.h5``.
        bytes: approximate size of the official file.
    """

    patterns: tuple[str, ...]
    bytes: int

    def found(self, source: Path) -> list[Path]:
        """The files of the first alternative that is there."""
        for pattern in self.patterns:
            if paths := sorted(source.glob(pattern)):
                return paths
        return []

    def __str__(self) -> str:
        return " or ".join(self.patterns)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One full-size data set.

    Attributes:
        workload: name of its workload.
        title: what it is, in words.
        steps: functions that prepare its directories, by name such as ``imagenet2012/5.1.0``.
        raw: its raw files.
        raw_text: the raw files in words.
        licence: the licence of the raw files.
        where: where to get them.
        bytes: disk space of the prepared data set, temporary files included. That of criteo1tb
            is estimated from synthetic rows.
        cpu_hours: time to prepare it, in hours of one core, from ``make bench-data`` on a machine
            of 2026; slow disks need longer.
        unit: what its examples are.
        counts: official number of examples by split.
    """

    workload: str
    title: str
    steps: Mapping[str, Callable[..., None]]
    raw: Sequence[RawFile]
    raw_text: str
    licence: str
    where: str
    bytes: int
    cpu_hours: float
    unit: str
    counts: Mapping[str, int]

    @property
    def raw_bytes(self) -> int:
        """Approximate size of all raw files."""
        return sum(raw.bytes for raw in self.raw)

    def check_source(self, source: Path) -> int:
        """Checks that all raw files are there; returns their size in bytes.

        Raises:
            DataError: files are missing; all of them are named.
        """
        found = {str(raw): raw.found(source) for raw in self.raw}
        if missing := [name for name, paths in found.items() if not paths]:
            raise DataError(
                f"{source}: expected {len(found)} raw files, found no {', no '.join(missing)}; "
                f"get them from {self.where}"
            )
        return sum(path.stat().st_size for paths in found.values() for path in paths)

    def is_prepared(self, root: Path) -> bool:
        """Whether all its directories are complete."""
        return all(is_prepared(name, root) for name in self.steps)

    def manifests(self, root: Path) -> list[Manifest]:
        """The manifests of its directories.

        Raises:
            DataError: a directory is not complete.
        """
        return [load_manifest(name, root) for name in self.steps]

    def _directories(self, root: Path) -> list[Path]:
        """Its directories, finished and unfinished, that are there."""
        shops = [Workshop(root, name) for name in self.steps]
        every = [place for shop in shops for place in (shop.final, shop.directory)]
        return [place for place in every if place.is_dir()]

    def is_begun(self, root: Path) -> bool:
        """Whether any of its files are there."""
        return bool(self._directories(root))

    def size(self, root: Path) -> int:
        """Bytes of its files so far, unfinished ones included."""
        files = [path for place in self._directories(root) for path in place.rglob("*")]
        return sum(path.stat().st_size for path in files if path.is_file())

    def examples(self, root: Path) -> dict[str, int]:
        """Number of prepared examples by split: rows of Criteo, not blocks of them.

        Raises:
            DataError: the data set is not prepared.
        """
        counts: dict[str, int] = {}
        for manifest in self.manifests(root):
            rows: Mapping[str, int] = manifest.settings.get("rows", {})
            for split in manifest.splits:
                counts[split] = rows.get(split, manifest.examples(split))
        return {split: counts[split] for split in self.counts}

    def check_space(self, root: Path, needed: int) -> None:
        """Checks the free disk space, less what is there of an earlier attempt.

        Raises:
            DataError: there is too little.
        """
        free, left = free_space(root), max(0, needed - self.size(root))
        if free < left:
            raise DataError(
                f"{root}: expected {size_text(left)} of free disk space, found {size_text(free)}; "
                "another directory: --data DIR"
            )


def free_space(root: Path) -> int:
    """Free bytes of the file system of a directory, which need not exist."""
    there = next(path for path in (root, *root.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def size_text(size: int) -> str:
    """Bytes in words: ``158 GB``, ``1.2 GB``, ``43 MB``."""
    for unit, factor in (("TB", 10**12), ("GB", GB), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            value = size / factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{size} bytes"


_SETS: Final = (
    DataSet(
        workload="imagenet_resnet",
        title="ImageNet (ILSVRC2012), with ImageNet-v2 for test",
        steps={imagenet.NAME: imagenet.prepare, imagenet.V2_NAME: imagenet.prepare_v2},
        raw=(
            RawFile((imagenet.TRAIN_FILE,), 147_897_477_120),
            RawFile((imagenet.VALIDATION_FILE,), 6_744_924_160),
            RawFile((imagenet.V2_FILE,), 1_260_000_000),
        ),
        raw_text=f"{imagenet.TRAIN_FILE}, {imagenet.VALIDATION_FILE}, {imagenet.V2_FILE}",
        licence="ImageNet: terms of access, non-commercial research and teaching; "
        "ImageNet-v2: see its page",
        where="https://image-net.org/download (with an account) and "
        "https://huggingface.co/datasets/vaishaal/ImageNetV2",
        bytes=158 * GB,
        cpu_hours=0.6,
        unit="images",
        counts={"train": 1_281_167, "validation": 50_000, "test": 10_000},
    ),
    DataSet(
        workload="fastmri",
        title="fastMRI knee, single coil",
        steps={fastmri.NAME: fastmri.prepare},
        raw=(
            RawFile(("singlecoil_train/*.h5",), 94 * GB),
            RawFile(("singlecoil_val/*.h5",), 19 * GB),
        ),
        raw_text="singlecoil_train/*.h5 (973 files), singlecoil_val/*.h5 (199 files)",
        licence="NYU fastMRI data sharing agreement: research and teaching, no redistribution",
        where="https://fastmri.med.nyu.edu (links come by mail)",
        bytes=57 * GB,
        cpu_hours=0.1,
        unit="slices",
        counts={"train": 34_742, "validation": 3_554, "test": 3_581},
    ),
    DataSet(
        workload="ogbg",
        title="ogbg-molpcba of the Open Graph Benchmark",
        steps={ogbg.NAME: ogbg.prepare},
        raw=(RawFile((ogbg.RAW_FILE,), 100 * 10**6),),
        raw_text=ogbg.RAW_FILE,
        licence="MIT",
        where="https://snap.stanford.edu/ogb/data/graphproppred/csv_mol_download/pcba.zip",
        bytes=600 * 10**6,
        cpu_hours=0.03,
        unit="graphs",
        counts={"train": 350_343, "validation": 43_793, "test": 43_793},
    ),
    DataSet(
        workload="criteo1tb",
        title="Criteo 1TB click logs",
        steps={criteo.NAME: criteo.prepare},
        raw=tuple(
            RawFile((f"day_{day}.gz", f"day_{day}"), 342 * GB // criteo.DAYS)
            for day in range(criteo.DAYS)
        ),
        raw_text="day_0.gz to day_23.gz, packed or not",
        licence="CC BY-NC-SA 4.0",
        where="https://ailab.criteo.com/criteo-1tb-click-logs-dataset/",
        bytes=350 * GB,
        cpu_hours=4.0,
        unit="rows",
        counts={
            "train": 4_195_197_692,
            "validation": criteo.LAST_DAY_LINES - criteo.TEST_LINES,
            "test": criteo.TEST_LINES,
        },
    ),
)

DATA_SETS: Final[Mapping[str, DataSet]] = {one.workload: one for one in _SETS}
"""All full-size data sets by the name of their workload."""
