"""Texts, numbers and paths have the same meaning on the command line and in a YAML file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from timetrial.bench.metatrain import config as metatraining
from timetrial.bench.suite import load_suite
from timetrial.bench.tune.settings import load_plan
from timetrial.framework import config as configuration
from timetrial.framework.config import ConfigError, RunConfig
from timetrial.framework.entries import Entry


@dataclasses.dataclass(frozen=True)
class Settings:
    step_hint: int = 100
    note: str = ""
    rate: float = 0.1
    deep: bool = False
    widths: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    nested: tuple[tuple[int, ...], ...] = ()
    pair: tuple[int, float] = (0, 0.0)
    limit: float | None = 1.0
    either: int | str = 0


ENTRIES = {"x": Entry("x", Settings, lambda *arguments: arguments)}
BASE = ("workload=x", "optimizer=x")


def load(*words: str) -> RunConfig:
    return configuration.load(words, workloads=ENTRIES, optimizers=ENTRIES, presets={})


def setting(name: str, text: str) -> object:
    return getattr(load(*BASE, f"workload.{name}={text}").workload.settings, name)


SURPRISES = (  # of YAML 1.1, in which each of these is something else than its text
    *("010", "0100", "0o17", "0x1F", "0b1", "1.10", "1e3", "1_1_1", "12:30:45", "190:20:30.15"),
    *("on", "off", "yes", "no", "y", "n", "true", "null", "none", "~", "=", "<<", ".nan", ".inf"),
    *("2024-02-29", "2024-02-29T12:00:00Z", "${oc.env:HOME}", "${nope}", "!!int 3", "", "'", '"a"'),
)
PLAIN = tuple(text for text in SURPRISES if text[:1] not in ("!", "'", '"', "="))


@pytest.mark.parametrize("text", SURPRISES)
def test_a_text_stays_what_was_typed(text: str, tmp_path: Path):
    config = load(*BASE, f"label={text}", f"tracking.experiment={text}", f"workload.note={text}")
    assert (config.label, config.tracking.experiment) == (text, text)
    assert config.workload.settings.note == text
    file = tmp_path / "config.yaml"
    file.write_text(configuration.to_yaml(config))
    assert load(f"preset={file}") == config
    assert load_suite([f"tracking.experiment={text}"])[1].experiment == text


@pytest.mark.parametrize("text", PLAIN)
def test_a_text_in_a_file_stays_what_was_typed(text: str, tmp_path: Path):
    file = tmp_path / "preset.yaml"
    file.write_text(f"label: {text}\ntracking:\n  experiment: {text}\nworkload:\n  note: {text}\n")
    config = load(f"preset={file}", *BASE)
    assert (config.label, config.tracking.experiment) == (text, text)
    assert config.workload.settings.note == text


def test_an_environment_variable_in_a_preset_is_text(tmp_path: Path):
    file = tmp_path / "stranger.yaml"
    file.write_text("label: ${oc.env:HOME}\n")
    assert load(f"preset={file}", *BASE).label == "${oc.env:HOME}"


def test_leading_zeros_are_decimal():
    """``seq -w 1 100`` gives such seeds."""
    assert load(*BASE, "seed=010", "budget.steps=0100").seed == 10
    assert load(*BASE, "seed=010", "budget.steps=0100").budget.steps == 100
    assert load_suite(["seeds=001,010,100"])[0].seeds == (1, 10, 100)
    words = ["workload=flights_dlrm", "optimizer=adam", "study.name=010", "study.seed=010"]
    plan = load_plan(words)
    assert (plan.name, plan.settings.seed) == ("010", 10)
    assert metatraining.read(["name=010", "seed=010"])[0].seed == 10
    assert metatraining.read(["name=010", "seed=010"])[1].name == "010"


@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_every_seed_is_decimal(seed: int, zeros: int):
    assert load(*BASE, f"seed={'0' * zeros}{seed}").seed == seed
    assert load_suite([f"seeds={seed}"])[0].seeds == (seed,)


FILE_SAFE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@FILE_SAFE
@example("x" * 200 + "  " + "y" * 200)
@example("a\n\n b\t\x85\u2028\ufeff")
@given(TEXTS)
def test_any_text_comes_back_from_words_and_from_yaml(tmp_path: Path, text: str):
    words = [f"label={text}", f"tracking.experiment={text}", f"workload.note={text}"]
    root = text.replace("~", "-")[:50]  # names of files have 255 bytes
    config = load(*BASE, *words, f"tracking.root={root}")
    assert (config.label, config.tracking.experiment) == (text, text)
    assert config.tracking.root == root
    file = tmp_path / "config.yaml"
    file.write_text(configuration.to_yaml(config), encoding="utf-8", newline="")
    assert load(f"preset={file}") == config


@FILE_SAFE
@given(TEXTS)
def test_any_text_of_a_setting_that_may_be_none_comes_back(tmp_path: Path, text: str):
    tracking = configuration.Tracking(uri=text.replace("~", "-"))
    config = dataclasses.replace(load(*BASE), tracking=tracking)
    file = tmp_path / "config.yaml"
    file.write_text(configuration.to_yaml(config), encoding="utf-8", newline="")
    assert load(f"preset={file}") == config


@FILE_SAFE
@given(
    st.builds(
        Settings,
        step_hint=st.integers(1, 2**62),
        note=TEXTS,
        rate=st.floats(allow_nan=False),
        widths=st.lists(st.integers(-(2**62), 2**62)).map(tuple),
        names=st.lists(TEXTS).map(tuple),
        nested=st.lists(st.lists(st.integers(0, 9)).map(tuple)).map(tuple),
        pair=st.tuples(st.integers(0, 9), st.floats(0, 1)),
        limit=st.none() | st.floats(allow_nan=False),
        deep=st.booleans(),
        either=st.integers(0, 9) | st.sampled_from(["best", "1.5"]),
    )
)
def test_any_settings_come_back_from_yaml(tmp_path: Path, made: Settings):
    config = dataclasses.replace(load(*BASE), workload=configuration.Choice("x", made))
    file = tmp_path / "config.yaml"
    file.write_text(configuration.to_yaml(config), encoding="utf-8", newline="")
    assert load(f"preset={file}") == config


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rate", "3", 3.0),
        ("rate", "1e-3", 1e-3),
        ("rate", "-.5E+2", -50.0),
        ("rate", "007", 7.0),
        ("rate", "inf", float("inf")),
        ("rate", "-.inf", float("-inf")),
        ("deep", "True", True),
        ("deep", "false", False),
        ("widths", "3", (3,)),
        ("widths", "3,010", (3, 10)),
        ("widths", "[3, 4]", (3, 4)),
        ("widths", "[]", ()),
        ("names", "on", ("on",)),
        ("names", "010,no", ("010", "no")),
        ("names", "['a,b', \"c\", 1.10]", ("a,b", "c", "1.10")),
        ("nested", "[[1,2],[3]]", ((1, 2), (3,))),
        ("nested", "[[1,2],3]", ((1, 2), (3,))),
        ("pair", "1,.5", (1, 0.5)),
        ("limit", "null", None),
        ("limit", "None", None),
        ("limit", "", None),
        ("limit", "2", 2.0),
        ("either", "010", 10),
        ("either", "1.5", "1.5"),
    ],
)
def test_a_value_is_read_by_its_type(name: str, text: str, value: object):
    found = setting(name, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("step_hint", "1_000", "a whole number, got '1_000'"),
        ("step_hint", "1e3", "a whole number, got '1e3'"),
        ("step_hint", "0x10", "a whole number"),
        ("step_hint", "٣", "a whole number"),
        ("step_hint", " 3", "a whole number"),
        ("step_hint", "", "a whole number, got ''"),
        ("step_hint", "null", "a whole number"),
        ("step_hint", "9" * 5000, r"a whole number, got '9+\.\.\. \(5002 characters\)"),
        ("step_hint", str(2**63), "a whole number of at most 64 bits"),
        ("rate", "1_0.5", "a number"),
        ("rate", "nan", "a number"),
        ("rate", "1e400", "a number"),
        ("rate", "12:30", "a number"),
        ("deep", "yes", "true or false, got 'yes'"),
        ("deep", "1", "true or false"),
        ("widths", "a", "a whole number, got 'a'"),
        ("widths", "[1", "a list such as"),
        ("widths", "1,", "a whole number, got ''"),
        ("pair", "1,2,3", "2 values, got 3"),
    ],
)
def test_what_is_no_such_value_is_refused(name: str, text: str, expected: str):
    with pytest.raises(ConfigError, match=rf"workload\.{name}.*: expected {expected}"):
        setting(name, text)


def test_quotes_in_a_file_make_text_of_null_and_one_item_of_a_list(tmp_path: Path):
    file = tmp_path / "p.yaml"
    file.write_text("tracking: {uri: 'null'}\nworkload: {name: x, names: 'a,b', step_hint: '7'}\n")
    config = load(f"preset={file}", "optimizer=x")
    assert config.tracking.uri == "null"
    assert config.workload.settings.names == ("a,b",)
    assert config.workload.settings.step_hint == 7
    file.write_text("tracking: {uri: ~}\nworkload: {name: x, limit: , names: [a, 'null']}\n")
    config = load(f"preset={file}", "optimizer=x")
    assert config.tracking.uri is None
    assert config.workload.settings.limit is None
    assert config.workload.settings.names == ("a", "null")


RECORDED = """\
workload:
  name: x
  step_hint: 300
  note: '010'
  rate: 1.0e-08
  deep: false
  widths:
  - 16
  names: []
  nested: []
  pair:
  - 1
  - 0.5
  limit: null
  either: best
