from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from raw_files import (
    check_small_and_picklable,
    in_one_order,
    molecule_tables,
    needs_data,
    records_in,
    write_ogbg,
)

from timetrial.framework.types import Split
from timetrial.framework.workload import spec_of
from timetrial.workloads.data import ogbg, ogbg_graphs
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.molecules import Capacity
from timetrial.workloads.data.parts import Evaluation, Parts, joined
from timetrial.workloads.data.prepared import Records, file_digest, load_manifest
from timetrial.workloads.data.preparing import Workshop

pytestmark = needs_data
GRAPHS = 60


@pytest.fixture(scope="module")
def tables() -> dict[str, np.ndarray]:
    return molecule_tables(GRAPHS)


@pytest.fixture(scope="module")
def raw(tmp_path_factory, tables) -> Path:
    directory = tmp_path_factory.mktemp("raw")
    write_ogbg(directory, tables)
    return directory


@pytest.fixture(scope="module")
def root(tmp_path_factory, raw) -> Path:
    directory = tmp_path_factory.mktemp("data")
    ogbg.prepare(Workshop(directory, ogbg.NAME), raw, sample=True)
    return directory


def records(root: Path, split: Split) -> list:
    found = Records(root / ogbg.NAME, split.value)
    return [found[row] for row in range(len(found))]


def test_files_are_those_that_tfds_itself_writes(root, raw, tmp_path: Path):
    """Same order, same shards, same records as TFDS' writer, which hashes and sorts the keys."""
    from timetrial.workloads.data.builders import OgbgMolpcba

    builder = OgbgMolpcba(data_dir=str(tmp_path), archive=raw / ogbg.RAW_FILE)
    builder.download_and_prepare()
    names = {path.name for path in (tmp_path / ogbg.NAME).iterdir()}
    assert sum("array_record" in name for name in names) == 3
    for name in names - {"dataset_info.json"}:
        theirs, ours = (directory / ogbg.NAME / name for directory in (tmp_path, root))
        if name.endswith(".json"):
            assert ours.read_bytes() == theirs.read_bytes()
        else:
            assert records_in(ours) == [in_one_order(one) for one in records_in(theirs)]


def test_tfds_own_builder_reads_the_files(root):
    import tensorflow_datasets as tfds

    builder = tfds.builder("ogbg_molpcba:0.1.3", data_dir=root, file_format="array_record")
    for split, count in (("train", 48), ("validation", 6), ("test", 6)):
        assert builder.info.splits[split].num_examples == count
        assert len(builder.as_data_source(split)) == count
    assert len(builder.info.metadata["tasks"]) == 128
    graph = builder.as_data_source("test")[0]
    assert graph["labels"].shape == (128,)
    assert graph["edge_index"].shape == (graph["num_edges"][0], 2)


def test_graphs_are_those_of_the_tables(root, tables):
    first_node = np.cumsum(tables["raw/num-node-list"]) - tables["raw/num-node-list"][:, 0]
    raw_nodes = tables["raw/node-feat"]
    for name, split in (("train", "train"), ("validation", "valid"), ("test", "test")):
        wanted = set()
        for number in tables[f"split/scaffold/{split}"][:, 0]:
            start, size = first_node[number], tables["raw/num-node-list"][number, 0]
            labels = [float(cell or "nan") for cell in tables["raw/graph-label"][number]]
            nodes = raw_nodes[start : start + size].astype(np.float32)
            wanted.add((nodes.tobytes(), np.array(labels, np.float32).tobytes()))
        found = {
            (one["node_feat"].tobytes(), one["labels"].tobytes())
            for one in records(root, Split(name))
        }
        assert found == wanted


@pytest.mark.parametrize("split", list(Split))
def test_flat_arrays_are_the_records(root, split: Split):
    data = ogbg.load_graphs(root, split)
    assert data.nodes.dtype == data.edges.dtype == np.uint8
    assert data.labels.dtype == np.int8
    for g, record in enumerate(records(root, split)):
        nodes = slice(data.first_node[g], data.first_node[g] + data.n_node[g])
        edges = slice(data.first_edge[g], data.first_edge[g] + data.n_edge[g])
        np.testing.assert_array_equal(data.nodes[nodes], record["node_feat"])
        np.testing.assert_array_equal(data.edges[edges][::2], record["edge_feat"])
        np.testing.assert_array_equal(data.edges[edges][1::2], record["edge_feat"])
        pairs = np.stack([data.senders[edges], data.receivers[edges]], 1)
        np.testing.assert_array_equal(pairs[::2], record["edge_index"])
        np.testing.assert_array_equal(pairs[1::2], record["edge_index"][:, ::-1])
        missing = np.isnan(record["labels"])
        np.testing.assert_array_equal(data.labels[g] == ogbg.MISSING, missing)
        np.testing.assert_array_equal(data.labels[g][~missing], record["labels"][~missing])


