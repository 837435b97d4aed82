from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
from data_sets import WRITERS, change_manifest, prepare_sample
from raw_files import needs_data, write_fastmri
from tiny import TinyWorkload

from timetrial.bench.commands import datasets
from timetrial.bench.data.untrained import EXPECTED, judged, untrained
from timetrial.workloads.data import checks, criteo, criteo_text, fastmri, imagenet, ogbg
from timetrial.workloads.data import record_checks as records
from timetrial.workloads.data.catalogue import DATA_SETS, size_text
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.prepared import load_manifest, manifest_path

pytestmark = needs_data


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """All data sets, prepared from small raw files."""
    root = tmp_path_factory.mktemp("data")
    for workload, write in WRITERS.items():
        source = tmp_path_factory.mktemp("raw")
        write(source)
        prepare_sample(workload, source, root)
    return root


@pytest.fixture
def root(prepared, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(prepared, tmp_path / "data"))


def found(workload: str, root: Path) -> dict[str, checks.Finding]:
    return {finding.name: finding for finding in checks.findings(DATA_SETS[workload], root)}


def failed(workload: str, root: Path) -> dict[str, str]:
    return {n: one.text for n, one in found(workload, root).items() if not one.passed}


def test_the_table_names_what_the_command_line_knows():
    assert tuple(DATA_SETS) == datasets.NAMES
    assert set(DATA_SETS) == set(records.RECORD_CHECKS) == set(EXPECTED)


@pytest.mark.parametrize("workload", DATA_SETS)
def test_a_prepared_data_set_passes_every_check(prepared, workload: str):
    assert failed(workload, prepared) == {}
    assert set(found(workload, prepared)) > {"counts", "digests"}
    for finding in found(workload, prepared).values():
        assert str(finding).startswith("ok        ")


@pytest.mark.parametrize("workload", DATA_SETS)
def test_a_changed_byte_is_found(root, workload: str):
    name = next(iter(DATA_SETS[workload].steps))
    shard = next(iter(load_manifest(name, root).splits["train"]))
    path = root / name / shard.file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert f"files have another sha256: {path}" in failed(workload, root)["digests"]
    path.unlink()
    assert f"1 are missing: {path}" in failed(workload, root)["digests"]


@pytest.mark.parametrize("workload", DATA_SETS)
def test_counts_must_be_the_official_ones(root, workload: str):
    for name in DATA_SETS[workload].steps:
        change_manifest(name, root, sample=False)
    text = failed(workload, root)["counts"]
    assert f"expected train {DATA_SETS[workload].counts['train']:,}, validation" in text
    assert "bad ones" not in text


def test_left_out_records_explain_missing_ones(root, monkeypatch):
    data = DATA_SETS["ogbg"]
    counts = data.examples(root)
    official = {**counts, "train": counts["train"] + 2}
    monkeypatch.setattr(type(data), "counts", property(lambda self: official), raising=False)
    change_manifest(ogbg.NAME, root, sample=False)
    with pytest.raises(records.Failed):
        checks.check_counts(data, root)
    for number, passes in ((2, True), (3, False)):
        skipped = [{"place": "a", "rule": "b"}] * number
        change_manifest(ogbg.NAME, root, sample=False, skipped=skipped)
        finding = checks.made("counts", lambda: checks.check_counts(data, root))
        assert finding.passed is passes
        assert f"{number} bad ones left out" in finding.text


@pytest.mark.parametrize(
    ("array", "place", "value", "text"),
    [
        ("ends", (0, 1), 332, "expected senders that are atoms of their graph"),
        ("labels", (3, 7), 2, "expected labels 0, 1 or -1 for a missing one"),
        ("n_node", (0,), 400, "expected 8[0-9]+ atoms, found 8[0-9]+"),
    ],
)
def test_wrong_graphs_are_found(root, array: str, place: tuple, value: int, text: str):
    path = root / ogbg.NAME / ogbg.array_file("train", array)
    values = np.load(path)
    values[place] = value
    np.save(path, values)
    wrong = failed("ogbg", root)
    assert set(wrong) == {"digests", "graphs", "flat arrays"}
    assert "train: " in wrong["graphs"]


