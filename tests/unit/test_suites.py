"""Suites: by name or by file, checked before anything is opened."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from timetrial.bench import cli, suite
from timetrial.bench.listing import listing
from timetrial.bench.planning import show_plan
from timetrial.bench.suite import load_suite, plan
from timetrial.framework.config import ConfigError
from timetrial.framework.errors import UserError
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.scores.fixed_targets import named_targets

OWN = """\
summary: one workload
presets: presets
hpo: tuned
workloads: flights_dlrm
optimizers: [adam, hpo]
seeds: 007
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite file with its presets beside it; the working directory is another one."""
    for name in ("presets", "tuned", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "presets" / "flights_dlrm.yaml").write_text(
        "workload: {name: flights_dlrm, step_hint: 30}\nbudget: {steps: 20}\n"
    )
    (tmp_path / "tuned" / "flights_dlrm.yaml").write_text(
        "workload: flights_dlrm\noptimizer: {name: nesterov, learning_rate: 0.25}\nlabel: x\n"
    )
    (tmp_path / "own.yaml").write_text(OWN)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def test_a_suite_file_works_like_a_preset_file(own: Path):
    for words in ([f"suite={own}/own.yaml"], ["suite=../own.yaml"]):
        found, tracking = load_suite(words)
        assert (found.name, tracking.experiment) == ("own", "timetrial-own")
        assert (found.workloads, found.seeds) == (("flights_dlrm",), (7,))
        adam, hpo = plan(found, tracking, "flights_dlrm")
        assert (adam.optimizer.name, adam.budget.steps, adam.seed) == ("adam", 20, 7)
        assert adam.workload.settings.step_hint == 30
        assert (hpo.optimizer.name, hpo.label) == ("nesterov", "hpo")
        assert hpo.optimizer.settings.learning_rate == 0.25
        assert hpo.budget == adam.budget


def test_words_are_laid_over_a_suite_file(own: Path):
    words = [f"suite={own}/own.yaml", "optimizers=velo", "seeds=1,2", "presets=quick", "hpo="]
    found, _ = load_suite(words)
    assert (found.optimizers, found.seeds) == (("velo",), (1, 2))
    assert found.preset("flights_dlrm") == suite.PRESETS_DIRECTORY / "quick/flights_dlrm.yaml"
    (own / "elsewhere" / "here").mkdir()
    (own / "elsewhere" / "here" / "flights_dlrm.yaml").write_text("workload: flights_dlrm\n")
    found, _ = load_suite(["presets=here", "workloads=flights_dlrm"])
    assert found.preset("flights_dlrm") == own / "elsewhere" / "here" / "flights_dlrm.yaml"


def test_a_directory_beside_the_file_comes_before_one_of_this_package(own: Path):
    (own / "own.yaml").write_text(OWN.replace("presets: presets", "presets: quick"))
    found, _ = load_suite([f"suite={own}/own.yaml"])
    assert found.preset("flights_dlrm") == suite.PRESETS_DIRECTORY / "quick/flights_dlrm.yaml"
    (own / "presets").rename(own / "quick")
    found, _ = load_suite([f"suite={own}/own.yaml"])
    assert found.preset("flights_dlrm") == own / "quick" / "flights_dlrm.yaml"


@pytest.mark.parametrize("key", ["summary", "presets", "workloads"])
def test_a_key_that_is_missing_is_named_with_the_file(key: str, own: Path):
    lines = [line for line in OWN.splitlines() if not line.startswith(key)]
    (own / "own.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=rf"own\.yaml: expected the keys {key}, too"):
        load_suite([f"suite={own}/own.yaml"])
    value = {"summary": "s", "presets": "quick", "workloads": "flights_dlrm"}[key]
    assert load_suite([f"suite={own}/own.yaml", f"{key}={value}"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "presets=nope",
            r"presets: expected a directory with .*\.yaml, got 'nope'.*mini, paper-step, .*quick",
        ),
        ("presets=algoperf", r"presets: expected a directory with fashion_mnist_resnet\.yaml"),
        ("presets=" + "x" * 5000, r"presets: expected a path"),
        ("hpo=nope optimizers=hpo", r"hpo: expected a tuned preset for every workload"),
        ("conditions=time calibrations=nope", r"calibrations: .* nope/.*timetrial calibrate"),
        ("conditions=tiem", r"unknown condition 'tiem'; did you mean 'time'"),
        ("optimizers=adm", r"unknown optimizer 'adm'; did you mean 'adam'"),
        ("workloads=flights", r"unknown workload 'flights'; did you mean 'flights_dlrm'"),
        ("seeds=-1", r"^seeds: expected numbers in \[0, 2\*\*32\), got \[-1\]"),
        ("seeds=1,1", r"^seeds: expected different ones"),
        ("seeds=[]", r"^seeds: expected at least one"),
        ("seeds.x=1", r"^seeds: expected a list such as"),
        ("seed=1", r"unknown config key 'seed'; did you mean 'seeds'"),
        ("suite=nope", r"unknown suite 'nope'. Known: .*mini, modern, paper-step, .*, quick"),
        ("suite=nope.yaml", r"cannot read nope\.yaml"),
        ("suite=mini suite=quick", r"suite: expected one value, got 'mini' and 'quick'"),
        ("seconds_per_run=inf", r"seconds_per_run: expected a finite value"),
    ],
)
def test_bad_input_is_refused_before_a_store_is_opened(
    words: str, message: str, own: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(UserError, match=message):
        load_suite(words.split())
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", *words.split()])
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list((own / "elsewhere").iterdir())


def test_one_optimizer_and_one_seed_need_no_brackets():
    found, _ = load_suite(["optimizers=adam", "seeds=0"])
    assert (found.optimizers, found.seeds) == (("adam",), (0,))


def test_fixed_targets_lie_beside_the_suite_and_go_with_its_presets(own: Path):
    (own / "own.targets.csv").write_text("# set once\nworkload,target\nflights_dlrm,0.5\n")
    text = OWN + "r_max: 4\ntargets: {file: own.targets.csv}\n"
    (own / "own.yaml").write_text(text)
    found, _ = load_suite(["suite=../own.yaml"])
    assert found.r_max == 4
    targets = named_targets(str(found.targets.file))
    assert targets["time", "validation"].to_dict() == {"flights_dlrm": 0.5}
    other, _ = load_suite(["suite=../own.yaml", "presets=quick"])
    assert other.targets.file == ""
    chosen, _ = load_suite(["suite=../own.yaml", "targets.setters=adam,velo"])
    assert (chosen.targets.setters, chosen.targets.file) == (("adam", "velo"), "")
    with pytest.raises(ConfigError, match="r_max: expected a value > 1, got 1"):
        load_suite(["suite=../own.yaml", "r_max=1"])
    with pytest.raises(ConfigError, match=r"targets\.file: expected a file, found none at nope"):
        load_suite(["suite=../own.yaml", "targets.file=nope"])


@pytest.mark.parametrize("name", ["quick", "mini"])
def test_the_suites_in_the_box_have_reference_targets_for_all_their_workloads(name: str):
    found, _ = load_suite([f"suite={name}"])
    text = Path(found.targets.file).read_text()
    assert "# rule: median over the optimizers of their median metric" in text
    targets = named_targets(str(found.targets.file))
    for (_, split), series in targets.items():
        assert sorted(series.index) == sorted(found.workloads), split
    assert {split for _, split in targets} == {"train", "validation", "test"}
    assert not {f"seeds: {seed}," in text for seed in found.seeds} - {False}


def test_an_optimizer_that_cannot_run_here_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    reason = "its weights are not on this machine: timetrial fetch adam"
    barred = dataclasses.replace(OPTIMIZERS["adam"], unavailable=lambda: reason)
    monkeypatch.setitem(OPTIMIZERS, "barred", barred)
    words = ["suite=quick", "workloads=flights_dlrm", "seeds=0", "optimizers=[barred,nadam]"]
    suite, tracking = load_suite(words)
    assert suite.optimizer_names() == ("nadam",)
    assert "barred" not in load_suite(["suite=quick", "optimizers=all"])[0].optimizer_names()
    assert show_plan(suite, tracking) == 0
    assert f"left out: barred: {reason}" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=f"expected one that can run here, got barred: {reason}"):
        load_suite([*words[:-1], "optimizers=barred"])
    text = listing()
    lines = [line.split(maxsplit=1) for line in text.splitlines()]
    assert ["barred", reason] in lines
    assert "barred" not in text.split("optimizers that cannot run here\n")[0]
