from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from raw_files import check_small_and_picklable, criteo_lines, needs_data, write_criteo

from timetrial.framework.types import Split
from timetrial.workloads.data import criteo, criteo_rows, criteo_text
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.parts import Evaluation, joined
from timetrial.workloads.data.prepared import load_manifest
from timetrial.workloads.data.preparing import Workshop

pytestmark = needs_data
BLOCK = 16


def expected(lines: list[str]) -> np.ndarray:
    return criteo_text.parse("".join(lines).encode(), 1, lambda line, rule: pytest.fail(rule))[0]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[Path, list[list[str]]]:
    top = tmp_path_factory.mktemp("criteo")
    days = write_criteo(top / "raw")
    workshop = Workshop(top / "data", criteo.NAME)
    criteo.prepare(workshop, top / "raw", sample=True, block_rows=BLOCK)
    return top / "data", days


def test_the_last_day_is_cut_where_95_of_178_million_lines_are(prepared):
    root, days = prepared
    rows = load_manifest(criteo.NAME, root).settings["rows"]
    test = round(len(days[23]) * 95_000_000 / 178_274_637)
    assert rows == {
        "train": sum(map(len, days[:23])),
        "test": test,
        "validation": len(days[23]) - test,
    }


def all_rows(root: Path, split: Split, batch_size: int = 50) -> dict[str, np.ndarray]:
    batches = list(Evaluation(criteo_rows.eval_source(root, split, batch_size), count=2))
    return joined(batches)


def test_evaluation_has_every_row_once_in_order(prepared):
    root, days = prepared
    test = round(len(days[23]) * 95_000_000 / 178_274_637)
    for split, lines in ((Split.TEST, days[23][:test]), (Split.VALIDATION, days[23][test:])):
        batch = all_rows(root, split)
        kept = batch["weight"] > 0
        assert kept.sum() == len(lines) == batch["weight"].sum()
        assert not batch["ids"][~kept].any()
        rows = expected(lines)
        np.testing.assert_array_equal(batch["y"][kept], rows[:, 0])
        np.testing.assert_array_equal(batch["dense"][kept], rows[:, 1:14])
        np.testing.assert_array_equal(batch["ids"][kept], rows[:, 14:])
        assert batch["dense"].dtype == batch["ids"].dtype == np.int32