def test_a_wrong_reconstruction_is_found(tmp_path: Path):
    write_fastmri(tmp_path, train=1)
    path = next((tmp_path / "singlecoil_train").glob("*.h5"))
    with h5py.File(path, "r+") as file:
        file["reconstruction_esc"][0] = 1.01 * file["reconstruction_esc"][0]
    prepare_sample("fastmri", tmp_path, tmp_path / "data")
    wrong = failed("fastmri", tmp_path / "data")
    assert set(wrong) == {"slices"}
    assert (
        "slice 0: the inverse transform differs from the reconstruction by 9.9e-03"
        in (wrong["slices"])
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kspace": np.zeros((320, 300, 2))}, r"expected k-space \(320, W >= 320\)"),
        ({"target": np.zeros((320, 318))}, r"expected a reconstruction \(320, 320\)"),
        ({"target": np.full((320, 320), np.nan)}, "expected finite numbers"),
        ({"volume_max": np.float32(0)}, "expected a maximum of the volume > 0"),
    ],
)
def test_the_rules_of_slices(change: dict, text: str):
    import re

    good = {
        "kspace": np.zeros((320, 320, 2)),
        "target": np.zeros((320, 320)),
        "volume_max": np.float32(1),
    }
    assert records._slice_rule(good) is None
    assert re.match(text, records._slice_rule({**good, **change}) or "")


def test_wrong_rows_are_found(root, monkeypatch):
    small = (2, *criteo_text.VOCABULARIES[1:])
    with monkeypatch.context() as changed:
        changed.setattr(criteo_text, "VOCABULARIES", small)
        assert "expected buckets below the vocabularies" in failed("criteo1tb", root)["rows"]
    with monkeypatch.context() as changed:
        changed.setattr(records, "fingerprint", lambda number, column: number)
        assert (
            "68fd1e64 in column 0: expected 9066014191666271819"
            in (failed("criteo1tb", root)["hashes"])
        )
    settings = json.loads(manifest_path(criteo.NAME, root).read_text())["settings"]
    settings["rows_per_day"][3] += 1
    change_manifest(criteo.NAME, root, sample=False, settings=settings)
    with monkeypatch.context() as changed:
        changed.setattr(records, "POSITIVES", (0.5, 1.0))
        wrong = failed("criteo1tb", root)
    assert "expected 24 days that add up to" in wrong["days"]
    assert "train: expected 50% to 100% clicks" in wrong["rows"]


def test_wrong_images_are_found(root, tmp_path: Path, monkeypatch):
    change_manifest(imagenet.NAME, root, sample=False)
    assert (
        "train: expected 732 to 1300 images per label, found 0 to"
        in (failed("imagenet_resnet", root)["labels"])
    )
    WRITERS["imagenet_resnet"](tmp_path)
    monkeypatch.setattr(imagenet, "rgb_jpeg", lambda data: data)
    prepare_sample("imagenet_resnet", tmp_path, tmp_path / "odd", skip_bad=1)
    assert "n02105855_2933.JPEG" in load_manifest(imagenet.NAME, tmp_path / "odd").skipped[0].place
    wrong = failed("imagenet_resnet", tmp_path / "odd")
    assert wrong == {"labels": "train n01739381_1309.JPEG: expected RGB or grey, found CMYK"}


def test_an_error_of_a_library_fails_the_check_only():
    def check() -> str:
        raise KeyError("kspace\nmore")

    assert str(checks.made("slices", check)) == "FAILED    slices: KeyError: 'kspace\\nmore'"


def test_what_is_not_prepared_cannot_be_checked(tmp_path: Path):
    with pytest.raises(DataError, match="expected a prepared data set, found none"):
        next(checks.findings(DATA_SETS["ogbg"], tmp_path))
    assert fastmri.NAME not in str(list(tmp_path.iterdir()))


def test_loss_and_gradient_of_an_untrained_model():
    workload = TinyWorkload()
    loss, norm = untrained(workload, seed=3)
    params, state = workload.init(jax.random.key(3))
    batch = workload.train_batch(3, 0)
    gradient = jax.grad(lambda p: workload.loss(p, state, batch, jax.random.key(3))[0])(params)
    squares = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradient))
    assert loss == pytest.approx(float(workload.loss(params, state, batch, jax.random.key(3))[0]))
    assert norm == pytest.approx(squares**0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "loss", "norm", "passed"),
    [
        ("ogbg", 0.743, 2.62, True),
        ("ogbg", 0.745, 1.89, True),
        ("ogbg", 0.69, 0.1, False),
        ("fastmri", 0.938, 5.16, True),
        ("fastmri", 2.0, 5.16, False),
        ("imagenet_resnet", 6.9249, 0.6648, True),
        ("imagenet_resnet", 7.2, 0.6648, False),
        ("criteo1tb", 0.824, 6.5, True),
        ("criteo1tb", 0.824, float("nan"), False),
        ("tiny", 3.0, 1.0, True),
        ("tiny", float("nan"), 1.0, False),
    ],
)
def test_what_is_expected_of_an_untrained_model(name: str, loss: float, norm: float, passed: bool):
    assert judged(name, loss, norm).passed is passed


@pytest.mark.parametrize(
    ("size", "text"),
    [(12, "12 bytes"), (4_300, "4.3 kB"), (43_000_000, "43 MB"), (1_200_000_000, "1.2 GB")],
)
def test_sizes_in_words(size: int, text: str):
    assert size_text(size) == text
