from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from raw_files import (
    check_small_and_picklable,
    needs_data,
    slice_of_kspace,
    write_fastmri,
    write_fastmri_volume,
)

from timetrial.framework.types import Split
from timetrial.workloads.data import fastmri, fastmri_slices, kspace
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.parts import Evaluation, joined
from timetrial.workloads.data.prepared import Records, load_manifest
from timetrial.workloads.data.preparing import Workshop

pytestmark = needs_data


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("raw")
    write_fastmri(directory)
    return directory


@pytest.fixture(scope="module")
def root(tmp_path_factory, raw) -> Path:
    directory = tmp_path_factory.mktemp("data")
    fastmri.prepare(Workshop(directory, fastmri.NAME), raw, sample=True)
    return directory


def reference(k: np.ndarray, target: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, ...]:
    """AlgoPerf's steps in their order: mask, two-dimensional transform, crop, normalise."""
    masked = np.fft.ifftshift(k.astype(np.complex128) * keep)
    image = np.fft.fftshift(np.fft.ifft2(masked)) * np.sqrt(k.size)
    top, left = ((size - 320) // 2 for size in k.shape)
    image = np.abs(image[top : top + 320, left : left + 320])
    mean, std = image.mean(), image.std()
    x, y = (np.clip((a - mean) / std, -6, 6) for a in (image, target))
    return x, y, mean, std


@pytest.mark.parametrize("width", [320, 368, 372, 375])
def test_one_dimension_after_the_other_is_the_two_dimensional_transform(width: int):
    k, target = slice_of_kspace(np.random.default_rng(width), width)
    keep = kspace.column_mask(width, 1, np.random.default_rng(1))[0]
    image = fastmri_slices.magnitude(fastmri.half_transformed(k), keep)
    x, _, mean, std = reference(k, target, keep)
    assert image.dtype == np.float32
    np.testing.assert_allclose(np.clip((image - mean) / std, -6, 6), x, atol=1e-4)


def test_all_columns_give_the_reconstruction(root):
    records = Records(root / fastmri.NAME, "train")
    for record in (records[row] for row in range(len(records))):
        half = record["kspace"].view(np.complex64)[..., 0]
        image = fastmri_slices.magnitude(half, np.ones(half.shape[1], bool))
        np.testing.assert_allclose(image, record["target"], atol=1e-3 * record["target"].max())


def raw_slice(path: Path, number: int) -> tuple[np.ndarray, np.ndarray, float]:
    import h5py

    with h5py.File(path) as file:
        largest = float(file.attrs["max"])
        return file["kspace"][number], file["reconstruction_esc"][number], largest


def test_batches_are_those_of_the_reference(root, raw):
    records = Records(root / fastmri.NAME, "validation")
    (batch,) = list(Evaluation(fastmri_slices.eval_source(root, Split.VALIDATION, 2)))
    for i in range(2):
        record = records[i]
        path = raw / "singlecoil_val" / record["file_name"].decode()
        k, target, largest = raw_slice(path, int(record["slice"]))
        x, y, mean, std = reference(k, target, fastmri_slices.fixed_mask(k.shape[1]))
        np.testing.assert_allclose(batch["x"][i], x, atol=1e-4)
        np.testing.assert_allclose(batch["y"][i], y, atol=1e-4)
        np.testing.assert_allclose(batch["mean"][i], mean, rtol=1e-5)
        np.testing.assert_allclose(batch["std"][i], std, rtol=1e-5)
        np.testing.assert_allclose(batch["volume_max"][i], largest, rtol=1e-6)
    assert {values.dtype for values in batch.values()} == {np.dtype(np.float32)}


def test_records_are_in_the_order_of_names(root):
    for split, names in (("train", (98, 99, 100)), ("validation", (99,)), ("test", (100,))):
        records = Records(root / fastmri.NAME, split)
        found = [(records[i]["file_name"], int(records[i]["slice"])) for i in range(len(records))]
        assert found == [(f"file{1000000 + n}.h5".encode(), s) for n in names for s in (0, 1)]


def test_a_slice_keeps_its_mask_in_every_pass(root):
    source = fastmri_slices.train_source(root, 6)

    def means(seed: int, step: int) -> list[float]:
        return sorted(source.part(seed, step, 0, 1)["mean"].tolist())

    assert means(0, 0) == means(0, 1) == means(0, 100)
    assert means(0, 0) != means(1, 0)
    first, second = (source.part(0, step, 0, 1)["mean"] for step in (0, 1))
    assert not np.array_equal(first, second)  # the order differs


@pytest.mark.parametrize("step", [0, 2, 1001])
def test_parts_make_the_same_batch(root, step: int):
    source = fastmri_slices.train_source(root, 4)
    whole = source.part(3, step, 0, 1)
    for count in (2, 4):
        parts = [source.part(3, step, index, count) for index in range(count)]
        for name, values in joined(parts).items():
            np.testing.assert_array_equal(values, whole[name])


def test_evaluated_slices_of_a_width_share_a_mask():
    masks = {width: fastmri_slices.fixed_mask(width) for width in (320, 368, 372)}
    for width, mask in masks.items():
        np.testing.assert_array_equal(mask, fastmri_slices.fixed_mask(width))
        assert mask.shape == (width,)
        centre = int(0.08 * width)
        first = (width - centre + 1) // 2
        assert mask[first : first + centre].all()
    assert not np.array_equal(masks[372][:320], masks[320])


def test_padding_has_no_weight(root):
    batches = list(Evaluation(fastmri_slices.eval_source(root, Split.TEST, 4)))
    np.testing.assert_array_equal(batches[0]["weight"], [1, 1, 0, 0])
    subset = fastmri_slices.eval_source(root, Split.TRAIN, 2, examples=3)
    assert [batch["weight"].sum() for batch in Evaluation(subset)] == [2, 1]
    with pytest.raises(ValueError, match="train_examples: expected at most 6"):
        fastmri_slices.eval_source(root, Split.TRAIN, 2, examples=7)
    with pytest.raises(ValueError, match="batch_size: expected at most 6"):
        fastmri_slices.train_source(root, 7)


def test_sources_are_small_and_picklable_after_use(root):
    check_small_and_picklable(fastmri_slices.train_source(root, 2), "x", 5_000)


def changed(path: Path, fault: str) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        if fault == "max":
            file.attrs["max"] = 0.0
        elif fault == "no max":
            del file.attrs["max"]
        elif fault == "no kspace":
            del file["kspace"]
        elif fault == "narrow":
            narrow = file["kspace"][..., :300]
            del file["kspace"]
            file["kspace"] = narrow
        elif fault == "target":
            del file["reconstruction_esc"]
            file["reconstruction_esc"] = np.ones((2, 320, 318), np.float32)
        elif fault == "slices":
            del file["reconstruction_esc"]
            file["reconstruction_esc"] = np.ones((1, 320, 320), np.float32)
        else:
            file["kspace"][1, 5, 5] = np.nan


@pytest.mark.parametrize(
    ("fault", "text", "bad"),
    [
        ("max", "expected the attribute max > 0, got 0.0", 1),
        ("no max", "expected HDF5 with kspace, reconstruction_esc and the attribute max", 1),
        ("no kspace", "expected HDF5 with kspace, reconstruction_esc and the attribute max", 1),
        ("narrow", r"slice 0: expected complex k-space, 320 x 320 or larger, got complex64", 2),
        ("target", r"slice 0: expected a reconstruction of 320 x 320, got \(320, 318\)", 2),
        ("slices", "expected equally many slices twice, got 2 and 1", 1),
        ("nan", "slice 1: expected finite numbers", 1),
    ],
)
def test_bad_volumes_are_named_and_counted(tmp_path: Path, fault: str, text: str, bad: int):
    raw = tmp_path / "raw"
    for split, name in (("train", "a"), ("train", "b"), ("val", "c"), ("val", "d")):
        write_fastmri_volume(raw / f"singlecoil_{split}" / f"{name}.h5", 2, 320, seed=1)
    changed(raw / "singlecoil_train" / "a.h5", fault)
    workshop = Workshop(tmp_path / "data", fastmri.NAME)
    with pytest.raises(DataError, match=rf"singlecoil_train/a\.h5: {text}"):
        fastmri.prepare(workshop, raw, sample=True)
    workshop = Workshop(tmp_path / "data", fastmri.NAME, skip_bad=bad)
    fastmri.prepare(workshop, raw, sample=True)
    manifest = load_manifest(fastmri.NAME, tmp_path / "data")
    assert len(manifest.skipped) == bad
    assert manifest.examples("train") == (3 if fault == "nan" else 2)


def test_a_truncated_file_is_named(tmp_path: Path):
    write_fastmri(tmp_path)
    path = tmp_path / "singlecoil_val" / "file1000100.h5"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"singlecoil_val/file1000100\.h5: expected HDF5"):
        fastmri.prepare(Workshop(tmp_path / "data", fastmri.NAME), tmp_path, sample=True)


def test_missing_volumes_are_said(tmp_path: Path):
    with pytest.raises(DataError, match=r"singlecoil_train: expected \.h5 files, found none"):
        fastmri.raw_volumes(tmp_path)
    write_fastmri(tmp_path)
    with pytest.raises(DataError, match="expected more than 100 volumes, found 2"):
        fastmri.raw_volumes(tmp_path)


def test_the_first_hundred_volumes_are_for_validation(tmp_path: Path):
    for folder, count in (("singlecoil_train", 3), ("singlecoil_val", 199)):
        (tmp_path / folder).mkdir()
        for n in range(count):
            (tmp_path / folder / f"file{1000000 + n}.h5").touch()
    splits = [volume.split for volume in fastmri.raw_volumes(tmp_path)]
    assert splits == ["train"] * 3 + ["validation"] * 100 + ["test"] * 99
