"""Hostile words and files give a configuration or a UserError, never anything else."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from timetrial.bench.metatrain import config as metatraining
from timetrial.bench.suite import load_run, load_suite
from timetrial.bench.tune.settings import load_plan
from timetrial.bench.tune.space import checked_points, read_points, read_space
from timetrial.framework import config as configuration
from timetrial.framework.calibration import load_calibration
from timetrial.framework.errors import UserError

BASE = ["workload=flights_dlrm", "optimizer=adam"]
KEYS = (
    *("seed", "label", "budget", "budget.steps", "budget.seconds", "budget.calibration", "preset"),
    *("optimizer.learning_rate", "workload.mlp_top_dims", "workload.eval_every_steps", "stop"),
    *("tracking", "tracking.uri", "tracking.root", "workload.name.x", "optimizer", "suite"),
    *("seeds", "optimizers", "presets", "hpo", "conditions", "seconds_per_run", "horizons"),
    *("families", "name", "minutes", "start", "study.name", "study.trials", "study.points"),
)
VALUES = (
    *("0", "-1", "1e400", "nan", "inf", "9" * 5000, "[" * 3000, "]", "{}", "[[1],[2]]", "~", "~x"),
    *("null", "*a", "&a", "!!python/object:os.system x", "\udcff", "\0", "/", "/dev", ".."),
    *("a/b.yaml", "/proc/self/mem.yaml", "${oc.env:HOME}", "[a: b]", "'", "- a", "? a", "\n", "%"),
    "x" * 5000,
)
WORDS = st.lists(
    st.builds(
        "{}={}".format, st.sampled_from(KEYS) | st.text(), st.sampled_from(VALUES) | st.text()
    )
    | st.text(),
    max_size=4,
)
QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@example(["a" + ".a" * 20_000 + "=1"])
@example(["label" + ".a" * 20_000 + "=1"])
@example(["optimizer" + ".a" * 20_000 + "=1"])
@example(["tracking" + ".a" * 20_000 + "=1"])
@given(WORDS)
def test_no_words_raise_anything_else(words: list[str]):
    for read in (lambda w: load_run([*BASE, *w]), load_run, load_suite, metatraining.read):
        with contextlib.suppress(UserError):
            read(words)


@QUICK
@given(WORDS)
def test_no_words_of_a_study_raise_anything_else(words: list[str]):
    for word in words:
        with contextlib.suppress(UserError):
            load_plan([*BASE, "study.trials=2", *[w for w in [word] if "trials" not in w]])


LAUGHS = "a: &a [x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)},*{chr(97 + i)}]\n" for i in range(20)
)
HOSTILE = (
    LAUGHS.encode(),
    b"\x00" * 40,
    b"\xff\xfe" + "label: x".encode("utf-16-le"),
    b"[" * 100_000,
    b"{" * 100_000,
    b"- " * 100_000,
    b"? " * 100_000,
    b"a: {b: " * 50_000,
    b'label: "\\ud800"',
    b'label: "\\0"',
    b'label: "\\UFFFFFFFF"',
    b"label: " + b"9" * 200_000,
    b"seed: " + b"9" * 5_000,
    b"!!python/object/apply:os.system [true]",
    b"label: !<x> y",
    b"<<: {seed: 1}",
    b"%YAML 9.9\n---\na: 1",
    b"%TAG ! x\n---\na: 1",
    b"---\n...\n---\n",
    b"workload: [1]",
    b"workload: {name: [x]}",
    b"workload: {name: {x: y}}",
    b"budget: [1]",
    b"budget: {steps: {x: y}}",
    b"budget:",
    b"summary: x\npresets: [a]\nworkloads: {x: y}",
    b"learning_rate: {low: [1], high: {}}",
    b"learning_rate: {choices: [[1], {a: b}, null]}",
    b"label: |\n  a\n b",
    b"\xef\xbb\xbf",
    b"a: 1\r\rb: 2",
)
FRAGMENTS = st.sampled_from(
    (
        *(
            "seed",
            "workload",
            "budget",
            ": ",
            "\n",
            "  ",
            "- ",
            "[",
            "]",
            "{",
            "}",
            ",",
            "&a",
            "*a",
        ),
        *("'", '"', "|", ">", "?", "!", "%", "#", "\t", "\\", "---", "...", "~", "1", "\x00", "<<"),
    )
)


def read_everywhere(file: Path) -> None:
    """Reads a file as everything that a file may be."""
    config = load_run(BASE)
    for read in (
        lambda: load_run([f"preset={file}", *BASE]),
        lambda: load_run([f"preset={file}"]),
        lambda: load_run([*BASE, f"budget.calibration={file}"]),
        lambda: load_suite([f"suite={file}"]),
        lambda: load_calibration(file),
        lambda: read_space(file, config),
        lambda: checked_points(read_points(file), config),
    ):
        with contextlib.suppress(UserError):
            read()


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_file_is_read_or_refused(content: bytes, tmp_path: Path):
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    read_everywhere(file)


@QUICK
@given(
    st.binary(max_size=200) | st.lists(FRAGMENTS, max_size=30).map(lambda f: "".join(f).encode())
)
def test_no_bytes_raise_anything_else(tmp_path: Path, content: bytes):
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    read_everywhere(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
POINT_KEYS = st.sampled_from(
    (
        *("learning_rate", "one_minus_b1", "b1", "workload.batch_size", "workload.mlp_top_dims"),
        *("x", "one_minus_workload", "workload.one_minus_batch_size", "workload."),
    )
)


@QUICK
@example([{"learning_rate": 10**400}])
@example([{"workload.mlp_top_dims": [[1]]}])
@given(st.lists(st.dictionaries(POINT_KEYS, JSON, max_size=3), max_size=3))
def test_no_points_raise_anything_else(tmp_path: Path, points: object):
    file = tmp_path / "points.json"
    file.write_text(json.dumps(points))
    with contextlib.suppress(UserError):
        load_plan([*BASE, f"study.points={file}"])
    for text in (f"[{'9' * 5000}]", "[" * 100_000, "[{}]", '[{"b1": NaN}]'):
        file.write_text(text)
        with pytest.raises(UserError):
            load_plan([*BASE, f"study.points={file}"])


@pytest.mark.parametrize("name", ["", "/proc/self/mem", "/dev/zero", "x" * 5000, "a\0b", "none"])
def test_what_is_no_file_is_refused(name: str):
    with pytest.raises(UserError, match=r"cannot read|expected"):
        configuration.read_yaml(Path(name))
