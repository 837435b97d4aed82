from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from timetrial.framework import config as configuration
from timetrial.framework.config import ConfigError, RunConfig
from timetrial.framework.entries import Entry
from timetrial.framework.ranges import check
from timetrial.framework.suggestions import nearest


@dataclasses.dataclass(frozen=True)
class WorkloadSettings:
    step_hint: int = 100
    widths: tuple[int, ...] = (8, 4)
    augment: bool = True


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    learning_rate: float = 0.1
    momentum: float | None = None

    def __post_init__(self) -> None:
        check(self, learning_rate="> 0", momentum="[0, 1)")


WORKLOADS = {
    "hills": Entry("hills", WorkloadSettings, lambda settings: settings),
    "valleys": Entry("valleys", WorkloadSettings, lambda settings: settings),
}
OPTIMIZERS = {"walk": Entry("walk", OptimizerSettings, lambda settings, horizon: settings)}


def load(*overrides: str, presets: dict[str, Path] | None = None) -> RunConfig:
    return configuration.load(
        overrides, workloads=WORKLOADS, optimizers=OPTIMIZERS, presets=presets or {}
    )


def test_defaults_and_the_step_hint_as_budget():
    config = load("workload=hills", "optimizer=walk")
    assert config.budget.steps == 100
    assert config.optimizer.settings == OptimizerSettings()
    assert config.seed == 0


def test_overrides_reach_every_level():
    config = load(
        "workload=hills",
        "workload.widths=[16,2]",
        "workload.augment=false",
        "optimizer=walk",
        "optimizer.learning_rate=5e-3",
        "optimizer.momentum=0.5",
        "budget.seconds=2",
        "seed=7",
        "stop.target=0.9",
    )
    assert config.workload.settings == WorkloadSettings(widths=(16, 2), augment=False)
    assert config.optimizer.settings == OptimizerSettings(0.005, 0.5)
    assert (config.budget.steps, config.budget.seconds) == (None, 2.0)
    assert (config.seed, config.stop.target) == (7, 0.9)


def test_a_preset_lies_under_the_overrides(tmp_path: Path):
    file = tmp_path / "p.yaml"
    file.write_text("workload: {name: hills, step_hint: 9}\nbudget: {steps: 5}\nseed: 3\n")
    config = load("preset=p", "optimizer=walk", "seed=4", presets={"p": file})
    assert (config.workload.settings.step_hint, config.budget.steps, config.seed) == (9, 5, 4)
    config = load("preset=p", "optimizer=walk", "budget.seconds=1.5", presets={"p": file})
    assert (config.budget.steps, config.budget.seconds) == (None, 1.5)
    config = load(f"preset={file}", "optimizer=walk", "workload=valleys")
    assert config.workload.settings.step_hint == 100  # another workload takes its own settings


def test_the_written_yaml_reads_back_as_the_same_configuration(tmp_path: Path):
    config = load("workload=hills", "optimizer=walk", "workload.widths=[1]", "budget.seconds=3")
    file = tmp_path / "config.yaml"
    file.write_text(configuration.to_yaml(config))
    assert load(f"preset={file}") == config


def test_flat_names_are_those_the_user_types():
    flat = configuration.flat(load("workload=hills", "optimizer=walk", "budget.steps=3"))
    assert flat["workload"] == "hills"
    assert flat["workload.widths"] == "[8, 4]"
    assert flat["optimizer.learning_rate"] == "0.1"
    assert flat["budget.steps"] == "3"


def test_the_digest_changes_with_what_is_run_and_not_with_where_it_is_recorded():
    base = ["workload=hills", "optimizer=walk"]
    digests = {
        configuration.digest(load(*base, *more))
        for more in (["seed=1"], ["seed=2"], ["budget.steps=7"], ["optimizer.learning_rate=1"])
    }
    assert len(digests) == 4
    here, there = load(*base), load(*base, "tracking.root=/elsewhere")
    assert configuration.digest(here) == configuration.digest(there)


