"""Preparation of data sets: jobs that write shards, resumed after an interruption.

Boundary: files, processes and the manifest; the data sets define the jobs.

Everything is written beside the final directory and renamed at the end. A finished job leaves a
note with its result, so that the same command continues with the jobs that are left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from timetrial.framework.files import write_atomically
from timetrial.workloads.data import workers
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.prepared import (
    MANIFEST,
    Manifest,
    Shard,
    Skipped,
    file_digest,
    is_prepared,
)

Result = Mapping[str, Any]
"""What a job found or wrote, as JSON: ``shards`` by split, ``skipped``, and its own entries."""

Progress = Callable[[int, int], None]
"""Takes the work done so far and all work of a stage, in bytes."""


class Job(Protocol):
    """One resumable piece of a preparation. Picklable.

    Attributes:
        name: file name of its note, unique in the data set.
        size: work, in bytes.
    """

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def fingerprint(self) -> Any:
        """What the result depends on, as JSON: raw files and settings."""

    def run(self, directory: Path, skipped: BadRecords) -> Result:
        """Does the work; writes files into ``directory``."""


class BadRecords:
    """Bad records that a job left out.

    Args:
        limit: largest number to leave out.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.found: list[Skipped] = []

    def add(self, place: object, rule: str) -> None:
        """Leaves out one record.

        Raises:
            DataError: there are more bad records than the limit.
        """
        self.found.append(Skipped(str(place), rule))
        if len(self.found) > self.limit:
            raise too_many(self.found, self.limit)


def too_many(found: Sequence[Skipped], limit: int) -> DataError:
    """The error for more bad records than allowed; names the last one."""
    more = f" (bad record {len(found)}, allowed by --skip-bad: {limit})"
    return DataError(f"{found[-1].place}: {found[-1].rule}{more}")


def raw_fingerprint(path: Path) -> list[Any]:
    """Name, size and time of change of a raw file.

    Raises:
        DataError: the file is missing.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: expected a raw file, found none ({error.strerror})") from error
    return [path.name, stat.st_size, stat.st_mtime_ns]


@dataclasses.dataclass(frozen=True)
class Serialiser:
    """Turns examples into records, with the same bytes in every process.

    TFDS' own serialisation leaves the order of the features in a record open.

    Attributes:
        features: features of a TFDS builder.
    """

    features: Any

    @functools.cached_property
    def _serialiser(self) -> Any:
        from tensorflow_datasets.core.example_serializer import ExampleSerializer

        return ExampleSerializer(self.features.get_serialized_info())

    def __call__(self, example: Mapping[str, Any]) -> bytes:
        encoded = self._serialiser.get_tf_example(self.features.encode_example(example))
        record: bytes = encoded.SerializeToString(deterministic=True)
        return record


GROUPED: Final = "group_size:1"
"""Options of ArrayRecord: each record can be read alone."""

UNCOMPRESSED: Final = f"{GROUPED},uncompressed"
"""Options of ArrayRecord: as ``GROUPED``, and fast to read."""


def write_shard(path: Path, records: Iterable[bytes], options: str = GROUPED) -> Shard:
    """Writes one ArrayRecord file atomically.

    Args:
        path: the file.
        records: serialised records.
        options: options of ArrayRecord's writer.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    part = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    examples = size = 0
    try:
        writer = ArrayRecordWriter(str(part), options)
        for record in records:
            writer.write(record)
            examples += 1
            size += len(record)
        writer.close()
        digest = file_digest(part)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    return Shard(path.name, examples, size, digest)


