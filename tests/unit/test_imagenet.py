from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from raw_files import (
    CMYK,
    PNG,
    check_small_and_picklable,
    encoded,
    in_one_order,
    needs_data,
    picture,
    records_in,
    tar_of,
    train_images,
    write_imagenet,
)

from timetrial.framework.types import Split
from timetrial.workloads.data import imagenet, imagenet_images, jpeg, resize
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.parts import Evaluation, joined
from timetrial.workloads.data.prepared import Records, is_prepared, load_manifest
from timetrial.workloads.data.preparing import Workshop

pytestmark = needs_data


def prepare(root: Path, raw: Path, **options) -> None:
    imagenet.prepare(Workshop(root, imagenet.NAME, **options), raw, sample=True)
    imagenet.prepare_v2(Workshop(root, imagenet.V2_NAME, **options), raw, sample=True)


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("raw")
    write_imagenet(directory)
    return directory


@pytest.fixture(scope="module")
def root(tmp_path_factory, raw) -> Path:
    directory = tmp_path_factory.mktemp("data")
    prepare(directory, raw)
    return directory


def records(root: Path, name: str, split: str) -> list[dict[str, object]]:
    source = Records(root / name, split, ("image",))
    return [dict(source[row]) for row in range(len(source))]


def test_training_images_keep_their_bytes_names_and_labels(root):
    labels = {"n02105855": 230, "n01440764": 0, "n01739381": 59, "n01443537": 1}
    raw = {name: data for images in train_images().values() for name, data in images.items()}
    found = records(root, imagenet.NAME, "train")
    assert {one["file_name"].decode() for one in found} == set(raw)
    for one in found:
        name = one["file_name"].decode()
        assert one["label"] == labels[name.split("_")[0]]
        assert (one["image"] == raw[name]) == (name not in (CMYK, PNG))


def test_odd_images_become_rgb_and_look_the_same(root):
    from PIL import Image

    raw = {name: data for images in train_images().values() for name, data in images.items()}
    found = {
        one["file_name"].decode(): one["image"] for one in records(root, imagenet.NAME, "train")
    }
    for name in (CMYK, PNG):
        with Image.open(io.BytesIO(found[name])) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
        with Image.open(io.BytesIO(raw[name])) as image:
            original = np.asarray(image.convert("RGB")).astype(int)
        assert abs(jpeg.decoded(found[name]) - original).mean() < 3


def test_validation_labels_go_by_the_number_in_the_name(root):
    import tensorflow_datasets as tfds

    directory = Path(tfds.core.tfds_path("datasets/imagenet2012"))
    labels = (directory / "labels.txt").read_text().split()
    truth = (directory / "validation_labels.txt").read_text().split()
    found = records(root, imagenet.NAME, "validation")
    assert len(found) == 8
    for one in found:
        number = int(one["file_name"].decode()[15:23])
        assert labels[one["label"]] == truth[number - 1]


def test_test_labels_are_the_names_of_the_directories(root):
    found = records(root, imagenet.V2_NAME, "test")
    names = [one["file_name"].decode() for one in found]
    assert sorted(one["label"] for one in found) == [0, 0, 1, 1, 2, 2, 10, 10, 100, 100]
    assert [int(name.split("/")[0]) for name in names] == [one["label"] for one in found]


def example(root: Path, name: str, split: str) -> list[tuple[str, dict[str, object]]]:
    def key(one: dict[str, object]) -> str:
        text = one["file_name"].decode()
        return text.replace("/", "_") if name == imagenet.V2_NAME else text

    return [
        (
            key(one),
            {**one, "image": io.BytesIO(one["image"]), "file_name": one["file_name"].decode()},
        )
        for one in reversed(records(root, name, split))
    ]


def test_files_are_those_that_tfds_itself_writes(root, tmp_path: Path):
    """Same order, same shards, same records as TFDS' writer, which hashes and sorts the keys."""
    from timetrial.workloads.data.builders import Imagenet2012, ImagenetV2

    by_name = {imagenet.NAME: ("train", "validation"), imagenet.V2_NAME: ("test",)}
    for name, splits in by_name.items():
        examples = {split: (lambda s=split, n=name: example(root, n, s)) for split in splits}
        if name == imagenet.NAME:
            builder = Imagenet2012(data_dir=str(tmp_path), examples=examples)
        else:
            builder = ImagenetV2(
                data_dir=str(tmp_path), examples=examples, config="matched-frequency"
            )
        builder.download_and_prepare()
        files = sorted(path.name for path in (tmp_path / name).glob("*array_record*"))
        assert files == sorted(p.name for p in (root / name).glob("*array_record*"))
        for file in files:
            theirs = [in_one_order(record) for record in records_in(tmp_path / name / file)]
            assert records_in(root / name / file) == theirs