def test_training_blocks_are_whole_and_an_epoch_has_each_once(prepared):
    root, days = prepared
    source = criteo_rows.train_source(root, 2 * BLOCK)
    full = np.concatenate([expected(day)[: len(day) // BLOCK * BLOCK] for day in days[:23]])
    steps = len(full) // (2 * BLOCK)
    batch = joined([source.part(7, step, 0, 1) for step in range(steps)])
    seen = np.column_stack([batch["y"].astype(np.int32), batch["dense"], batch["ids"]])
    places = {block.tobytes(): i for i, block in enumerate(full.reshape(-1, BLOCK, 40))}
    order = [places[block.tobytes()] for block in seen.reshape(-1, BLOCK, 40)]
    assert len(set(order)) == len(order) == 2 * steps
    assert order != sorted(order)
    again = source.part(7, steps, 0, 1)
    assert not np.array_equal(again["ids"], batch["ids"][: 2 * BLOCK])


@pytest.mark.parametrize("batch_size", [8, 16, 64])
@pytest.mark.parametrize("step", [0, 5, 100_003])
def test_parts_make_the_same_batch(prepared, batch_size: int, step: int):
    source = criteo_rows.train_source(prepared[0], batch_size)
    whole = source.part(3, step, 0, 1)
    for count in (2, 8):
        parts = [source.part(3, step, index, count) for index in range(count)]
        for name, values in joined(parts).items():
            np.testing.assert_array_equal(values, whole[name])
    assert not np.array_equal(source.part(4, step, 0, 1)["ids"], whole["ids"])


def test_a_batch_smaller_than_a_block_takes_each_piece_once(prepared):
    root, days = prepared
    source = criteo_rows.train_source(root, BLOCK // 2)
    pieces = 2 * sum(len(day) // BLOCK for day in days[:23])
    seen = {source.part(0, step, 0, 1)["ids"].tobytes() for step in range(pieces)}
    assert len(seen) == pieces


def test_train_evaluation_is_a_fixed_choice_of_training_rows(prepared):
    root, days = prepared
    source = criteo_rows.eval_source(root, Split.TRAIN, 40, rows=100)
    first, second = (joined(list(Evaluation(source))) for _ in range(2))
    np.testing.assert_array_equal(first["ids"], second["ids"])
    assert first["weight"].sum() == 100
    known = {row.tobytes() for day in days[:23] for row in expected(day)[:, 14:]}
    rows = [row.tobytes() for row in first["ids"][first["weight"] > 0]]
    assert len(set(rows)) == 100
    assert set(rows) <= known


def test_sources_are_small_and_picklable_after_use(prepared):
    check_small_and_picklable(criteo_rows.train_source(prepared[0], 32), "ids", 20_000)


def test_sizes_that_do_not_fit_are_refused(prepared):
    root = prepared[0]
    with pytest.raises(ValueError, match="batch_size: expected a multiple or divisor of 16"):
        criteo_rows.train_source(root, 24)
    with pytest.raises(ValueError, match="rows: expected 1 to"):
        criteo_rows.eval_source(root, Split.TEST, 8, rows=10**6)
    with pytest.raises(ValueError, match="batch_size: expected at most"):
        criteo_rows.train_source(root, BLOCK * 1000).part(0, 0, 0, 1)


def test_blocks_keep_the_order_and_only_the_last_is_short():
    rows = np.arange(400).reshape(10, 40)
    for size in (1, 3, 4, 10, 11):
        cut = list(criteo.blocks([rows[:1], rows[1:1], rows[1:7], rows[7:]], size))
        np.testing.assert_array_equal(np.concatenate(cut), rows)
        assert {len(block) for block in cut[:-1]} <= {size}


def test_text_comes_in_whole_lines(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(criteo, "_CHUNK", 100)
    text = "".join(criteo_lines(5, 0)).encode()
    (tmp_path / "day_0").write_bytes(text.rstrip(b"\n"))  # no newline at the end
    pieces = list(criteo.texts(tmp_path / "day_0"))
    assert b"".join(pieces) == text
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert len(pieces) > 1


def test_missing_days_are_all_named(tmp_path: Path):
    write_criteo(tmp_path, rows=1)
    (tmp_path / "day_3").unlink()
    (tmp_path / "day_22.gz").unlink()
    with pytest.raises(DataError, match=r"no day_3.gz, day_22.gz$"):
        criteo.prepare(Workshop(tmp_path / "data", criteo.NAME), tmp_path)


def test_a_truncated_archive_is_named(tmp_path: Path):
    path = tmp_path / "day_0.gz"
    path.write_bytes(gzip.compress("".join(criteo_lines(50, 0)).encode())[:-100])
    with pytest.raises(DataError, match=r"day_0\.gz: expected a whole file"):
        list(criteo.texts(path))
    path.write_bytes(b"no gzip at all")
    with pytest.raises(DataError, match=r"day_0\.gz: expected a whole file"):
        list(criteo.texts(path))


def test_bad_lines_stop_or_are_counted(tmp_path: Path):
    raw = tmp_path / "raw"
    write_criteo(raw, rows=4)
    for day in (1, 5):
        lines = (raw / f"day_{day}").read_text().splitlines(keepends=True)
        lines[2] = lines[2].replace("\t", " ", 1)
        (raw / f"day_{day}").write_text("".join(lines))
    workshop = Workshop(tmp_path / "data", criteo.NAME, skip_bad=1)
    with pytest.raises(DataError, match=r"day_5:3: expected 40 fields, found 39 \(bad record 2"):
        criteo.prepare(workshop, raw, sample=True, block_rows=BLOCK)
    workshop = Workshop(tmp_path / "data", criteo.NAME, skip_bad=2)
    criteo.prepare(workshop, raw, sample=True, block_rows=BLOCK)
    manifest = load_manifest(criteo.NAME, tmp_path / "data")
    assert [one.place.rsplit("/", 1)[1] for one in manifest.skipped] == ["day_1:3", "day_5:3"]
    assert manifest.settings["rows_per_day"][1] == 4 + 3 - 1
