"""ImageNet: the archives of ILSVRC2012 and ImageNet-v2, prepared as TFDS prepares them.

Boundary: raw files to records; ``imagenet_images`` makes batches of them.

Raw: ``ILSVRC2012_img_train.tar``, ``ILSVRC2012_img_val.tar`` (Russakovsky et al., "ImageNet Large
Scale Visual Recognition Challenge", 2015, https://arxiv.org/abs/1409.0575) and
``imagenetv2-matched-frequency.tar.gz`` (Recht et al., "Do ImageNet Classifiers Generalize to
ImageNet?", 2019, https://arxiv.org/abs/1902.10811). Labels come from files of TFDS.

The archives are read twice. A scan checks every image and notes where it lies; then each shard is
written by itself, in TFDS' order of hashed keys. No temporary copy is needed.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from timetrial.workloads.data import preparing, workers
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.jpeg import decoded, rgb_jpeg
from timetrial.workloads.data.prepared import Manifest

NAME: Final = "imagenet2012/5.1.0"
"""Directory of the prepared training and validation images."""

V2_NAME: Final = "imagenet_v2/matched-frequency/3.0.0"
"""Directory of the prepared test images."""

TRAIN_FILE: Final = "ILSVRC2012_img_train.tar"
"""Archive of 1,000 archives, one per label."""

VALIDATION_FILE: Final = "ILSVRC2012_img_val.tar"
"""Archive of 50,000 images, in no order."""

V2_FILE: Final = "imagenetv2-matched-frequency.tar.gz"
"""Archive of 10,000 images in a directory per label."""

SHARES: Final = 10
"""Jobs that scan an archive without inner archives."""

_VALIDATION_NAME: Final = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_V2_NAME: Final = re.compile(r"[^/]+/(\d{1,3})/([^/]+\.jpe?g)")


@functools.cache
def _lines(name: str) -> tuple[str, ...]:
    """Lines of a file of TFDS' ``imagenet2012``."""
    import tensorflow_datasets as tfds

    path = tfds.core.tfds_path(f"datasets/imagenet2012/{name}")
    return tuple(Path(path).read_text().split())