optimizer:
  name: x
budget:
  steps: 300
  seconds: null
  charge_compile: false
  also_seconds: null
  expected_steps: null
  calibration: null
seed: 7
label: '1.10'
stop:
  target: null
  split: validation
tracking:
  uri: null
  experiment: timetrial
  root: runs
"""


def test_a_configuration_that_was_recorded_by_an_earlier_version_reads_back(tmp_path: Path):
    """As OmegaConf wrote it; what is written today is the same, with all settings."""
    file = tmp_path / "config.yaml"
    file.write_text(RECORDED)
    config = load(f"preset={file}")
    expected = Settings(300, "010", 1e-8, False, (16,), pair=(1, 0.5), limit=None, either="best")
    assert config.workload.settings == expected
    assert (config.seed, config.label, config.budget.steps) == (7, "1.10", 300)
    written = configuration.to_yaml(config)
    assert written.partition("optimizer:")[0] == RECORDED.partition("optimizer:")[0]
    later = "train:\n  microbatches: 1\n  devices: null\n  shard: auto\n"
    saving = "  queue: null\n  checkpoint_minutes: 10.0\n  final_checkpoint: true\n"
    assert later in written
    assert saving in written
    written = written.replace(saving, "")
    assert written.replace(later, "").partition("budget:")[2] == RECORDED.partition("budget:")[2]
