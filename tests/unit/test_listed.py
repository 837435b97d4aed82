"""What lists declare of built-in entries is what the entries say, and lists load no JAX."""

from __future__ import annotations

import subprocess
import sys

import pytest

from timetrial.bench.completion import SECTIONS
from timetrial.bench.listing import role_counts
from timetrial.bench.obstacles import has_accelerator
from timetrial.framework.entries import OptimizerEntry, available
from timetrial.framework.listed import BuiltIn, Listed, listed_entry
from timetrial.optimizers import OPTIMIZERS
from timetrial.workloads import WORKLOADS

DECLARED = [
    pytest.param(entries, name, id=name)
    for registry in (OPTIMIZERS, WORKLOADS)
    for entries in (registry.built_in, registry.adapters)
    for name in entries
]
HEAVY = ("jax", "jaxlib", "flax", "optax", "mlflow", "optuna", "numpy", "pandas", "sqlalchemy")
LIGHT = [
    ["--help"],
    ["list"],
    *(["list", section] for section in SECTIONS),
    ["completion", "bash"],
]


@pytest.mark.parametrize(("entries", "name"), DECLARED)
def test_what_lists_declare_is_what_the_entry_says(entries: BuiltIn, name: str):
    declared, entry = entries.listed(name), entries[name]
    assert declared.place
    assert entries.listed(name) is declared, "lists must not change when an entry is loaded"
    assert declared.line == entry.line
    own = entry.unavailable
    assert getattr(declared.unavailable, "func", declared.unavailable) is getattr(own, "func", own)
    assert getattr(declared.unavailable, "args", ()) == getattr(own, "args", ())
    if name in WORKLOADS:
        assert declared.roles == role_counts(entry)


def test_an_entry_is_imported_once_and_can_be_replaced():
    entries: BuiltIn[OptimizerEntry] = BuiltIn(
        "timetrial.optimizers", {"a": Listed("lion:LION", "Lion"), "b": Listed("lion:NONE", "b")}
    )
    assert list(entries) == ["a", "b"]
    assert "b" in entries
    assert entries["a"] is entries["a"] is OPTIMIZERS["lion"]
    assert entries.listed("a") == Listed("lion:LION", "Lion", available)
    with pytest.raises(AttributeError):
        entries["b"]
    own, entries["a"] = entries["a"], OPTIMIZERS["adam"]
    assert entries.listed("a") == listed_entry(OPTIMIZERS["adam"])
    entries["a"] = own
    assert entries.listed("a").place == "lion:LION"
    entries["b"] = OPTIMIZERS["adam"]
    assert entries.listed("b") == listed_entry(OPTIMIZERS["adam"])
    del entries["a"]
    assert "a" not in entries
    with pytest.raises(KeyError):
        entries.listed("a")


def test_commands_that_answer_at_once_load_no_jax():
    """All in one process, which is what loads most."""
    program = (
        "import sys\n"
        "from timetrial.bench import cli\n"
        f"for words in {LIGHT!r}:\n"
        "    try:\n"
        "        cli.main(words)\n"
        "    except SystemExit as stopped:\n"
        "        assert not stopped.code, words\n"
        f"    loaded = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "    assert not loaded, (words, loaded)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "nadamw" in done.stdout


def test_a_gpu_is_looked_for_only_where_jax_has_a_plug_in(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("jax.default_backend", lambda: asked.append(1) or "gpu")
    for name in ("JAX_PLATFORMS", "PJRT_NAMES_AND_LIBRARY_PATHS", "TPU_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("timetrial.bench.obstacles.declared_points", lambda group: iter(()))
    assert not has_accelerator()
    assert not asked
    monkeypatch.setattr("timetrial.bench.obstacles.declared_points", lambda group: iter([group]))
    assert has_accelerator()
    assert asked
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not has_accelerator()
