"""Settings from the signature of a function, and files named by a user."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import optax
import pytest

from timetrial.bench import completion
from timetrial.framework.config import hints
from timetrial.framework.convert import convert
from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.errors import ConfigError, UserError
from timetrial.framework.plugins import entry_of
from timetrial.framework.registry import PluginError, Registry
from timetrial.framework.source import run_file, shown_name

if TYPE_CHECKING:
    from decimal import Decimal

HORIZON = Horizon(step_hint=70, steps=50)
seen: dict[str, Any] = {}


def entry(function: Any) -> OptimizerEntry:
    return entry_of(function, OptimizerEntry)


def made(function: Any, **typed: Any) -> dict[str, Any]:
    """What the function is given, from settings as typed."""
    seen.clear()
    found = entry(function)
    found.make(convert(typed, found.settings, "optimizer"), HORIZON)
    return dict(seen)


def keep(**given: Any) -> optax.GradientTransformation:
    seen.update(given)
    return optax.sgd(0.1)


def unannotated(lr, b1=0.9, warmup=10, nesterov=False, kind="cosine", betas=(0.9, 1), decay=None):
    return keep(lr=lr, b1=b1, warmup=warmup, nesterov=nesterov, kind=kind, betas=betas, decay=decay)


def annotated(
    lr: optax.ScalarOrSchedule,
    momentum: float = 1,
    depth: int | None = None,
    kind: Literal["a", "b"] = "a",
    sizes: Sequence[int] = [1, 2],
    decay: jax.typing.ArrayLike = 0,
    mask: Callable[[Any], Any] | None = None,
    dtype: Any = jnp.float32,
) -> optax.GradientTransformation:
    return keep(lr=lr, momentum=momentum, depth=depth, kind=kind, sizes=sizes, decay=decay,
                mask=mask, dtype=dtype)  # fmt: skip


def test_types_come_from_annotations_else_from_defaults():
    assert hints(entry(unannotated).settings) == {
        "lr": float | bool | str,
        "b1": float,
        "warmup": int,
        "nesterov": bool,
        "kind": str,
        "betas": tuple[float, ...],
        "decay": float | bool | str | None,
    }
    assert hints(entry(annotated).settings) == {
        "lr": float,
        "momentum": float,
        "depth": int | None,
        "kind": Literal["a", "b"],
        "sizes": tuple[int, ...],
        "decay": float,
    }


def test_values_as_typed_reach_the_function():
    typed = {"lr": "1e-3", "nesterov": "true", "betas": "[0.5, 0.6]", "decay": "0.1"}
    assert made(unannotated, **typed) == {
        "lr": 1e-3, "b1": 0.9, "warmup": 10, "nesterov": True, "kind": "cosine",
        "betas": (0.5, 0.6), "decay": 0.1,
    }  # fmt: skip
    given = made(annotated, lr="3", depth="2", sizes="4,5")
    assert given == {
        "lr": 3.0, "momentum": 1.0, "depth": 2, "kind": "a", "sizes": (4, 5), "decay": 0.0,
        "mask": None, "dtype": jnp.float32,
    }  # fmt: skip
    assert isinstance(given["momentum"], float)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({}, r"optimizer\.lr: expected a value, as it has no default"),
        ({"lr": "x"}, r"optimizer\.lr: expected a number, got 'x'"),
        ({"lr": "1", "momentun": "1"}, "did you mean 'optimizer.momentum'"),
        ({"lr": "1", "kind": "c"}, "expected one of a, b"),
        ({"lr": "1", "mask": "c"}, "unknown config key 'optimizer.mask'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(typed: dict[str, str], message: str):
    with pytest.raises(ConfigError, match=message):
        made(annotated, **typed)


def test_the_race_fills_in_what_only_it_knows():
    def every(horizon, step_hint, *, steps, num_steps=None, lr=1.0):
        return keep(horizon=horizon, step_hint=step_hint, steps=steps, num_steps=num_steps)

    def none(lr=1.0, steps=5):
        return keep(steps=steps)

    assert made(every) == {"horizon": HORIZON, "step_hint": 70, "steps": 50, "num_steps": 50}
    assert entry(every).needs_steps
    assert list(hints(entry(every).settings)) == ["lr"]
    assert not entry(none).needs_steps
    assert made(none, steps="7") == {"steps": 7}


def test_optax_optimizers_are_raced_by_their_own_names():
    registry = Registry("optimizer", OptimizerEntry, {})
    lion = registry["optax:lion"]
    settings = convert({"learning_rate": "1e-3", "b1": "0"}, lion.settings, "optimizer")
    assert (settings.b1, settings.b2) == (0.0, 0.99)
    assert isinstance(lion.make(settings, HORIZON), optax.GradientTransformation)
    assert registry["optax.contrib:prodigy"].settings().learning_rate == 1.0


def test_what_is_no_optimizer_is_refused_with_its_type():
    def returns_text(lr):
        return "adam"

    def needs_a_function(mask: Callable[[Any], Any]):
        return keep(mask=mask)

    def takes_a_name(name, lr=1):
        return keep()

    def hidden(lr: Decimal = 0.5):  # type: ignore[assignment]
        return keep(lr=lr)

    def entry_of_a_rate(lr):
        return entry(unannotated)

    with pytest.raises(UserError, match=r"expected .*returns_text to return .*, got str"):
        made(returns_text, lr="1")
    with pytest.raises(UserError, match="without arguments"):
        made(entry_of_a_rate, lr="1")
    with pytest.raises(TypeError, match="parameter mask: expected a number, text"):
        entry(needs_a_function)
    with pytest.raises(TypeError, match=r"as optimizer\.name is taken"):
        entry(takes_a_name)
    assert made(hidden, lr="2") == {"lr": 2.0}


def registry_of(path: Path, code: str) -> tuple[Registry[OptimizerEntry], str]:
    path.write_text(code)
    return Registry("optimizer", OptimizerEntry, {}), f"{path}:make"


ERRORS = {
    "import optax\n\nimport no_such_package\n": r"'no_such_package' \(mine\.py, line 3\)",
    "def make(:\n": r"SyntaxError: .*\(mine\.py, line 1\)$",
    "import sys\nsys.exit(3)\n": r"SystemExit: 3 \(mine\.py, line 2\)",
    "def mak(lr):\n    pass\n": "unknown function 'make'; did you mean 'mak'",
    "def make():\n    return 3\n": "expected it to return an OptimizerEntry, got int",
    "make = 3\n": "returns an optax transformation; got int",
}


@pytest.mark.parametrize("code", ERRORS)
def test_errors_name_the_line_of_the_file(code: str, tmp_path: Path):
    registry, name = registry_of(tmp_path / "mine.py", code)
    assert name in registry
    before = set(sys.modules)
    with pytest.raises(PluginError, match=ERRORS[code]) as raised:
        registry[name]
    assert "\n" not in str(raised.value)
    assert not {new for new in set(sys.modules) - before if "mine" in new and "SyntaxError" in code}


def test_an_error_of_the_function_itself_names_its_line(tmp_path: Path):
    code = "import optax\n\n\ndef make(lr):\n    raise KeyError(lr)\n"
    registry, name = registry_of(tmp_path / "mine.py", code)
    with pytest.raises(UserError, match=r"make raised KeyError: 0.5 \(mine\.py, line 5\)"):
        registry[name].make(registry[name].settings(lr=0.5), HORIZON)


@pytest.mark.parametrize("name", ["mine.py", "./mine.py", "~/mine.py"])
def test_a_file_without_a_function_is_told_what_to_write(name: str):
    with pytest.raises(PluginError, match=r"expected .*mine\.py:make, with the name"):
        Registry("optimizer", OptimizerEntry, {})[name]


def test_missing_files_and_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    registry = Registry("optimizer", OptimizerEntry, {})
    with pytest.raises(PluginError, match=r"cannot read nowhere/x\.py: No such file"):
        registry["nowhere/x.py:make"]
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.py").write_text(
        "import optax\n\n\ndef make(lr=1.0):\n    return optax.sgd(lr)\n"
    )
    assert registry["~/x.py:make"].settings().lr == 1.0
    assert not registry.is_installed("~/y.py:make")


def test_the_content_of_the_file_is_in_its_settings(tmp_path: Path):
    code = "import optax\n\n\ndef make(lr=1.0):\n    return optax.sgd(lr)\n"
    first, name = registry_of(tmp_path / "mine.py", code)
    again, _ = registry_of(tmp_path / "mine.py", code)
    assert first[name].settings().file_sha256 == again[name].settings().file_sha256
    edited, _ = registry_of(tmp_path / "mine.py", code + "# another\n")
    digest = edited[name].settings().file_sha256
    assert digest != first[name].settings().file_sha256
    assert edited[name].variant(edited[name].settings()) == digest[:8]
    with pytest.raises(
        ConfigError, match=r"optimizer\.file_sha256: expected 0123, but .* here has"
    ):
        convert({"file_sha256": "0123"}, edited[name].settings, "optimizer")
    assert shown_name(name) == "mine.py:make"


ENTRY = '''
import dataclasses
import optax
from beside import RATE
from timetrial import OptimizerEntry

@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings.

    Attributes:
        rate: Learning rate.
    """
    momentum: float
    rate: float = RATE

    def __post_init__(self):
        if self.rate <= 0:
            raise ValueError(f"rate: expected a number > 0, got {self.rate}")

