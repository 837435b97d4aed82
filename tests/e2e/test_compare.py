"""``timetrial compare``: names of optimizers and experiments, files and errors."""

from __future__ import annotations

import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_line import command_line
from recorded import record

from timetrial.framework.records import Row
from timetrial.tracking.store.opening import Store, open_store


@pytest.fixture
def timetrial(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return command_line(capsys)


def add(store: Store, optimizer: str, pace: float, experiment: str, **tags: str) -> None:
    """Three runs of 20 steps, which end at an accuracy of about ``pace``."""
    for seed in range(3):
        rows = [
            Row(5 * k, 0.5 * k, {"validation/accuracy": (pace + 0.01 * seed) * k / 4})
            for k in range(5)
        ]
        tags = {"workload": "tiny", "budget": "20", **tags}
        record(store, rows=rows, experiment=experiment, optimizer=optimizer, seed=str(seed), **tags)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experiment timetrial-quick with three optimizers, and two more experiments."""
    root = tmp_path_factory.mktemp("runs")
    store = open_store(f"sqlite:///{root}/mlflow.db", root=root)
    quick, other = "timetrial-quick", "other"
    add(store, "adam", 0.5, quick)
    add(store, "velo[embedded]", 0.6, quick, optimizer_name="velo")
    add(store, "velo[embedded]", 0.6, quick, optimizer_name="velo", workload="second")
    add(store, "adam", 0.7, quick, workload="second")
    add(store, "short[a]", 0.4, quick)
    add(store, "short[b]", 0.4, quick)
    add(store, "adam", 0.8, other)
    add(store, "adam", 0.8, other, workload="second", budget="40")
    add(store, "adam", 0.9, quick, study="a-study")  # a tuning trial: no part of the race
    return root


def test_a_paragraph_and_a_plot(timetrial, root: Path):
    done = timetrial("compare", f"tracking.root={root}", "velo", "adam")
    assert done.code == 0, done.err
    paragraph, plots = done.out.split("\n\n")
    assert "\n" not in paragraph
    assert "velo[embedded] ends better on 1 of 2 (tiny: accuracy 0.6100 against 0.51" in paragraph
    assert "adam ends better on 1 of 2 (second: accuracy 0.7100 against 0.6100, 9 of" in paragraph
    assert "probability 0.50 (interval" in paragraph
    paths = [Path(line.split(maxsplit=1)[1]) for line in plots.splitlines()]
    folder = root / "reports" / "compare"
    assert paths == [folder / f"velo_embedded_-against-adam.{kind}" for kind in ("png", "svg")]
    width, height = struct.unpack(">II", paths[0].read_bytes()[16:24])
    assert width > 2 * 500
    assert height > 300
    texts = {text.text for text in ElementTree.parse(paths[1]).iter() if text.text}
    assert {"tiny, step control", "second, step control", "adam", "velo[embedded]"} <= texts


def test_two_experiments(timetrial, root: Path, tmp_path: Path):
    words = [f"tracking.root={root}", "--out", str(tmp_path / "plots")]
    done = timetrial("compare", "adam", "other:adam", *words)
    assert done.code == 0, done.err
    assert "other:adam and timetrial-quick:adam are not told apart" in done.out
    assert "1 of 1 (tiny: accuracy 0.8100 against 0.5100, 9 of 9 pairs of runs)" in done.out
    left = "Left out: second under step control, whose budgets differ (20 and 40)."
    assert left in done.out
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "timetrial-quick_adam-against-other_adam.png",
        "timetrial-quick_adam-against-other_adam.svg",
    ]


@pytest.mark.parametrize("kind", ["directory", "store"])
def test_runs_from_anywhere(kind: str, timetrial, root: Path, tmp_path: Path):
    place = str(root) if kind == "directory" else f"sqlite:///{root}/mlflow.db"
    named = ["--experiment", "timetrial-quick"] if kind == "store" else []
    words = [f"tracking.root={tmp_path}", "--from", place, *named]
    done = timetrial("compare", "velo", "short[a]", *words)
    assert done.code == 0, done.err
    assert "velo[embedded] and short[a] are not told apart" in done.out
    assert (tmp_path / "reports" / "compare" / "velo_embedded_-against-short_a_.svg").exists()
    if kind == "store":
        done = timetrial("compare", "other:adam", "timetrial-quick:adam", *words[:3])
        assert done.code == 0, done.err
        assert "other:adam and timetrial-quick:adam are not told apart" in done.out


BAD = {
    ("adam", "adem"): "unknown optimizer 'adem'; did you mean 'adam'? Known: adam, short[a], "
    "short[b], velo[embedded]; or EXPERIMENT:OPTIMIZER, an experiment of other",
    ("adam", "velo[google]"): "Known: adam, short[a], short[b], velo[embedded]",
    ("adam", "other:velo"): "experiment other: unknown optimizer 'velo'. Known: adam",
    ("adam", "nowhere:adam"): "or EXPERIMENT:OPTIMIZER, an experiment of other",
    ("adam", "other"): "other is an experiment: expected other:OPTIMIZER, one of adam",
    ("adam", "short"): "short: expected one variant, got several: short[a], short[b]",
    ("velo", "velo[embedded]"): "expected two different optimizers, got velo and velo[embedded]",
    ("adam",): "compare: expected two optimizers, got adam",
    ("adam", "velo", "optimizers=adam"): "compare: expected two optimizers, got adam, velo, optim",
}


@pytest.mark.parametrize("names", BAD)
def test_what_cannot_be_compared_is_said(names: tuple[str, ...], timetrial, root: Path):
    done = timetrial("compare", *names, "--out", str(root / "bad"), f"tracking.root={root}")
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith("timetrial: ")
    assert BAD[names] in line
    assert not (root / "bad").exists()


def test_budgets_that_never_agree_leave_nothing_to_compare(timetrial, tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path}/mlflow.db", root=tmp_path)
    add(store, "adam", 0.5, "timetrial-quick")
    add(store, "velo", 0.5, "timetrial-quick", budget="40")
    done = timetrial("compare", "adam", "velo", f"tracking.root={tmp_path}")
    assert done.code == 2
    assert "expected a workload with counted runs of both optimizers, got none" in done.err
    assert "tiny under step control, whose budgets differ (20 and 40)" in done.err


def test_no_runs_and_no_room_for_the_plot(timetrial, root: Path, tmp_path: Path):
    done = timetrial("compare", "adam", "velo", f"tracking.root={tmp_path / 'none'}")
    assert done.code == 2
    assert "no runs recorded yet" in done.err
    (tmp_path / "file").write_text("")
    words = [f"tracking.root={root}", "--out", str(tmp_path / "file" / "plots")]
    done = timetrial("compare", "adam", "velo", *words)
    assert done.code == 2
    assert f"cannot write the plot to {tmp_path / 'file' / 'plots'}" in done.err