@dataclasses.dataclass(frozen=True)
class Workshop:
    """Where and how a data set is prepared.

    Attributes:
        root: root of the prepared data sets.
        name: directory of the data set below it, such as ``imagenet2012/5.1.0``.
        processes: worker processes; 1 works in this process.
        skip_bad: largest number of bad records to leave out.
        progress: shows the progress of a stage.
    """

    root: Path
    name: str
    processes: int = 1
    skip_bad: int = 0
    progress: Progress = lambda done, total: None

    @property
    def final(self) -> Path:
        """Directory of the finished data set."""
        return self.root / self.name

    @property
    def directory(self) -> Path:
        """Directory of the unfinished data set."""
        return self.final.with_name(f".{self.final.name}.unfinished")

    @property
    def notes(self) -> Path:
        """Directory of the notes of finished jobs."""
        return self.directory / "notes"

    @contextlib.contextmanager
    def opened(self) -> Iterator[bool]:
        """Makes the directory and holds its lock; yields False when the data set is complete.

        Raises:
            DataError: another process prepares the same data set.
        """
        if (self.directory / MANIFEST).exists():  # interrupted during the last rename
            self._move()
        if is_prepared(self.name, self.root):
            yield False
            return
        self.notes.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise DataError(
                    f"{self.directory}: another process prepares this data set; wait for its end"
                ) from error
            for part in self.directory.glob("*.part"):
                part.unlink()
            yield True

    def run(self, jobs: Sequence[Job]) -> list[Result]:
        """Runs the jobs that have no note yet; returns all results, in the order of the jobs.

        Raises:
            DataError: too many bad records, or a raw file is missing or unreadable.
        """
        results = {job.name: self._note(job) for job in jobs}
        left = [job for job in jobs if results[job.name] is None]
        total = sum(job.size for job in jobs)
        before = total - sum(job.size for job in left)

        def show(done: int) -> None:
            self.progress(min(before + done, total), total)

        tasks = [_Task(job, self.directory, self.skip_bad) for job in left]
        for job, result in workers.finished(tasks, self.processes, show):
            note = {"fingerprint": job.fingerprint(), "result": result}
            write_atomically(self._path(job), json.dumps(note).encode())
            results[job.name] = json.loads(json.dumps(result))
            self._check_skipped(results.values())
        self._check_skipped(results.values())
        return [result for result in results.values() if result is not None]

    def _path(self, job: Job) -> Path:
        return self.notes / f"{job.name}.json"

    def _note(self, job: Job) -> Result | None:
        """The result of a finished job, unless its raw files or settings have changed."""
        try:
            note = json.loads(self._path(job).read_bytes())
            same = note["fingerprint"] == json.loads(json.dumps(job.fingerprint()))
            result: Result = note["result"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return result if same and isinstance(result, dict) else None

    def _check_skipped(self, results: Iterable[Result | None]) -> None:
        found = skipped_in([result for result in results if result is not None])
        if len(found) > self.skip_bad:
            raise too_many(found, self.skip_bad)

    def finish(self, builder: Any, manifest: Manifest) -> None:
        """Names the shards, writes metadata and manifest, and moves everything into place.

        Args:
            builder: TFDS builder of the data set, with ``root`` as its directory.
            manifest: its shards still have the names that the jobs gave them.
        """
        from tensorflow_datasets.core import naming
        from tensorflow_datasets.core.splits import SplitDict, SplitInfo

        splits: dict[str, list[Shard]] = {}
        infos = []
        for split, shards in manifest.splits.items():
            template = naming.ShardedFileTemplate(
                dataset_name=builder.name,
                data_dir=self.final,
                split=split,
                filetype_suffix="array_record",
            )
            splits[split] = []
            for index, shard in enumerate(shards):
                file = f"{builder.name}-{split}.array_record-{index:05d}-of-{len(shards):05d}"
                self._rename(shard.file, file)
                splits[split].append(dataclasses.replace(shard, file=file))
            infos.append(SplitInfo(
                name=split,
                shard_lengths=[shard.examples for shard in shards],
                num_bytes=sum(shard.bytes for shard in shards),
                filename_template=template,
            ))  # fmt: skip
        builder.info.set_splits(SplitDict(infos))
        builder.info.write_to_directory(self.directory)
        named = dataclasses.replace(manifest, splits=splits)
        write_atomically(self.directory / MANIFEST, named.text().encode())
        self._move()

    def _rename(self, old: str, new: str) -> None:
        """Renames a shard, unless that was done before an interruption."""
        if (self.directory / old).exists():
            (self.directory / old).rename(self.directory / new)
        elif not (self.directory / new).exists():
            raise DataError(
                f"{self.directory / old}: expected a finished file, found none; "
                "remove the directory and prepare again"
            )

    def _move(self) -> None:
        """Moves the finished directory into place, without the notes."""
        shutil.rmtree(self.notes, ignore_errors=True)
        (self.directory / "lock").unlink(missing_ok=True)
        self.directory.rename(self.final)


@dataclasses.dataclass(frozen=True)
class _Task:
    """A job with what it needs to run in a worker process."""

    job: Job
    directory: Path
    skip_bad: int

    def __call__(self) -> tuple[Job, Result]:
        bad = BadRecords(self.skip_bad)
        result = self.job.run(self.directory, bad)
        return self.job, {**result, "skipped": [dataclasses.asdict(one) for one in bad.found]}


def shards_in(results: Iterable[Result], split: str) -> list[Shard]:
    """The shards of a split from the results of jobs, in order."""
    return [Shard(**one) for result in results for one in result["shards"].get(split, [])]


def skipped_in(results: Iterable[Result]) -> list[Skipped]:
    """The bad records from the results of jobs, in order."""
    return [Skipped(**one) for result in results for one in result["skipped"]]