BAD = {
    "optimizer=walk": r"workload=NAME is missing. Known: hills, valleys",
    "workload=hils optimizer=walk": r"unknown workload 'hils'; did you mean 'hills'\?",
    "workload=hills optimizer=run": r"unknown optimizer 'run'. Known: walk",
    "workload=hills optimizer=walk sede=1": r"unknown config key 'sede'; did you mean 'seed'\?",
    "workload=hills optimizer=walk budget.step=1": r"'budget.step'; did you mean 'budget.steps'\?",
    "workload=hills optimizer=walk optimizer.lr=1": r"'optimizer.lr'.*optimizer.learning_rate",
    "workload=hills optimizer=walk workload.width=[1]": r"did you mean 'workload.widths'",
    "workload=hills optimizer=walk seed=x": r"seed: expected a whole number, got 'x'",
    "workload=hills optimizer=walk seed=1.5": r"seed: expected a whole number, got '1.5'",
    "workload=hills optimizer=walk seed=true": r"seed: expected a whole number, got 'true'",
    "workload=hills optimizer=walk seed=-1": r"seed: expected .*, got -1",
    "workload=hills optimizer=walk workload.augment=1": r"workload.augment: expected true or false",
    "workload=hills optimizer=walk workload.widths=[3": r"workload.widths: expected a list",
    "workload=hills optimizer=walk workload.widths=[a]": r"workload.widths\[0\]: expected a whole",
    "workload=hills optimizer=walk budget.steps=-5": r"budget.steps: expected .* > 0, got -5",
    "workload=hills optimizer=walk budget.seconds=-5": r"budget.seconds: expected .* > 0, got -5",
    "workload=hills optimizer=walk budget.seconds=.inf": r"budget.seconds: expected finite",
    "workload=hills optimizer=walk budget.steps=1 budget.seconds=1": r"exactly one",
    "workload=hills optimizer=walk budget=5": r"budget: .* keys such as budget.steps, got '5'",
    "workload=hills optimizer=walk optimizer.learning_rate=0": (
        r"optimizer.learning_rate: expected a value > 0, got 0"
    ),
    "workload=hills optimizer=walk optimizer.momentum=1": r"optimizer.momentum: .*\[0, 1\), got 1",
    "workload=hills optimizer=walk stop.split=dev": r"stop.split: expected one of train,",
    "workload=hills optimizer=walk preset=nope": r"unknown preset 'nope'",
    "workload=hills optimizer=walk preset=nope.yaml": r"cannot read nope.yaml: No such file",
    "workload=hills optimizer=walk optimizer.learning_rate=.inf": r"finite value > 0, got inf",
    "workload=hills optimizer=walk stop.target=inf": r"stop.target: expected a finite number",
    "workload=hills optimizer=walk optimizer=run": r"optimizer: expected one .* 'walk' and 'run'",
    "workload=hills optimizer=walk seed=1 seed=2": r"seed: expected one value, got '1' and '2'",
    "workload=hills optimizer=walk budget=5 budget.steps=1": r"budget.steps: .*, got both",
    "workload=hills optimizer=walk budget.steps=1 budget=5": r"budget: .* keys below it, got both",
    "workload=hills optimizer=walk label.a=1": r"label: expected text, got keys",
    "workload.step_hint=1 optimizer=walk": r"workload=NAME is missing",
    "workload.name.x=1 optimizer=walk": r"workload.name: expected text, got keys",
    "a..b=1": r"expected key=value .*, got 'a..b=1'",
    "workload": r"expected key=value .*, got 'workload'",
    "=3": r"expected key=value",
    "workload=hills optimizer=walk seed=${nope}": r"seed: expected a whole number, got '\${nope}'",
    "workload=hills optimizer=walk seed=[1": r"seed: expected a whole number, got '\[1'",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_answered_in_one_line(words: str):
    with pytest.raises(ConfigError, match=BAD[words]) as raised:
        load(*words.split(" "))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [1\n", "\x00"])
def test_a_preset_that_is_no_mapping_is_refused(text: str, tmp_path: Path):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load(f"preset={file}")


def test_what_is_wrong_in_a_file_is_told_with_its_line(tmp_path: Path):
    file = tmp_path / "bad.yaml"
    for text, message in {
        "": r"bad\.yaml is empty: expected a mapping",
        "# only a comment\n": r"bad\.yaml is empty",
        "5": r"bad\.yaml: expected a mapping of keys to values, got '5'",
        "seed: 1\nlabel: a\nseed: 2\n": r"bad\.yaml, line 3: key 'seed' is given twice",
        "budget:\n  steps: 1\n  steps: 1\n": r"bad\.yaml, line 3: key 'steps' is given twice",
        "seed: 1\nbudget: {steps: 1\nlabel: a\n": r"bad\.yaml, line 3: not valid YAML: expected",
        "seed: 1\n\tlabel: a\n": r"bad\.yaml, line 2: not valid YAML: found character '\\t'",
        "seed: 1\nlabel: \x01\n": r"bad\.yaml, line 2: not valid YAML: character",
        "seed: 1\nlabel: &a x\nnote: *a\n": r"bad\.yaml, line 3: aliases such as \*a are not read",
        "seed: !!int 3\n": r"bad\.yaml, line 1: tags such as tag:yaml.org,2002:int are not read",
        "a: 1\n---\nb: 2\n": r"bad\.yaml, line 2: not valid YAML: but found another document",
        "[1]: 2\n": r"bad\.yaml, line 1: expected a text as key",
        f"label: {'[' * 50}": r"bad\.yaml, line 1: nested more than 20 levels deep",
        "seed: 1\nbudget:\n  steps: x\n": r"budget.steps: .* got 'x' \(.*bad\.yaml, line 3\)",
        "seed: 1\nsede: 2\n": r"bad\.yaml, line 2: unknown config key 'sede'; did you mean 'seed'",
        "preset: p\n": r"bad\.yaml, line 1: unknown config key 'preset'",
    }.items():
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load(f"preset={file}", "workload=hills", "optimizer=walk")
    file.write_bytes(b"seed: 1\nlabel: \xff\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml, line 2: expected UTF-8 text"):
        load(f"preset={file}")
    file.write_text("label: " + 300_000 * "x")
    with pytest.raises(ConfigError, match=r"expected at most 262144 bytes"):
        load(f"preset={file}")
    file.write_bytes("\N{BYTE ORDER MARK}label: ü\r\n".encode())
    assert load(f"preset={file}", "workload=hills", "optimizer=walk").label == "ü"


def test_a_budget_with_both_limits_is_told_without_a_broken_name():
    with pytest.raises(ConfigError, match=r"^budget: a budget is either budget.steps or"):
        load("workload=hills", "optimizer=walk", "budget.steps=1", "budget.seconds=1")


def test_all_unknown_keys_are_told_at_once():
    words = ["sede=1", "optimizer.lr=1", "workload.width=1", "budget.stesp=1", "qqq=1"]
    with pytest.raises(ConfigError) as raised:
        load("workload=hills", "optimizer=walk", *words)
    for near in ("'sede' (did you mean 'seed'?)", "'optimizer.lr' (did you mean 'optimizer.learn"):
        assert near in str(raised.value)
    for name in ("'workload.width'", "'budget.stesp'", "'qqq'"):
        assert name in str(raised.value)


NAMES = ["learning_rate", "b1", "b2", "eps", "weight_decay", "batch_size", "steps", "momentum"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr", "learning_rate"),
        ("optimizer.lr", "learning_rate"),
        ("rate", "learning_rate"),
        ("learning-rate", "learning_rate"),
        ("LearningRate", "learning_rate"),
        ("wd", "weight_decay"),
        ("decay", "weight_decay"),
        ("bs", "batch_size"),
        ("batchsize", "batch_size"),
        ("beta1", "b1"),
        ("beta2", "b2"),
        ("epsilon", "eps"),
        ("step", "steps"),
        ("momentm", "momentum"),
        ("mom", "momentum"),
        ("qqq", None),
        ("", None),
    ],
)
def test_the_name_that_was_meant(typed: str, meant: str | None):
    assert nearest(typed, NAMES) == meant
    assert nearest(typed, []) is None


def test_a_setting_at_the_top_is_found_where_it_belongs():
    for typed, meant in {"lr": "optimizer.learning_rate", "steps": "budget.steps"}.items():
        with pytest.raises(ConfigError, match=f"'{typed}'; did you mean '{meant}'"):
            load("workload=hills", "optimizer=walk", f"{typed}=1")


def test_a_preset_without_a_name_keeps_its_settings(tmp_path: Path):
    file = tmp_path / "p.yaml"
    file.write_text("optimizer: {learning_rate: 0.25}\nworkload: hills\n")
    config = load(f"preset={file}", "optimizer=walk")
    assert config.optimizer.settings.learning_rate == 0.25


def test_the_same_value_twice_is_no_contradiction():
    assert load("workload=hills", "optimizer=walk", "optimizer.name=walk", "seed=1", "seed=1")


def test_ranges():
    check(OptimizerSettings(0.5, 0.0), momentum="[0, 1)", learning_rate="(0, 0.5]")
    with pytest.raises(ValueError, match=r"learning_rate: expected a value in \(0, 0.4\], got 0.5"):
        check(OptimizerSettings(0.5), learning_rate="(0, 0.4]")
    with pytest.raises(ValueError, match="learning_rate"):
        OptimizerSettings(float("nan"))