def test_tfds_own_builders_read_the_files(root):
    import tensorflow_datasets as tfds

    for name, split, count in (
        ("imagenet2012:5.1.0", "train", 14),
        ("imagenet_v2/matched-frequency:3.0.0", "test", 10),
    ):
        builder = tfds.builder(name, data_dir=root, file_format="array_record")
        assert builder.info.splits[split].num_examples == count
        assert len(builder.as_data_source(split)) == count


def test_several_processes_write_the_same_bytes(root, raw, tmp_path: Path):
    imagenet.prepare_v2(Workshop(tmp_path, imagenet.V2_NAME, 2), raw, sample=True)
    for path in (root / imagenet.V2_NAME).iterdir():
        assert (tmp_path / imagenet.V2_NAME / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("stop", ["scan-n01443537", "train-00000", "validation-00000"])
def test_an_interrupted_preparation_continues(root, raw, tmp_path: Path, monkeypatch, stop: str):
    made: list[str] = []
    stopped = False

    def stopping(run):
        def wrapped(self, directory, skipped):
            nonlocal stopped
            if self.name == stop and not stopped:
                stopped = True
                raise KeyboardInterrupt
            made.append(self.name)
            return run(self, directory, skipped)

        return wrapped

    for job in (imagenet.Scan, imagenet.ImageShard):
        monkeypatch.setattr(job, "run", stopping(job.run))
    workshop = Workshop(tmp_path, imagenet.NAME)
    with pytest.raises(KeyboardInterrupt):
        imagenet.prepare(workshop, raw, sample=True)
    assert not is_prepared(imagenet.NAME, tmp_path)
    imagenet.prepare(workshop, raw, sample=True)
    assert len(made) == len(set(made)) == 4 + 10 + 2
    for path in (root / imagenet.NAME).iterdir():
        assert (tmp_path / imagenet.NAME / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("method", ["cv2", "exact"])
@pytest.mark.parametrize("step", [0, 7])
def test_parts_make_the_same_batch(root, step: int, method: str):
    source = imagenet_images.train_source(root, 8, method)
    whole = source.part(3, step, 0, 1)
    assert whole["x"].shape == (8, 224, 224, 3)
    assert (whole["x"].dtype, whole["y"].dtype) == (np.uint8, np.int32)
    for count in (2, 8):
        parts = [source.part(3, step, index, count) for index in range(count)]
        for name, values in joined(parts).items():
            np.testing.assert_array_equal(values, whole[name])


def test_augmentation_differs_between_steps_seeds_and_places(root):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 100, 3)).astype(np.uint8)
    images = {
        imagenet_images.augmented(pixels, np.random.default_rng(key), "cv2").tobytes()
        for key in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    }
    assert len(images) == 4
    first = imagenet_images.train_source(root, 2).part(0, 0, 0, 1)
    other = imagenet_images.train_source(root, 2).part(1, 0, 0, 1)
    assert not np.array_equal(first["x"], other["x"])


def test_half_of_the_images_are_mirrored():
    ramp = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (90, 1, 3))
    slopes = [
        np.diff(
            imagenet_images.augmented(ramp, np.random.default_rng(i), "cv2")[0, :, 0].astype(int)
        ).sum()
        for i in range(200)
    ]
    assert 70 < np.count_nonzero(np.array(slopes) < 0) < 130


