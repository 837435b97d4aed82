"""``~`` is the home directory in every path that a user types."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from timetrial.bench import cli
from timetrial.bench.metatrain import config as metatraining
from timetrial.bench.suite import load_run, load_suite
from timetrial.bench.timing import calibrate
from timetrial.bench.tune.settings import load_plan
from timetrial.framework.calibration import save_calibration
from timetrial.framework.clock import Clock
from timetrial.framework.config import RunConfig
from timetrial.framework.errors import UserError
from timetrial.framework.paths import (
    PathError,
    expanded,
    expanded_uri,
    legal_name,
    own_name,
    user_path,
)
from timetrial.optimizers.velo.weights.catalogue import cache_directory

BASE = ["workload=flights_dlrm", "optimizer=adam"]
SHORT = ["workload.step_hint=20"]


def step_times(config: RunConfig, clock: Clock) -> list[float]:
    """Seconds of 20 updates that were not made; the clock charges a hundredth of a second."""
    with clock.charge("train"):
        time.sleep(0.01)
    return [0.01 * n for n in range(1, 21)]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_paths(home: Path):
    assert user_path("~") == home
    assert user_path("~/runs") == home / "runs"
    for literal in ("runs", "./~", "a/~/b", "/~", "", "a~"):
        assert expanded(literal) == literal
    with pytest.raises(PathError, match=r"got '~nobody-here/x'.*\./~nobody-here/x"):
        user_path("~nobody-here/x")


def test_without_a_home_directory_it_says_so(monkeypatch: pytest.MonkeyPatch):
    import pwd

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(UserError, match="set HOME"):
        user_path("~/x")
    with pytest.raises(UserError, match=r"tracking\.root: .*set HOME"):
        load_run([*BASE, "tracking.root=~/runs"])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sqlite:///~/m.db", "sqlite:///{home}/m.db"),
        ("sqlite+pysqlite:///~/m.db", "sqlite+pysqlite:///{home}/m.db"),
        ("file:~/runs", "file:{home}/runs"),
        ("file:///~/runs", "file://{home}/runs"),
        ("journal:~/study.log", "journal:{home}/study.log"),
        ("journal://~/study.log", "journal://{home}/study.log"),
        ("~/runs", "{home}/runs"),
        ("sqlite:////tmp/~/m.db", "sqlite:////tmp/~/m.db"),
        ("sqlite:///m.db", "sqlite:///m.db"),
        ("http://host:5000/~me", "http://host:5000/~me"),
        ("postgresql://u:~@host/db", "postgresql://u:~@host/db"),
        ("", ""),
    ],
)
def test_addresses(typed: str, meant: str, home: Path):
    assert expanded_uri(typed) == meant.replace("{home}", str(home))


def test_settings_of_a_run_and_its_files(home: Path, monkeypatch: pytest.MonkeyPatch):
    (home / "p.yaml").write_text(
        "workload: flights_dlrm\ntracking: {root: ~/other, uri: 'sqlite:///~/m.db'}\n"
    )
    config = load_run(["preset=~/p.yaml", "optimizer=adam"])
    assert config.tracking.root == f"{home}/other"
    assert config.tracking.uri == f"sqlite:///{home}/m.db"
    monkeypatch.setattr(calibrate, "step_times", step_times)
    made = calibrate.calibrate("flights_dlrm", SHORT, share=1.0, warm_up_steps=5, date="2024-02-29")
    save_calibration(dataclasses.replace(made, budget_seconds=3.0), home / "c.yaml")
    for words in (["budget.calibration=~/c.yaml"], ["budget.calibration=~/c.yaml", "seed=1"]):
        budget = load_run([*BASE, *SHORT, *words]).budget
        assert (budget.seconds, budget.calibration) == (3.0, f"{home}/c.yaml")


def test_weights_and_what_meta_training_starts_from(home: Path):
    with pytest.raises(UserError, match=rf"optimizer\.weights: .*{home}/w\.params"):
        load_run(["workload=flights_dlrm", "optimizer=velo", "optimizer.weights=~/w.params"])
    settings, command = metatraining.read(["start=~/w.params", "tracking.root=~/runs"])
    assert settings.start == f"{home}/w.params"
    assert command.directory == home / "runs" / "metatrain" / "velo"


def test_a_suite_and_its_directories(home: Path):
    (home / "mine").mkdir()
    (home / "mine" / "flights_dlrm.yaml").write_text("workload: flights_dlrm\n")
    text = "summary: s\npresets: ~/mine\nhpo: ~/mine\nworkloads: flights_dlrm\n"
    (home / "own.yaml").write_text(text)
    suite, tracking = load_suite(["suite=~/own.yaml", "tracking.root=~/runs", "calibrations=~/c"])
    assert suite.preset("flights_dlrm") == home / "mine" / "flights_dlrm.yaml"
    assert suite.tuned("flights_dlrm") == home / "mine" / "flights_dlrm.yaml"
    assert suite.calibration("flights_dlrm") == f"{home}/c/flights_dlrm.yaml"
    assert tracking.root == f"{home}/runs"


def test_a_study(home: Path):
    (home / "space.yaml").write_text("learning_rate: {low: 0.001, high: 0.1}\n")
    (home / "points.json").write_text('[{"learning_rate": 0.1}]')
    plan = load_plan([*BASE, "study.space=~/space.yaml", "study.storage=sqlite:///~/s.db"])
    assert set(plan.space) == {"learning_rate"}
    assert plan.storage == f"sqlite:///{home}/s.db"
    assert load_plan([*BASE, "study.points=~/points.json"]).trials == 1
    assert load_plan([*BASE, "study.storage=journal:~/s.log"]).storage == f"journal:{home}/s.log"
    assert load_plan([*BASE, "tracking.root=~/runs"]).root == home / "runs"


def test_a_calibration_is_written_under_the_root_and_read_as_a_reference(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(calibrate, "step_times", step_times)
    words = [*SHORT, "tracking.root=~/runs"]
    options = {"share": 1.0, "warm_up_steps": 5}
    assert calibrate.run("flights_dlrm", words, reference=None, **options) == 0
    written = home / "runs" / "calibrations" / "flights_dlrm.yaml"
    assert written.is_file()
    reference = "~/runs/calibrations/flights_dlrm.yaml"
    assert calibrate.run("flights_dlrm", words, reference=reference, **options) == 0
    assert f"written to {written}" in capsys.readouterr().out


def test_options_and_variables(home: Path, monkeypatch: pytest.MonkeyPatch):
    parse = cli.parser().parse_args
    assert parse(["tune", "--export", "~/best.yaml"]).export == home / "best.yaml"
    assert parse(["metatrain", "--export", "~/w"]).export == home / "w"
    assert parse(["replay", "--file", "~/r", "--file", "s"]).file == [home / "r", Path("s")]
    assert parse(["fetch", "velo", "--from", "~/w"]).source == home / "w"
    monkeypatch.setenv("TIMETRIAL_CACHE", "~/cache")
    assert cache_directory() == home / "cache"
    monkeypatch.delenv("TIMETRIAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/x")
    assert cache_directory() == home / "x" / "timetrial"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == home / ".cache" / "timetrial"


def test_an_option_with_a_home_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"--export.*~nobody-here/x.*no home directory"):
        cli.parser().parse_args(["tune", "--export", "~nobody-here/x"])


@pytest.mark.parametrize("text", ["a", "timetrial-quick", "tiny_adam.2"])
def test_a_legal_name_is_its_own(text: str):
    assert own_name(text) == legal_name(text) == text


def test_different_texts_have_names_of_their_own_that_every_file_system_takes(tmp_path: Path):
    texts = ["a b", "a_b", "a/b", "../a", "", ".", "..", "\N{CJK UNIFIED IDEOGRAPH-65E5}" * 300]
    names = [own_name(text) for text in texts]
    assert len({*names}) == len(texts)
    for name in names:
        (tmp_path / name).mkdir()
    assert len(list(tmp_path.iterdir())) == len(texts)
