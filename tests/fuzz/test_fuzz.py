"""A part of ``make fuzz``: damaged files are read or refused by one kind of error."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.loaders import LOADERS
from timetrial.framework.errors import UserError
from timetrial.tracking.read.algoperf_logs import read_algoperf_logs
from timetrial.tracking.read.times_csv import records_from_times
from timetrial.tracking.record.evaluations_file import decode
from timetrial.tracking.record.journal import last_kind, read_journal, rows_between
from timetrial.tracking.scores.fixed_targets import named_targets
from timetrial.workloads.data.prepared import MANIFEST, load_manifest

QUICK = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LIGHT = [name for name, loader in LOADERS.items() if loader.weight >= 1]
INPUTS = 12


def test_damaged_files_of_every_kind(tmp_path: Path):
    """In a child with limits: 1 GiB of memory and 2 s of CPU time per file."""
    words = ["-m", "fuzz.child", ",".join(LIGHT), "in make test", "0", str(INPUTS), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    bad = [line for line in lines if line["kind"] in ("uncaught", "changed")]
    assert bad == []
    assert len(lines) == INPUTS * len(LIGHT), done.stderr[-2000:]
    assert Counter(line["kind"] for line in lines)["refused"] > len(lines) // 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(
    (
        *("kind", "format", "journal_id", "spool_id", "started_ms", "experiment", "run_name"),
        *("tags", "params", "config_yaml", "datasets", "step", "train_seconds", "metrics"),
        *("timestamp_ms", "status", "summary", "store", "run_id", "crc32", "files"),
    )
)
HEAD = {
    "kind": "run", "journal_id": "a", "started_ms": 1, "experiment": "x", "run_name": "y",
    "tags": {}, "params": {}, "config_yaml": "", "datasets": {},
}  # fmt: skip
RECORDS = st.builds(
    lambda kind, tree: {"kind": kind, **tree},
    st.sampled_from(("run", "row", "end", "sent", "resume", "x")),
    st.dictionaries(KEYS, JSON, max_size=6),
)


@QUICK
@given(st.lists(RECORDS, max_size=4), st.dictionaries(KEYS, JSON, max_size=2), st.booleans())
def test_lines_of_any_content_are_a_journal_or_damaged(
    tmp_path: Path, records: list[dict[str, object]], changes: dict[str, object], whole: bool
):
    lines = [("kind" in changes and changes) or {**HEAD, **({} if whole else changes)}, *records]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for read in (read_journal, last_kind, lambda p: rows_between(p, 0)):
        with contextlib.suppress(UserError):
            read(path)


@QUICK
@given(JSON, st.lists(st.fixed_dictionaries({}, optional={
    "step": JSON, "train_seconds": JSON, "metrics": JSON | st.dictionaries(st.text(), JSON),
})))  # fmt: skip
def test_evaluations_of_any_content(tree: object, records: list[dict[str, object]]):
    for value in (tree, records, {"evaluations": records, "sha256": tree}):
        with contextlib.suppress(ValueError):
            decode(json.dumps(value))


@QUICK
@given(JSON, st.dictionaries(st.sampled_from(("name", "splits", "settings", "skipped")), JSON))
def test_manifests_and_targets_of_any_content(
    tmp_path: Path, tree: object, parts: dict[str, object]
):
    (tmp_path / "x" / "1.0.0").mkdir(parents=True, exist_ok=True)
    for value in (tree, {"sample": False, "splits": {}, **parts}, {"workloads": parts}):
        (tmp_path / "x" / "1.0.0" / MANIFEST).write_text(json.dumps(value))
        (tmp_path / "targets.json").write_text(json.dumps(value))
        with contextlib.suppress(UserError):
            load_manifest("x/1.0.0", tmp_path)
        with contextlib.suppress(UserError):
            named_targets(str(tmp_path / "targets.json"))


CELLS = st.text(alphabet='0123456789.,;"#eE-+ \n\t\r\x00xnaif', max_size=12) | st.sampled_from(
    ("workload", "optimizer", "value", "seed", "target", "split", "submission", "global_step")
)


@QUICK
@given(st.lists(st.lists(CELLS, max_size=6), max_size=6), st.booleans())
def test_tables_of_any_content(tmp_path: Path, rows: list[list[str]], known: bool):
    head = ["score,global_step,validation/ssim", "optimizer,workload,value", "workload,target"]
    body = "\n".join(",".join(row) for row in rows)
    trial = tmp_path / "a" / "study_0" / "fastmri_jax" / "trial_1"
    trial.mkdir(parents=True, exist_ok=True)
    for first in head:
        text = f"{first}\n{body}\n" if known else body
        (tmp_path / "t.csv").write_text(text)
        (trial / "eval_measurements.csv").write_text(text)
        for read in (
            lambda: records_from_times(tmp_path / "t.csv"),
            lambda: named_targets(str(tmp_path / "t.csv")),
            lambda: read_algoperf_logs(tmp_path / "a"),
        ):
            with contextlib.suppress(UserError):
                read()


def test_a_header_of_equal_columns_is_refused_quickly(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text(",".join(["workload"] * 100_000) + "\n")
    for read in (records_from_times, lambda p: named_targets(str(p))):
        with pytest.raises(UserError, match="expected at most 500 columns, got 100,000"):
            read(path)
