"""Prepared data sets: their place, manifest and records.

Boundary: reads what ``preparing`` wrote; independent of what the records mean.

A data set lies where TensorFlow Datasets expects it, ``ROOT/NAME/[CONFIG/]VERSION``, as ArrayRecord
files with its metadata, plus ``manifest.json``. Neither reading nor writing needs TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from timetrial.framework.paths import is_file_name, user_path
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.libraries import require_libraries

if TYPE_CHECKING:  # lists of workloads need no arrays
    import numpy as np

MANIFEST: Final = "manifest.json"
"""Name of the manifest in the directory of a data set."""


def data_directory() -> Path:
    """Root of the prepared data sets.

    ``$TIMETRIAL_DATA``, else ``data`` in ``$TIMETRIAL_CACHE``, in ``$XDG_CACHE_HOME/timetrial`` or
    in ``~/.cache/timetrial``. An empty variable counts as unset.

    Raises:
        PathError: no variable says where, and this user has no home directory.
    """
    if own := os.environ.get("TIMETRIAL_DATA"):
        return user_path(own)
    if cache := os.environ.get("TIMETRIAL_CACHE"):
        return user_path(cache) / "data"
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return user_path(shared) / "timetrial" / "data"
    return user_path("~/.cache/timetrial/data")


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of records.

    Attributes:
        file: name in the directory of the data set.
        examples: number of records.
        bytes: sum of the sizes of the records, uncompressed.
        sha256: digest of the file.
    """

    file: str
    examples: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Skipped:
    """One bad record that was left out.

    Attributes:
        place: file, and line or key.
        rule: what was expected and what was found.
    """

    place: str
    rule: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Content of a prepared data set. The same raw files and settings give the same bytes.

    Attributes:
        name: directory of the data set below the root, such as ``imagenet2012/5.1.0``.
        splits: shards of each split, in order.
        settings: settings of the preparation, and facts about the records.
        skipped: bad records that were left out.
        sample: True for a small sample of the raw files, whose counts are not official.
    """

    name: str
    splits: Mapping[str, Sequence[Shard]]
    settings: Mapping[str, Any]
    skipped: Sequence[Skipped]
    sample: bool

    def examples(self, split: str) -> int:
        """Number of records of a split."""
        return sum(shard.examples for shard in self.splits[split])

    def text(self) -> str:
        """The manifest as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"


def manifest_path(name: str, root: Path) -> Path:
    """Path of the manifest of a data set."""
    return root / name / MANIFEST


def is_prepared(name: str, root: Path) -> bool:
    """Whether a data set is complete; its manifest is written last."""
    return manifest_path(name, root).is_file()


def load_manifest(name: str, root: Path) -> Manifest:
    """Reads the manifest of a data set.

    Raises:
        DataError: the data set is not prepared, or its manifest is not readable.
    """
    path = manifest_path(name, root)
    try:
        return _manifest(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: expected a prepared data set, found none; "
            "timetrial data list shows how to prepare it"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: not a readable manifest ({error}); prepare again") from error


def _manifest(raw: Any) -> Manifest:
    """A manifest from JSON; raises a KeyError, TypeError or ValueError for another tree."""
    splits = {s: [Shard(**shard) for shard in shards] for s, shards in raw["splits"].items()}
    for shard in itertools.chain.from_iterable(splits.values()):
        texts = isinstance(shard.file, str) and isinstance(shard.sha256, str)
        counts = (shard.examples, shard.bytes)
        if not texts or not is_file_name(shard.file):
            raise ValueError(f"expected the name of a file, got {str(shard.file)[:60]!r}")
        if not all(type(count) is int and 0 <= count < 2**53 for count in counts):
            raise ValueError(f"{shard.file}: expected counts from 0 to 2^53, got others")
    if not (isinstance(raw["name"], str) and isinstance(raw["settings"], dict)):
        raise TypeError("expected a name and settings")
    return Manifest(
        name=raw["name"],
        splits=splits,
        settings=raw["settings"],
        skipped=[Skipped(**one) for one in raw["skipped"]],
        sample=bool(raw["sample"]),
    )


def manifest_digest(name: str, root: Path) -> str:
    """Digest of a prepared data set: sha256 of its manifest.

    Raises:
        DataError: the data set is not prepared.
    """
    load_manifest(name, root)
    return hashlib.sha256(manifest_path(name, root).read_bytes()).hexdigest()


def file_digest(path: Path) -> str:
    """Sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of a split by number. Picklable; opens its files once per process, at first use.

    Several threads may read at the same time.

    Attributes:
        directory: directory of the data set.
        split: name of the split.
        undecoded: features that are returned as their encoded bytes.
    """

    directory: Path
    split: str
    undecoded: tuple[str, ...] = ()

    @functools.cached_property
    def _source(self) -> Any:
        require_libraries(str(self.directory))
        import tensorflow_datasets as tfds

        with _damage(self.directory, "metadata"):
            builder = tfds.builder_from_directory(self.directory)
            decoders = {name: tfds.decode.SkipDecoding() for name in self.undecoded}
            return builder.as_data_source(self.split, decoders=decoders or None)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int | np.integer[Any]) -> Mapping[str, Any]:
        source = self._source
        with _damage(self.directory, f"record {row} of {self.split}"):
            example: Mapping[str, Any] = source[int(row)]
        return example


@contextlib.contextmanager
def _damage(directory: Path, what: str) -> Iterator[None]:
    """Turns the errors of TFDS and its decoders, which share no class, into a ``DataError``."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise DataError(
            f"{directory}: {what} cannot be read ({type(error).__name__}: {first}); "
            "timetrial data verify finds damaged files"
        ) from error