def build(settings: Settings, horizon):
    return optax.sgd(settings.rate, settings.momentum)

make = OptimizerEntry("Mine", Settings, build, variant=lambda settings: "own")

def factory():
    return make
'''


@pytest.mark.parametrize("name", ["make", "factory", "build"])
def test_entries_and_factories_in_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "beside.py").write_text("RATE = 0.25\n")
    registry, made = registry_of(tmp_path / "mine.py", ENTRY)
    found = registry[made.replace(":make", f":{name}")]
    settings = convert({"momentum": "0.5"}, found.settings, "optimizer")
    assert (settings.rate, len(settings.file_sha256)) == (0.25, 64)
    assert found.variant(settings).endswith(settings.file_sha256[:8])
    tx = found.make(settings, HORIZON)
    assert isinstance(tx, optax.GradientTransformation)
    with pytest.raises(ConfigError, match=r"optimizer\.rate: expected a number > 0"):
        convert({"momentum": "0", "rate": "0"}, found.settings, "optimizer")
    monkeypatch.delitem(sys.modules, "beside")


def test_a_file_is_run_once_and_only_when_it_is_named(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text("import optax\nCOUNT = []\n\n\ndef make(lr=1.0):\n    return optax.sgd(lr)\n")
    registry = Registry("optimizer", OptimizerEntry, {})
    assert f"{path}:make" in registry
    assert not registry.is_installed(f"{path}:make")
    assert run_file(str(path)).module is run_file(str(path)).module
    assert list(tmp_path.iterdir()) == [path]  # no bytecode beside it


def test_settings_of_a_file_are_completed_without_running_it(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(
        "1 / 0\n\ndef make(lr, steps, *, b1=0.9):\n    pass\n" + ENTRY.replace("make", "it")
    )
    text = "optimizer= seed="

    def words(target: str) -> list[str]:
        return completion.words(text, [f"optimizer={path}:{target}"], "optimizer.")

    assert words("make") == ["seed=", "optimizer.lr=", "optimizer.b1="]
    assert words("it") == words("build") == ["seed=", "optimizer.momentum=", "optimizer.rate="]
    assert words("gone") == completion.words(text, ["optimizer=/x.py:make"], "") == ["seed="]