def labels() -> tuple[str, ...]:
    """The 1,000 WordNet ids, by label."""
    return _lines("labels.txt")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image of an archive.

    Attributes:
        key: key of TFDS.
        file_name: feature of that name.
        label: label, 0 to 999.
        offset, size: place in the archive, in bytes.
        record: size of the record, in bytes.
    """

    key: str
    file_name: str
    label: int
    offset: int
    size: int
    record: int = 0


def train_entry(wnid: str, member: tarfile.TarInfo) -> Entry | str:
    """The entry of a training image, or the rule that its name breaks."""
    if not member.name.startswith(f"{wnid}_"):
        return f"expected a name that starts with {wnid}_"
    label = labels().index(wnid)
    return Entry(member.name, member.name, label, member.offset_data, member.size)


def validation_entry(wnid: str, member: tarfile.TarInfo) -> Entry | str:
    """The entry of a validation image, or the rule that its name breaks."""
    found = _VALIDATION_NAME.fullmatch(member.name)
    known = _lines("validation_labels.txt")
    if found is None or not 1 <= int(found[1]) <= len(known):
        return "expected ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_00050000.JPEG"
    label = labels().index(known[int(found[1]) - 1])
    return Entry(member.name, member.name, label, member.offset_data, member.size)


def v2_entry(wnid: str, member: tarfile.TarInfo) -> Entry | str:
    """The entry of an image of ImageNet-v2, or the rule that its name breaks."""
    found = _V2_NAME.fullmatch(member.name.removeprefix("./"))
    if found is None:
        return "expected DIRECTORY/LABEL/FILE.jpeg with a label from 0 to 999"
    label, file = found.groups()
    place = (member.offset_data, member.size)
    return Entry(f"{label}_{file}", f"{label}/{file}", int(label), *place)


@dataclasses.dataclass(frozen=True)
class Scan:
    """Checks the images of an archive and notes their places.

    Attributes:
        name: name of the job.
        path: the raw file.
        entry: gives the entry of a member.
        wnid: WordNet id of an inner archive, or "".
        start, size: place of the archive in the raw file, in bytes.
        share, shares: takes every ``shares``-th image, from number ``share`` on.
    """

    name: str
    path: Path
    entry: Callable[[str, tarfile.TarInfo], Entry | str]
    wnid: str
    start: int
    size: int
    share: int = 0
    shares: int = 1

    def fingerprint(self) -> Any:
        raw = preparing.raw_fingerprint(self.path)
        return [raw, self.wnid, self.start, self.share, self.shares]

    def run(self, directory: Path, skipped: preparing.BadRecords) -> preparing.Result:
        from timetrial.workloads.data.builders import Imagenet2012

        serialised = preparing.Serialiser(Imagenet2012(data_dir=str(directory)).info.features)
        entries = []
        with self.path.open("rb") as raw:
            for number, member in enumerate(members(self.path, raw, self.start)):
                if member.offset >= self.start + self.size:
                    break
                if number % self.shares != self.share:
                    continue
                entry = self.entry(self.wnid, member)
                try:
                    if isinstance(entry, str):
                        raise ValueError(entry)
                    data = rgb_jpeg(image_bytes(raw, entry))
                    decoded(data)
                except ValueError as error:
                    skipped.add(f"{self.path}: {member.name}", str(error))
                    continue
                record = len(serialised(example_of(entry, data)))
                entries.append(dataclasses.astuple(dataclasses.replace(entry, record=record)))
                workers.advance(member.size)
        return {"shards": {}, "entries": entries}


def members(path: Path, raw: Any, start: int) -> Iterator[tarfile.TarInfo]:
    """The files of an archive that starts somewhere in an open file; places are absolute.

    Raises:
        DataError: this is no archive, or its end is missing.
    """
    raw.seek(start)
    try:
        with tarfile.open(fileobj=raw, mode="r:") as tar:
            for member in tar:
                if member.isfile():
                    yield member
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: expected a whole tar archive ({error})") from error


def image_bytes(raw: Any, entry: Entry) -> bytes:
    """Bytes of an image in an open archive; leaves the place of reading as it was.

    Raises:
        ValueError: the archive ends before the image does.
    """
    place = raw.tell()
    raw.seek(entry.offset)
    data: bytes = raw.read(entry.size)
    raw.seek(place)
    if len(data) < entry.size:
        raise ValueError(f"expected {entry.size} bytes, found {len(data)}")
    return data


def example_of(entry: Entry, data: bytes) -> dict[str, Any]:
    """The example of an image, from its RGB JPEG."""
    return {"image": io.BytesIO(data), "label": entry.label, "file_name": entry.file_name}


@dataclasses.dataclass(frozen=True)
class ImageShard:
    """Writes one shard.

    Attributes:
        path: the raw file.
        split: split of the shard.
        index: number of the shard.
        entries: its images, in order.
    """

    path: Path
    split: str
    index: int
    entries: Sequence[Entry]

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}"

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    def fingerprint(self) -> Any:
        text = repr([dataclasses.astuple(entry) for entry in self.entries])
        return [preparing.raw_fingerprint(self.path), hashlib.sha256(text.encode()).hexdigest()]

    def run(self, directory: Path, skipped: preparing.BadRecords) -> preparing.Result:
        from timetrial.workloads.data.builders import Imagenet2012

        serialised = preparing.Serialiser(Imagenet2012(data_dir=str(directory)).info.features)

        def records() -> Iterator[bytes]:
            with self.path.open("rb") as raw:
                for entry in self.entries:
                    yield serialised(example_of(entry, rgb_jpeg(image_bytes(raw, entry))))
                    workers.advance(entry.size)

        shard = preparing.write_shard(directory / self.name, records())
        return {"shards": {self.split: [dataclasses.asdict(shard)]}}


def shard_jobs(path: Path, split: str, results: Sequence[preparing.Result]) -> list[ImageShard]:
    """The shards of a split, numbered and ordered as by TFDS.

    Raises:
        DataError: there is no image, or two have the same key.
    """
    from tensorflow_datasets.core.hashing import Hasher
    from tensorflow_datasets.core.utils import shard_utils

    hasher = Hasher(split)
    entries = [Entry(*one) for result in results for one in result["entries"]]
    keyed = {hasher.hash_key(entry.key): entry for entry in entries}
    if not entries or len(keyed) != len(entries):
        found = f"{len(entries)} images with {len(keyed)} different names"
        raise DataError(f"{path}: expected images with different names, found {found}")
    ordered = [keyed[key] for key in sorted(keyed)]
    total = sum(entry.record for entry in ordered)
    shards = shard_utils.ShardConfig().get_number_shards(total, len(ordered))
    ends = shard_utils.get_shard_boundaries(len(ordered), shards)
    starts = [0, *ends[:-1]]
    return [
        ImageShard(path, split, index, ordered[start:end])
        for index, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def _train_scans(path: Path) -> list[Scan]:
    """A scan of each inner archive, in order of the labels.

    Raises:
        DataError: an inner archive has no known name.
    """
    scans = []
    with path.open("rb") as raw:
        for member in members(path, raw, 0):
            wnid = member.name.removesuffix(".tar")
            if wnid not in labels():
                raise DataError(f"{path}: expected archives WNID.tar, found {member.name}")
            scans.append(
                Scan(f"scan-{wnid}", path, train_entry, wnid, member.offset_data, member.size)
            )
    return sorted(scans, key=lambda scan: scan.wnid)


def _shared_scans(name: str, path: Path, entry: Callable[..., Entry | str]) -> list[Scan]:
    size = path.stat().st_size
    return [
        Scan(f"scan-{name}-{share}", path, entry, "", 0, size, share, SHARES)
        for share in range(SHARES)
    ]


def prepare(workshop: preparing.Workshop, source: Path, *, sample: bool = False) -> None:
    """Prepares the training and validation images.

    Args:
        workshop: where and how, for ``NAME``.
        source: directory of the two archives.
        sample: the archives hold a small sample.

    Raises:
        DataError: an archive is missing or damaged, or has too many bad images.
    """
    from timetrial.workloads.data.builders import Imagenet2012

    train, validation = source / TRAIN_FILE, source / VALIDATION_FILE
    for path in (train, validation):
        preparing.raw_fingerprint(path)
    with workshop.opened() as unfinished:
        if unfinished:
            scans = {
                "train": (train, _train_scans(train)),
                "validation": (validation, _shared_scans("val", validation, validation_entry)),
            }
            _finish(workshop, Imagenet2012(data_dir=str(workshop.root)), scans, sample, NAME)


def prepare_v2(workshop: preparing.Workshop, source: Path, *, sample: bool = False) -> None:
    """Prepares the test images: ``prepare`` for ``V2_NAME``."""
    from isal import igzip

    from timetrial.workloads.data.builders import ImagenetV2

    packed = source / V2_FILE
    preparing.raw_fingerprint(packed)
    with workshop.opened() as unfinished:
        if not unfinished:
            return
        plain = workshop.directory / "images.tar.part"
        try:
            with igzip.open(packed, "rb") as text, plain.open("wb") as file:
                shutil.copyfileobj(text, file, 2**20)
            shutil.copystat(packed, plain)  # so that finished scans stay valid
        except (OSError, EOFError) as error:
            raise DataError(f"{packed}: expected a whole gzip file ({error})") from error
        scans = {"test": (plain, _shared_scans("test", plain, v2_entry))}
        builder = ImagenetV2(data_dir=str(workshop.root), config="matched-frequency")
        _finish(workshop, builder, scans, sample, V2_NAME, plain)


def _finish(
    workshop: preparing.Workshop,
    builder: Any,
    scans: dict[str, tuple[Path, list[Scan]]],
    sample: bool,
    name: str,
    *temporary: Path,
) -> None:
    """Scans all splits, writes their shards and finishes the data set."""
    scanned = workshop.run([scan for _, jobs in scans.values() for scan in jobs])
    shards: list[ImageShard] = []
    start = 0
    for split, (path, jobs) in scans.items():
        shards += shard_jobs(path, split, scanned[start : start + len(jobs)])
        start += len(jobs)
    written = workshop.run(shards)
    for path in temporary:
        path.unlink()
    manifest = Manifest(
        name=name,
        splits={split: preparing.shards_in(written, split) for split in scans},
        settings={},
        skipped=preparing.skipped_in(scanned),
        sample=sample,
    )
    workshop.finish(builder, manifest)
