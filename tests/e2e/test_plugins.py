"""Optimizers and workloads from outside: found, listed, checked, trained, tuned, raced, refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import plugins
import pytest
import tiny_suite

from timetrial.bench import cli
from timetrial.bench.check import check
from timetrial.bench.listing import describe, listing, missing_entries
from timetrial.bench.naming import entry_tags
from timetrial.bench.suite import load_run, load_suite
from timetrial.framework.entries import Horizon
from timetrial.framework.errors import UserError
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.read.runs import load_runs
from timetrial.tracking.record import schema
from timetrial.tracking.store.opening import open_store
from timetrial.workloads import WORKLOADS

MODULES = ("lion", "strangers", *plugins.BROKEN)


@pytest.fixture(autouse=True)
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = tmp_path_factory.mktemp("site")
    plugins.installed(site)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for module in MODULES:
        monkeypatch.delitem(sys.modules, module, raising=False)
    for registry in (OPTIMIZERS, WORKLOADS):
        monkeypatch.setattr(registry, "_loaded", {})
    return site


def timetrial(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    return int(stopped.value.code or 0)


def available() -> tuple[str, ...]:
    return tuple(name for name, entry in OPTIMIZERS.built_in.items() if not entry.unavailable())


def line_of(name: str) -> str:
    (line,) = [line for line in listing().splitlines() if line.split()[:1] == [name]]
    return " ".join(line.split())


def test_the_list_shows_where_everything_comes_from_and_what_is_broken():
    text = listing()
    assert line_of("sign_momentum") == "sign_momentum timetrial-lion 0.1 Lion, constant lr"
    assert line_of("nadam").startswith("nadam built in NAdam")
    assert line_of("bare-sgd").endswith("strangers 2.3 Plain gradient descent, without extra "
                                        "arguments.")  # fmt: skip
    assert "strangers 2.3 Tells two clouds of points apart. (error, lower is better)" in line_of(
        "clouds"
    )
    for name, reason in {
        "imports": "broken: ModuleNotFoundError: No module named 'no_such_package_anywhere'",
        "exits": "broken: SystemExit: 3",
        "syntax": "broken: SyntaxError: invalid syntax (broken_syntax.py, line 1)",
        "number": "broken: TypeError: expected an OptimizerEntry, a function without parameters",
        "plain": "broken: TypeError: expected it to return an OptimizerEntry, got Plain",
        "gone": "broken: AttributeError: module 'broken_type' has no attribute 'NOTHING'",
        "exits_too": "broken: SystemExit: 3",
    }.items():
        assert f"{name} broken-things 0.1 {reason}" in line_of(name)
    (refused,) = [line for line in text.splitlines() if "refused: " in line]
    assert " ".join(refused.split()) == (
        "adam broken-things 0.1 refused: adam is the name of a built-in optimizer"
    )
    assert OPTIMIZERS["adam"] is OPTIMIZERS.built_in["adam"]


def test_presets_of_workloads_that_cannot_run_are_shown_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path))
    runnable, apart = listing().split("presets that cannot run here")
    assert "algoperf/" not in runnable
    assert "quick/flights_dlrm" in runnable
    (line,) = [line for line in apart.splitlines() if "algoperf/ogbg" in line]
    assert line.endswith("workload ogbg cannot run here")
    assert "cannot run here: workload ogbg" in describe("algoperf/ogbg")
    workloads, _ = runnable.split("suites that cannot run here")
    (line,) = [line for line in workloads.splitlines() if line.split()[:1] == ["ogbg"]]
    assert "timetrial data prepare ogbg --source DIR" in line
    preset = tmp_path / "mine.yaml"
    preset.write_text("workload: {name: nothing_here}\nbudget: {steps: 1}\n")
    assert missing_entries(preset) == "needs workload nothing_here, which is not installed"


@pytest.mark.parametrize("name", ["imports", "exits", "syntax", "number", "plain", "gone"])
def test_a_broken_plug_in_is_a_user_error_where_it_is_used(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ("workload=flights_dlrm", f"optimizer={name}", f"tracking.root={tmp_path}/r")
    for command in (("train", *words), ("bench", f"optimizers=[{name}]", "seeds=[0]", words[-1])):
        assert timetrial(*command) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"optimizer {name} of broken-things 0.1 cannot be used: " in line
        assert "Error: " in line or "SystemExit: 3" in line
    assert not (tmp_path / "r").exists()


def test_nothing_is_scanned_or_imported_for_built_in_names(monkeypatch: pytest.MonkeyPatch):
    def scan(**_: object) -> None:
        raise AssertionError("installed packages are scanned")

    monkeypatch.setattr(metadata, "distributions", scan)
    load_run(["workload=flights_dlrm", "optimizer=adam"])
    suite, _ = load_suite(["suite=quick", "optimizers=[adam]"])
    assert suite.optimizer_names() == ("adam",)
    everything, _ = load_suite(["suite=quick", "optimizers=all"])
    assert everything.optimizer_names() == available()
    assert not set(MODULES) & set(sys.modules)


def test_looking_a_plug_in_up_imports_no_other():
    assert OPTIMIZERS["sign_momentum"].summary == "Lion, constant lr"
    assert set(MODULES) & set(sys.modules) == {"lion"}
    assert "imports" in OPTIMIZERS
    assert "sign_of_nowhere" not in OPTIMIZERS
    with pytest.raises(KeyError):
        OPTIMIZERS["sign_of_nowhere"]
    with pytest.raises(UserError, match="did you mean 'sign_momentum'"):
        load_run(["workload=clouds", "optimizer=sign_momentun"])


def test_damaged_metadata_of_another_package_changes_nothing(site: Path):
    (site / "damaged-1.dist-info").mkdir()
    (site / "damaged-1.dist-info" / "entry_points.txt").write_text("[x]\nno equals sign\n")
    (site / "nameless-1.dist-info").mkdir()
    (site / "nameless-1.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe[")
    assert "sign_momentum" in OPTIMIZERS
    assert "Lion, constant lr" in listing()


def test_a_name_that_two_packages_declare_is_refused_with_both(site: Path):
    plugins.package(site, "other", {}, "[timetrial.optimizers]\nsign_momentum = strangers:bare\n")
    with pytest.raises(UserError, match=r"got other 0\.1 and timetrial-lion 0\.1"):
        OPTIMIZERS["sign_momentum"]
    assert OPTIMIZERS["lion:LION"].summary == "Lion, constant lr"


def test_what_the_readme_prints_is_checked_trained_tuned_and_raced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    tiny_suite.register(monkeypatch, tmp_path, steps=20, eval_every_steps=10)
    root = f"tracking.root={tmp_path}/runs"
    assert check(["optimizer=sign_momentum"]) == 0
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert lines[1:-1] == ["ok"] * (len(lines) - 2)
    words = ("workload=tiny", "optimizer=sign_momentum", root)
    assert timetrial("train", *words, "budget.steps=20", "optimizer.learning_rate=0.1") == 0
    assert timetrial("tune", *words, "study.trials=2") == 0
    race = (
        "bench",
        "workloads=[tiny]",
        "presets=p",
        "optimizers=[sign_momentum,adam]",
        "seeds=[0]",
    )
    assert timetrial(*race, root) == 0
    store = open_store(root=tmp_path / "runs", create=False)
    (run,) = load_runs(store, "timetrial")
    assert (run.optimizer, run.step, run.status) == ("sign_momentum", 20, "FINISHED")
    trials = load_runs(store, "timetrial-tune")
    rates = {float(run.config["optimizer.learning_rate"]) for run in trials}
    assert len(rates) == 2
    assert all(1e-5 <= rate <= 1e-2 for rate in rates)
    raced = load_runs(store, "timetrial-quick")
    assert {(run.optimizer, run.status) for run in raced} == {
        ("adam", "FINISHED"),
        ("sign_momentum", "FINISHED"),
    }
    assert "sign_momentum" in (tmp_path / "runs/reports/quick/report.html").read_text()


def test_suites_order_built_in_optimizers_first_and_all_means_the_built_in_ones():
    words = ["suite=quick", "optimizers=[lion:LION,sign_momentum,nadam,adam,sign_momentum]"]
    assert load_suite(words)[0].optimizer_names() == (
        "adam",
        "nadam",
        "lion:LION",
        "sign_momentum",
    )
    everything = load_suite(["suite=quick", "optimizers=[all,sign_momentum]"])[0].optimizer_names()
    assert everything == (*available(), "sign_momentum")


def test_package_and_entry_work_without_installation_from_this_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    code, _ = plugins.readme_code()
    (tmp_path / "lion_here.py").write_text(code.replace("constant lr", "from here"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", os.getcwd())])
    config = load_run(["workload=clouds", "optimizer=lion_here:LION", "budget.steps=20"])
    assert OPTIMIZERS[config.optimizer.name].summary == "Lion, from here"
    assert "optimizer lion_here:LION (lion_here:LION): Lion, from here" in describe(
        "lion_here:LION"
    )
    assert (
        timetrial(
            "train", "workload=strangers:Clouds", "optimizer=lion_here:LION", "budget.steps=20"
        )
        == 0
    )
    (run,) = load_runs(open_store(root=tmp_path / "runs", create=False), "timetrial")
    assert (run.workload, run.optimizer) == ("strangers:Clouds", "lion_here:LION")
    assert run.metric == "error"
    with pytest.raises(UserError, match="optimizer lion_here:PUMA cannot be used: AttributeError"):
        load_run(["workload=clouds", "optimizer=lion_here:PUMA"])
    monkeypatch.delitem(sys.modules, "lion_here")


def test_settings_without_a_default_are_asked_for_by_name(capsys: pytest.CaptureFixture[str]):
    message = r"optimizer\.learning_rate: expected a value, as it has no default"
    with pytest.raises(UserError, match=message):
        check(["optimizer=bare-sgd"])
    assert check(["optimizer=bare-sgd", "optimizer.learning_rate=0.1"]) == 0
    assert "  n/a    Both ends of every range" in capsys.readouterr().out
    text = describe("bare-sgd")
    assert "  learning_rate  a number; required\n                 How far an update goes." in text


def test_a_function_that_returns_an_entry_and_needs_steps(capsys: pytest.CaptureFixture[str]):
    assert check(["optimizer=by_function"]) == 0, capsys.readouterr().out
    config = load_run(["workload=clouds", "optimizer=by_function", "budget.steps=40"])
    tags = entry_tags(OPTIMIZERS[config.optimizer.name], config, Horizon(40, 40))
    assert tags[schema.OPTIMIZER_NAME] == "by_function"
    assert tags[schema.COLOR] == "#123456"
    points = json.loads(tags[schema.LEARNING_RATES])
    assert points == [[step, 0.1 if step < 10 else 0.01] for step in range(41)]


def test_a_strangers_workload_is_checked_and_needs_no_step_hint_among_its_settings(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    assert check(["workload=clouds", "workload.points=60"]) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert out.startswith("workload clouds (strangers 2.3)\n")
    assert "n/a    Evaluation batches of 7 and of 64 examples give the same metrics." in out
    with pytest.raises(UserError, match=r"expected budget\.steps=N or budget\.seconds=S"):
        load_run(["workload=clouds", "optimizer=adam"])
    root = f"tracking.root={tmp_path}"
    words = ("workload=clouds", "optimizer=by_function", "budget.seconds=0.2", root)
    assert timetrial("train", *words, "budget.expected_steps=50") == 0


@pytest.mark.parametrize("words", [[], ["seed=1"], ["optimizer=adam", "budget.steps=3"]])
def test_check_says_what_it_takes(words: list[str]):
    with pytest.raises(UserError, match="check: expected optimizer=NAME or workload=NAME"):
        check(words)


def test_mypy_takes_the_readmes_optimizer(site: Path, tmp_path: Path):
    cache = plugins.ROOT / ".mypy_cache" / "plugins"
    options = ("--strict", "--follow-imports=silent", "--ignore-missing-imports")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--cache-dir", str(cache), str(site / "lion.py")],
        env=os.environ | {"MYPYPATH": str(plugins.ROOT)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (plugins.ROOT / "timetrial" / "py.typed").exists()


@pytest.mark.slow
def test_a_repository_is_installed_by_pip_and_used_from_another_folder(tmp_path: Path):
    repository, target, folder = (tmp_path / name for name in ("repository", "target", "folder"))
    for path in (repository, folder):
        path.mkdir()
    plugins.source(repository)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    install += ["--no-build-isolation", "--target", str(target), str(repository)]
    subprocess.run(install, check=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(plugins.ROOT), str(target)])}

    def run(*code: str) -> str:
        done = subprocess.run(
            [sys.executable, *code],
            env=environment, cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    command = ("-m", "timetrial.bench.cli")
    assert "timetrial-lion 0.1" in run(*command, "list")
    checked = "import sys; from timetrial.bench.check import check; sys.exit(check(sys.argv[1:]))"
    assert "all checks passed" in run("-c", checked, "optimizer=sign_momentum")
    words = ("workload=flights_dlrm", "optimizer=sign_momentum", "budget.steps=20")
    assert "validation/loss" in run(*command, "train", *words)
    assert run(*command, "tune", *words, "study.trials=2", "--workers", "2")
    race = ("workloads=[flights_dlrm]", "seeds=[0]", "optimizers=[adam,sign_momentum]")
    assert "sign_momentum" in run(*command, "bench", "suite=quick", *race)