def test_evaluation_shows_the_centre_in_a_fixed_order(root):
    source = imagenet_images.eval_source(root, Split.TEST, 4, method="exact")
    batches = list(Evaluation(source))
    assert [batch["weight"].sum() for batch in batches] == [4, 4, 2]
    stored = records(root, imagenet.V2_NAME, "test")
    for i, one in enumerate(stored):
        pixels = jpeg.decoded(one["image"])
        top, left, size, _ = resize.centre_box(*pixels.shape[:2])
        crop = resize.exact(pixels[top : top + size, left : left + size], 224)
        np.testing.assert_array_equal(batches[i // 4]["x"][i % 4], crop)
        assert batches[i // 4]["y"][i % 4] == one["label"]
    subset = imagenet_images.eval_source(root, Split.TRAIN, 4, examples=5)
    assert sum(batch["weight"].sum() for batch in Evaluation(subset)) == 5


def test_sources_are_small_and_picklable_after_use(root):
    check_small_and_picklable(imagenet_images.train_source(root, 2), "x", 5_000)


def test_wrong_sizes_and_methods_are_refused(root):
    with pytest.raises(ValueError, match="resize: expected one of cv2, exact, got pil"):
        imagenet_images.train_source(root, 2, "pil")
    with pytest.raises(ValueError, match="batch_size: expected at most 14"):
        imagenet_images.train_source(root, 15)
    with pytest.raises(ValueError, match="validation_examples: expected at most 8"):
        imagenet_images.eval_source(root, Split.VALIDATION, 2, 9)


def with_validation(raw: Path, target: Path, images: dict[str, bytes]) -> Path:
    target.mkdir()
    for path in raw.iterdir():
        (target / path.name).symlink_to(path)
    (target / imagenet.VALIDATION_FILE).unlink()
    (target / imagenet.VALIDATION_FILE).write_bytes(tar_of(images))
    return target


@pytest.mark.parametrize(
    ("name", "damage", "rule"),
    [
        ("ILSVRC2012_val_00050001.JPEG", None, "expected ILSVRC2012_val_00000001.JPEG to"),
        ("notes.txt", None, "expected ILSVRC2012_val_00000001.JPEG to"),
        ("ILSVRC2012_val_00000003.JPEG", "cut", ""),
        ("ILSVRC2012_val_00000003.JPEG", "text", ""),
        ("ILSVRC2012_val_00000003.JPEG", "empty", ""),
    ],
)
def test_bad_images_are_named_and_counted(
    raw, tmp_path: Path, name: str, damage: str | None, rule: str
):
    rng = np.random.default_rng(0)
    bad = encoded(picture(rng))
    bad = {None: bad, "cut": bad[:300], "text": b"no image", "empty": b""}[damage]
    good = {f"ILSVRC2012_val_0000000{i}.JPEG": encoded(picture(rng)) for i in (1, 2)}
    source = with_validation(raw, tmp_path / "raw", {**good, name: bad})
    root = tmp_path / "data"
    with pytest.raises(DataError, match=rf"ILSVRC2012_img_val\.tar: {name}: {rule}"):
        imagenet.prepare(Workshop(root, imagenet.NAME), source, sample=True)
    imagenet.prepare(Workshop(root, imagenet.NAME, skip_bad=1), source, sample=True)
    manifest = load_manifest(imagenet.NAME, root)
    assert manifest.examples("validation") == 2
    assert [one.place.split(": ")[1] for one in manifest.skipped] == [name]


def test_wrong_archives_are_named(raw, tmp_path: Path):
    with pytest.raises(DataError, match=r"ILSVRC2012_img_train\.tar: expected a raw file"):
        imagenet.prepare(Workshop(tmp_path / "a", imagenet.NAME), tmp_path)
    (tmp_path / imagenet.TRAIN_FILE).write_bytes(tar_of({"n99999999.tar": b""}))
    (tmp_path / imagenet.VALIDATION_FILE).write_bytes(b"")
    with pytest.raises(DataError, match=r"expected archives WNID\.tar, found n99999999\.tar"):
        imagenet.prepare(Workshop(tmp_path / "b", imagenet.NAME), tmp_path)
    (tmp_path / imagenet.TRAIN_FILE).write_bytes(b"x" * 5000)
    with pytest.raises(DataError, match="expected a whole tar archive"):
        imagenet.prepare(Workshop(tmp_path / "c", imagenet.NAME), tmp_path)
    (tmp_path / imagenet.V2_FILE).write_bytes((raw / imagenet.V2_FILE).read_bytes()[:3000])
    with pytest.raises(DataError, match="expected a whole gzip file"):
        imagenet.prepare_v2(Workshop(tmp_path / "d", imagenet.V2_NAME), tmp_path)


def test_a_cut_archive_is_named(raw, tmp_path: Path):
    for path in raw.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / imagenet.VALIDATION_FILE
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset_data + 100])
    with pytest.raises(DataError, match=r"ILSVRC2012_img_val\.tar"):
        imagenet.prepare(Workshop(tmp_path / "data", imagenet.NAME), tmp_path, sample=True)


def test_two_images_of_one_name_are_refused(raw, tmp_path: Path):
    image = encoded(picture(np.random.default_rng(0)))
    entry = imagenet.Entry("a", "a", 0, 0, len(image), len(image))
    result = {"entries": [tuple(vars(entry).values())] * 2}
    with pytest.raises(DataError, match="found 2 images with 1 different names"):
        imagenet.shard_jobs(tmp_path, "train", [result])
