from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from raw_files import needs_data, write_criteo

from timetrial.workloads.data import criteo, preparing, workers
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.prepared import (
    MANIFEST,
    Records,
    data_directory,
    is_prepared,
    load_manifest,
    manifest_digest,
)
from timetrial.workloads.data.preparing import Workshop

pytestmark = needs_data
BLOCK = 16


def content(directory: Path) -> dict[str, str]:
    """Digest of every file below a directory."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def prepare(root: Path, raw: Path, **options) -> Workshop:
    workshop = Workshop(root, criteo.NAME, **options)
    criteo.prepare(workshop, raw, sample=True, block_rows=BLOCK)
    return workshop


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("raw")
    write_criteo(directory, rows=30)
    return directory


@pytest.fixture(scope="module")
def reference(tmp_path_factory, raw) -> Path:
    root = tmp_path_factory.mktemp("reference")
    prepare(root, raw)
    return root


def test_the_manifest_has_the_digest_of_every_shard(reference):
    manifest = load_manifest(criteo.NAME, reference)
    files = content(reference / criteo.NAME)
    shards = [shard for split in manifest.splits.values() for shard in split]
    assert {shard.file: shard.sha256 for shard in shards}.items() <= files.items()
    assert set(files) - {shard.file for shard in shards} == {
        "dataset_info.json",
        "features.json",
        MANIFEST,
    }
    assert manifest_digest(criteo.NAME, reference) == files[MANIFEST]
    assert [path.name for path in (reference / "criteo1tb").iterdir()] == ["1.0.0"]


def test_tfds_reads_what_was_written(reference):
    manifest = load_manifest(criteo.NAME, reference)
    for split in manifest.splits:
        records = Records(reference / criteo.NAME, split)
        assert len(records) == manifest.examples(split)
        assert records[0]["rows"].shape[1] == 40


def test_several_processes_write_the_same_bytes(reference, raw, tmp_path: Path):
    prepare(tmp_path, raw, processes=2)
    assert content(tmp_path) == content(reference)


def test_nothing_is_done_again(reference, raw, monkeypatch):
    monkeypatch.setattr(Workshop, "run", lambda *args: pytest.fail("prepared again"))
    prepare(reference, raw)


@pytest.mark.parametrize("day", [0, 7, 23])
def test_an_interrupted_preparation_continues(
    reference, raw, tmp_path: Path, monkeypatch, day: int
):
    made: list[str] = []
    run = criteo.Day.run

    def stopping(self, directory, skipped):
        made.append(self.name)
        if self.name == f"day_{day}" and len(made) == day + 1:
            raise KeyboardInterrupt
        return run(self, directory, skipped)

    monkeypatch.setattr(criteo.Day, "run", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, raw)
    assert not is_prepared(criteo.NAME, tmp_path)
    with pytest.raises(DataError, match="expected a prepared data set, found none"):
        load_manifest(criteo.NAME, tmp_path)
    prepare(tmp_path, raw)
    assert made == [f"day_{d}" for d in [*range(day + 1), *range(day, 24)]]
    assert content(tmp_path) == content(reference)


@pytest.mark.parametrize("renames", [0, 1, 12, 25])
def test_an_interruption_of_the_last_renames_is_mended(
    reference, raw, tmp_path: Path, monkeypatch, renames: int
):
    left = iter(range(renames))
    rename = Path.rename

    def stopping(self, target):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", stopping)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, raw)
    monkeypatch.setattr(criteo.Day, "run", lambda *args: pytest.fail("prepared again"))
    prepare(tmp_path, raw)
    assert content(tmp_path) == content(reference)


def test_a_killed_preparation_continues(reference, tmp_path: Path, raw):
    """SIGKILL in the middle of a day, after at least one is done."""
    code = (
        "import sys, time, pathlib\n"
        "from timetrial.workloads.data import criteo, preparing\n"
        "run = criteo.Day.run\n"
        "def slow(self, directory, skipped):\n"
        "    result = run(self, directory, skipped)\n"
        "    if self.name == 'day_2':\n"
        "        (directory / 'half.part').write_text('')\n"
        "        time.sleep(600)\n"
        "    return result\n"
        "criteo.Day.run = slow\n"
        "shop = preparing.Workshop(pathlib.Path(sys.argv[1]), criteo.NAME)\n"
        f"criteo.prepare(shop, pathlib.Path(sys.argv[2]), sample=True, block_rows={BLOCK})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(raw)])
    directory = Workshop(tmp_path, criteo.NAME).directory
    deadline = time.monotonic() + 120
    while not (directory / "half.part").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert sorted(path.name for path in (directory / "notes").iterdir()) == [
        "day_0.json",
        "day_1.json",
    ]
    prepare(tmp_path, raw)
    assert content(tmp_path) == content(reference)


def test_a_changed_raw_file_is_prepared_again(tmp_path: Path, monkeypatch):
    raw = tmp_path / "raw"
    write_criteo(raw, rows=3)
    made: list[str] = []
    run = criteo.Day.run

    def recorded(self, directory, skipped):
        if self.name == "day_2" and len(made) == 2:
            made.append("stop")
            raise KeyboardInterrupt
        made.append(self.name)
        return run(self, directory, skipped)

    monkeypatch.setattr(criteo.Day, "run", recorded)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "data", raw)
    (raw / "day_1").write_text((raw / "day_1").read_text() * 2)
    prepare(tmp_path / "data", raw)
    assert made[:5] == ["day_0", "day_1", "stop", "day_1", "day_2"]


def test_two_preparations_at_a_time_are_refused(tmp_path: Path, raw):
    directory = Workshop(tmp_path, criteo.NAME).directory
    directory.mkdir(parents=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process prepares this data set"):
            prepare(tmp_path, raw)


def test_progress_grows_to_the_whole(tmp_path: Path, raw):
    shown: list[tuple[int, int]] = []
    prepare(tmp_path, raw, progress=lambda done, total: shown.append((done, total)))
    total = sum(path.stat().st_size for path in raw.iterdir())
    assert {one[1] for one in shown} == {total}
    assert [one[0] for one in shown] == sorted(one[0] for one in shown)
    assert shown[-1] == (total, total)


@dataclasses.dataclass(frozen=True)
class Ends:
    """A task that ends its process."""

    def __call__(self) -> None:
        os._exit(3)


@dataclasses.dataclass(frozen=True)
class Fails:
    """A task that fails."""

    def __call__(self) -> None:
        raise DataError("x.tar: no tar")


def test_a_dead_worker_is_reported():
    with pytest.raises(DataError, match="a worker process ended unexpectedly"):
        list(workers.finished([Ends(), Ends()], 2, lambda done: None))


def test_the_error_of_a_worker_is_passed_on():
    with pytest.raises(DataError, match=r"^x.tar: no tar$"):
        list(workers.finished([Fails(), Fails()], 2, lambda done: None))


def test_a_broken_manifest_is_named(tmp_path: Path, reference):
    path = tmp_path / criteo.NAME / MANIFEST
    path.parent.mkdir(parents=True)
    for text in ("{", "[]", json.dumps({"name": "x"})):
        path.write_text(text)
        with pytest.raises(DataError, match=r"manifest\.json: not a readable manifest"):
            load_manifest(criteo.NAME, tmp_path)


def test_a_shard_that_disappeared_is_named(tmp_path: Path, raw, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Workshop, "finish", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, raw)
    (Workshop(tmp_path, criteo.NAME).directory / "day_4-train-00000").unlink()
    with pytest.raises(DataError, match="day_4-train-00000: expected a finished file"):
        prepare(tmp_path, raw)


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"TIMETRIAL_DATA": "/a"}, "/a"),
        ({"TIMETRIAL_CACHE": "/b"}, "/b/data"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/timetrial/data"),
        ({"HOME": "/d", "TIMETRIAL_DATA": ""}, "/d/.cache/timetrial/data"),
    ],
)
def test_the_root_is_where_the_variables_say(monkeypatch, variables: dict[str, str], found: str):
    for name in ("TIMETRIAL_DATA", "TIMETRIAL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(data_directory()) == found


def test_raw_files_that_are_missing_are_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"x\.h5: expected a raw file, found none"):
        preparing.raw_fingerprint(tmp_path / "x.h5")


def test_the_features_of_a_record_are_in_the_order_of_their_names(tmp_path: Path):
    """TFDS leaves the order to a hash that differs between processes."""
    from timetrial.workloads.data.builders import OgbgMolpcba

    features = OgbgMolpcba(data_dir=str(tmp_path)).info.features
    record = preparing.Serialiser(features)({
        "num_nodes": np.array([1]),
        "node_feat": np.ones((1, 9), np.float32),
        "num_edges": np.array([1]),
        "edge_feat": np.ones((1, 3), np.float32),
        "edge_index": np.zeros((1, 2), np.int64),
        "labels": np.full(128, np.nan, np.float32),
    })  # fmt: skip
    places = [record.index(name.encode()) for name in sorted(features)]
    assert len(places) == 6
    assert places == sorted(places)
