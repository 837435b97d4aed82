from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from timetrial.framework.errors import UserError
from timetrial.workloads.data import embedded_data

NAMES = sorted(embedded_data.manifest())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The smallest data set and the manifest, to be damaged."""
    for file in ("manifest.json", "assays.npz"):
        shutil.copy(embedded_data.DIRECTORY / file, tmp_path)
    return tmp_path


def test_the_files_are_those_of_the_manifest_and_small():
    files = {path.name for path in embedded_data.DIRECTORY.glob("*.npz")}
    assert files == {entry["file"] for entry in embedded_data.manifest().values()}
    assert sum(path.stat().st_size for path in embedded_data.DIRECTORY.iterdir()) <= 16_000_000


@pytest.mark.parametrize("name", NAMES)
def test_arrays_digest_and_provenance_are_as_the_manifest_says(name: str):
    entry = embedded_data.manifest()[name]
    data = (embedded_data.DIRECTORY / entry["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"] == embedded_data.sha256(name)
    arrays = embedded_data.load(name)
    assert {k: f"{v.dtype} {v.shape}" for k, v in arrays.items()} == entry["arrays"]
    assert entry["source"]["version"]
    assert len(entry["source"]["sha256"]) == 64
    licences = (embedded_data.DIRECTORY / "LICENSES.md").read_text()
    assert f"## {entry['file']}: " in licences


def test_data_are_read_once_and_cannot_be_changed():
    arrays = embedded_data.load("assays")
    assert embedded_data.load("assays") is arrays
    with pytest.raises(ValueError, match="read-only"):
        arrays["labels"][0, 0] = 5


def test_a_missing_file_is_named(copy: Path):
    (copy / "assays.npz").unlink()
    with pytest.raises(embedded_data.DataError, match=r"assays\.npz: cannot be read \(No such"):
        embedded_data.load("assays", copy)


@pytest.mark.parametrize("damage", ["one bit", "truncated", "empty"])
def test_a_corrupt_file_gives_the_digests_and_what_to_do(copy: Path, damage: str):
    path = copy / "assays.npz"
    data = bytearray(path.read_bytes())
    if damage == "one bit":
        data[len(data) // 2] ^= 1
    path.write_bytes({"one bit": data, "truncated": data[:1000], "empty": b""}[damage])
    with pytest.raises(embedded_data.DataError) as caught:
        embedded_data.load("assays", copy)
    message = str(caught.value)
    assert str(path) in message
    assert embedded_data.sha256("assays") in message
    assert hashlib.sha256(path.read_bytes()).hexdigest() in message
    assert "git checkout" in message
    assert "\n" not in message


def test_a_file_that_is_no_npz_is_told_apart(copy: Path):
    (copy / "assays.npz").write_bytes(b"PK not really")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["assays"]["sha256"] = hashlib.sha256(b"PK not really").hexdigest()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(embedded_data.DataError, match="not a readable npz"):
        embedded_data.load("assays", copy)


@pytest.mark.parametrize("text", [None, "{", "[]", b"\xff\xfe\x00"])
def test_a_bad_manifest_is_named(tmp_path: Path, text: str | bytes | None):
    path = tmp_path / "manifest.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(embedded_data.DataError, match=r"manifest\.json"):
        embedded_data.manifest(tmp_path)


def test_a_data_set_that_the_manifest_lacks_is_named(tmp_path: Path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(embedded_data.DataError, match="expected an entry 'assays', found nothing"):
        embedded_data.load("assays", tmp_path)


def test_a_data_error_is_one_the_user_can_mend():
    assert issubclass(embedded_data.DataError, UserError)
    assert issubclass(embedded_data.DataError, OSError)


def test_no_two_splits_share_an_image():
    raw = embedded_data.load("fashion_mnist")
    images = np.concatenate([raw[f"{split}_images"] for split in embedded_data.SPLITS])
    copies = len(images) - len(np.unique(images.reshape(len(images), -1), axis=0))
    assert copies < 10  # the publication itself holds a few twice
    for split, size in zip(embedded_data.SPLITS, (10_000, 2_000, 2_000), strict=True):
        assert (np.bincount(raw[f"{split}_labels"]) == size // 10).all()