def test_the_manifest_has_the_digest_of_every_array(root):
    digests = load_manifest(ogbg.NAME, root).settings["arrays"]
    arrays = {path.name: file_digest(path) for path in (root / ogbg.NAME).glob("*.npy")}
    assert digests == arrays
    assert len(digests) == 18


def test_several_processes_write_the_same_bytes(root, raw, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    workshop = Workshop(tmp_path, ogbg.NAME, 2, progress=lambda *at: seen.append(at))
    ogbg.prepare(workshop, raw, sample=True)
    for path in (root / ogbg.NAME).iterdir():
        assert (tmp_path / ogbg.NAME / path.name).read_bytes() == path.read_bytes()
    assert all(0 <= done <= total for done, total in seen)


def test_batches_have_the_described_shapes(root):
    source = ogbg_graphs.train_source(root, 8, packs=2)
    batch = joined([source.part(0, 0, index, 2) for index in range(2)])
    assert spec_of(batch) == ogbg_graphs.spec(source.capacity, 2)
    assert batch["nodes"].shape == (2, 26 * 4 + 1, 9)
    assert batch["edges"].shape == (2, 56 * 4, 3)
    assert batch["y"].shape == (2, 5, 128)


@pytest.mark.parametrize("step", [0, 3, 1001])
def test_packs_hold_the_graphs_of_the_batch_in_order(root, step: int):
    source = ogbg_graphs.train_source(root, 12, packs=3, capacity=Capacity(4, 400, 800))
    data = ogbg.load_graphs(root, Split.TRAIN)
    batch = joined(next(Parts(source, 5, step, count=3)))
    whole = ogbg_graphs.train_source(root, 12, capacity=Capacity(12, 1200, 2400))
    np.testing.assert_array_equal(
        batch["n_node"][:, :4].ravel(), whole.part(5, step, 0, 1)["n_node"][0, :12]
    )
    rows = np.concatenate([source.rows(5, step, index) for index in range(3)])
    assert len(set(rows.tolist())) == 12
    np.testing.assert_array_equal(batch["n_node"][:, :4].ravel(), data.n_node[rows])
    np.testing.assert_array_equal(batch["y"][:, :4].reshape(12, 128), data.labels[rows] == 1)
    np.testing.assert_array_equal(batch["weight"][:, :4].reshape(12, 128), data.labels[rows] >= 0)
    assert not batch["weight"][:, 4].any()
    assert (batch["senders"] < 400).all()
    assert (batch["n_node"].sum(axis=1) == 400).all()


def test_graphs_left_out_of_training_are_counted(root):
    source = ogbg_graphs.train_source(root, 8, packs=2)
    counts = []
    for step in range(12):
        kept = sum(
            int((source.part(0, step, index, 2)["n_node"][0, :4] > 0).sum()) for index in range(2)
        )
        assert source.dropped(0, step) == 8 - kept
        counts.append(source.dropped(0, step))
    assert 0 < sum(counts) < 0.5 * 96


@pytest.mark.parametrize(("packs", "graphs"), [(1, None), (2, None), (4, 5)])
def test_evaluation_loses_no_graph(root, packs: int, graphs: int | None):
    """All splits have packs of one size; places without a graph have no weight."""
    shapes = set()
    for split in Split:
        source = ogbg_graphs.eval_source(root, split, 8, graphs, packs)
        batches = list(Evaluation(source, count=packs))
        shapes.add(str([spec_of(batch) for batch in batches[:1]]))
        data = ogbg.load_graphs(root, split)
        n_node = np.concatenate([batch["n_node"][:, :-1].ravel() for batch in batches])
        labels = sum(batch["weight"].sum() for batch in batches)
        if graphs is None:
            assert sorted(n_node[n_node > 0]) == sorted(data.n_node)
            assert labels == (data.labels >= 0).sum()
        assert (n_node > 0).sum() == (graphs or data.count)
        assert not any(batch["weight"][:, -1].any() for batch in batches)
        for batch in batches:
            np.testing.assert_array_equal(batch["n_node"].sum(axis=1), source.capacity.nodes)
    assert len(shapes) == 1


def test_a_part_is_a_pack(root):
    source = ogbg_graphs.train_source(root, 8, packs=2)
    for count in (1, 4):
        with pytest.raises(
            ValueError, match=f"parts: expected 2, one for each pack .* got {count}"
        ):
            source.part(0, 0, 0, count)
    with pytest.raises(ValueError, match="part: expected 0 to 1, got 2"):
        source.part(0, 0, 2, 2)


def test_wrong_sizes_are_refused(root, tmp_path: Path):
    with pytest.raises(ValueError, match="batch_size: expected at most 48"):
        ogbg_graphs.train_source(root, 49)
    with pytest.raises(ValueError, match="expected a divisor of the batch size 8, got 3"):
        ogbg_graphs.train_source(root, 8, packs=3)
    with pytest.raises(ValueError, match="validation_examples: expected 1 to 6"):
        ogbg_graphs.eval_source(root, Split.VALIDATION, 4, 7)
    with pytest.raises(DataError, match="expected a prepared data set, found none"):
        ogbg_graphs.train_source(tmp_path, 8)


def test_sources_are_small_and_picklable_after_use(root):
    check_small_and_picklable(ogbg_graphs.train_source(root, 8), "y", 5_000, step=1)


def changed(tables: dict[str, np.ndarray], fault: str) -> dict[str, np.ndarray]:
    """Tables with a fault; graph 0 has the first rows."""
    new = {name: rows.astype(object) for name, rows in tables.items()}
    if fault == "end":
        new["raw/edge"][1, 0] = 500
    elif fault == "label":
        new["raw/graph-label"][0, 7] = "2"
    elif fault == "feature":
        new["raw/node-feat"][2, 1] = 256
    elif fault == "text":
        new["raw/edge-feat"][2, 1] = "x"
    elif fault == "fields":
        new["raw/edge"] = new["raw/edge"].tolist()
        new["raw/edge"][3] = [1]
    elif fault == "rows":
        new["raw/node-feat"] = new["raw/node-feat"][:-1]
    elif fault == "twice":
        new["split/scaffold/test"][0] = new["split/scaffold/test"][1]
    elif fault == "empty":
        new["split/scaffold/valid"] = new["split/scaffold/valid"][:1]
        new["raw/num-node-list"][int(new["split/scaffold/valid"][0, 0])] = 0
    return new


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("end", "graph 0: expected ends of bonds from 0 to"),
        ("label", "graph 0: expected labels 0, 1 or none, found 2"),
        ("feature", "graph 0: expected node_feat of whole numbers from 0 to 255, found others"),
    ],
)
def test_bad_graphs_are_named_and_counted(tables, tmp_path: Path, fault: str, text: str):
    write_ogbg(tmp_path, changed(tables, fault))
    with pytest.raises(DataError, match=rf"pcba\.zip: {text}"):
        ogbg.prepare(Workshop(tmp_path / "data", ogbg.NAME), tmp_path, sample=True)
    ogbg.prepare(Workshop(tmp_path / "data", ogbg.NAME, skip_bad=1), tmp_path, sample=True)
    manifest = load_manifest(ogbg.NAME, tmp_path / "data")
    assert len(manifest.skipped) == 1
    assert sum(manifest.examples(split.value) for split in Split) == GRAPHS - 1


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("text", r"pcba/raw/edge-feat\.csv\.gz:3: expected numbers, found 'x'"),
        ("fields", r"pcba/raw/edge\.csv\.gz:4: expected 2 fields, found 1"),
        ("rows", "expected [0-9]+ rows of node_feat, found [0-9]+"),
        ("twice", "expected a split of different graphs from 0 to 59"),
        ("empty", "expected [0-9]+ rows of node_feat, found [0-9]+"),
    ],
)
def test_damaged_tables_are_named(tables, tmp_path: Path, fault: str, text: str):
    write_ogbg(tmp_path, changed(tables, fault))
    with pytest.raises(DataError, match=rf"pcba\.zip: {text}"):
        ogbg.prepare(Workshop(tmp_path / "data", ogbg.NAME, skip_bad=9), tmp_path, sample=True)


def test_missing_files_and_tables_are_named(tables, tmp_path: Path):
    with pytest.raises(DataError, match=r"pcba\.zip: expected a raw file, found none"):
        ogbg.raw_file(tmp_path)
    some = {name: rows for name, rows in tables.items() if "edge" not in name}
    write_ogbg(tmp_path, some)
    with pytest.raises(DataError, match=r"found no pcba/raw/num-edge-list.* pcba/raw/edge\.csv"):
        ogbg.raw_file(tmp_path)
    (tmp_path / "pcba.zip").write_bytes((tmp_path / "pcba.zip").read_bytes()[:1000])
    with pytest.raises(DataError, match=r"pcba\.zip: expected a whole zip archive"):
        ogbg.raw_file(tmp_path)


def test_a_damaged_array_is_named(root, tmp_path: Path):
    import shutil

    shutil.copytree(root, tmp_path / "data")
    (tmp_path / "data" / ogbg.NAME / "train-ends.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"train-ends\.npy: not readable"):
        ogbg.load_graphs(tmp_path / "data", Split.TRAIN)
