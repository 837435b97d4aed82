"""One executable for equal programs, JAX's cache on disk, and the record of both."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from timetrial.bench.doctor.command import compiled_text
from timetrial.framework.compilation import Source, compile_ahead, quiet_cache, without_cache
from timetrial.framework.compiled_files import (
    compiled_root,
    kind_of_machine,
    prune,
    size_of,
    use_compiled_files,
)

SHAPE = (jnp.zeros(3, jnp.float32),)


def constant(value: float):
    def add(x):
        return x + jnp.sin(x) * value

    return add


def test_equal_programs_share_one_executable_and_others_do_not():
    first = compile_ahead(constant(2.0), SHAPE, {})
    known = {first.key: first}
    second = compile_ahead(constant(2.0), SHAPE, known)
    assert second.function is first.function
    assert second.source is Source.SHARED
    assert compile_ahead(constant(3.0), SHAPE, known).function is not first.function
    assert compile_ahead(constant(2.0), (jnp.zeros(4),), known).function is not first.function


def test_one_number_in_a_large_constant_makes_another_program():
    weights = np.ones(100_000, np.float32)
    other = weights.copy()
    other[50_000] = 2
    large = [jnp.asarray(each) for each in (weights, other)]
    keys = [compile_ahead(lambda x, w=w: x.sum() + w * x[0], SHAPE, {}).key for w in large]
    assert keys[0] != keys[1]


def test_programs_that_use_different_arguments_of_one_shape_are_different():
    arguments = {"a": jnp.float32(1), "b": jnp.float32(2)}
    first = compile_ahead(lambda given: given["a"] + 1, (arguments,), {})
    second = compile_ahead(lambda given: given["b"] + 1, (arguments,), {first.key: first})
    assert float(first.function(arguments)) == 2
    assert float(second.function(arguments)) == 3


def test_programs_of_one_text_and_different_trees_are_different():
    first = compile_ahead(lambda pair: pair[0] * pair[1], ((jnp.ones(2), jnp.ones(2)),), {})
    tree = {"x": jnp.ones(2), "y": jnp.ones(2)}
    second = compile_ahead(lambda pair: pair["x"] * pair["y"], (tree,), {first.key: first})
    np.testing.assert_array_equal(second.function(tree), np.ones(2))


@pytest.fixture
def cache(tmp_path: Path):
    """A cache of its own, which keeps every program."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path / "cache"), 0.0), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield tmp_path / "cache"
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_an_executable_from_disk_says_so(cache: Path):
    sources = [compile_ahead(constant(5.0), SHAPE, {}).source for _ in range(2)]
    assert sources == [Source.COMPILED, Source.CACHE]


def test_without_the_cache_programs_are_compiled(cache: Path):
    compile_ahead(constant(6.0), SHAPE, {})
    with without_cache():
        assert compile_ahead(constant(6.0), SHAPE, {}).source is Source.COMPILED
    assert compile_ahead(constant(6.0), SHAPE, {}).source is Source.CACHE


def test_damaged_entries_are_compiled_and_written_again(cache: Path):
    compile_ahead(constant(7.0), SHAPE, {})
    for path in cache.glob("*-cache"):
        path.write_bytes(path.read_bytes()[:50])
    sources = [compile_ahead(constant(7.0), SHAPE, {}).source for _ in range(3)]
    assert sources == [Source.COMPILED, Source.COMPILED, Source.CACHE]


def test_a_cache_that_takes_nothing_is_no_error(cache: Path):
    cache.write_bytes(b"a file")
    found = compile_ahead(constant(8.0), SHAPE, {})
    assert found.source is Source.COMPILED
    np.testing.assert_array_equal(found.function(*SHAPE), np.zeros(3))


def test_other_warnings_pass():
    with pytest.warns(UserWarning, match="mine"), quiet_cache():
        warnings.warn("mine", stacklevel=1)


IMPORTS = """
import os, sys
from timetrial.framework.compiled_files import use_compiled_files
use_compiled_files(os.environ)
import jax.numpy as jnp
import numpy as np
from timetrial.framework.compilation import compile_ahead
def slow(x):
    for step in range(30):
        x = jnp.sin(x @ x) * step + jnp.tanh(x)
    return x
found = compile_ahead(slow, (jnp.ones((8, 8)),), {})
print(found.source, np.asarray(found.function(jnp.ones((8, 8)))).tobytes().hex())
"""


def environment_of(directory: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    shortest = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return {**kept, **shortest, "TIMETRIAL_COMPILED": str(directory), "JAX_PLATFORMS": "cpu"}


def test_processes_at_once_share_a_cache_and_compute_the_same(tmp_path: Path):
    command = [sys.executable, "-W", "error", "-c", IMPORTS]
    environment = environment_of(tmp_path / "compiled")

    def both() -> list[list[str]]:
        started = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        printed = [process.communicate()[0] for process in started]
        assert all(process.returncode == 0 for process in started)
        return [text.rsplit(" ", 1) for text in printed]

    first, second = both(), both()
    assert "compilation" in [source for source, _ in first]
    assert [source for source, _ in second] == ["cache on disk"] * 2
    assert len({numbers for _, numbers in first + second}) == 1
    assert size_of(tmp_path / "compiled")[0] > 0


def test_the_place_of_the_cache(tmp_path: Path):
    home = {"HOME": str(tmp_path)}
    assert compiled_root({"TIMETRIAL_COMPILED": "/a", "TIMETRIAL_CACHE": "/b"}) == Path("/a")
    both = {"TIMETRIAL_CACHE": "/b", "XDG_CACHE_HOME": "/c"}
    assert compiled_root({"TIMETRIAL_COMPILED": "", **both}) == Path("/b/compiled")
    assert compiled_root({"XDG_CACHE_HOME": "/c"}) == Path("/c/timetrial/compiled")
    assert compiled_root({"TIMETRIAL_COMPILED": "OFF", **both}) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        assert compiled_root(home) == tmp_path / ".cache/timetrial/compiled"


def test_jax_is_told_the_place_unless_the_user_has_told_it(tmp_path: Path):
    own = {"TIMETRIAL_COMPILED": str(tmp_path / "compiled")}
    found = dict(own)
    use_compiled_files(found)
    expected = str(tmp_path / "compiled" / kind_of_machine(own))
    assert found["JAX_COMPILATION_CACHE_DIR"] == expected
    assert not (tmp_path / "compiled").exists()
    for given in ("/elsewhere", "off"):
        found = {**own, "JAX_COMPILATION_CACHE_DIR": given}
        use_compiled_files(found)
        assert found == {**own, "JAX_COMPILATION_CACHE_DIR": given}
    for off in ({"TIMETRIAL_COMPILED": "off"}, {**own, "JAX_ENABLE_COMPILATION_CACHE": "false"}):
        found = dict(off)
        use_compiled_files(found)
        assert found == off


def test_a_process_takes_the_directory_of_its_own_cores_not_of_its_parent(tmp_path: Path):
    own = {"TIMETRIAL_COMPILED": str(tmp_path)}
    parent = {**own, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "0123456789ab")}
    use_compiled_files(parent)
    assert parent["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / kind_of_machine(own))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("timetrial.framework.compiled_files.usable_cores", lambda: frozenset({0}))
        one = kind_of_machine(own)
        patch.setattr("timetrial.framework.compiled_files.usable_cores", lambda: frozenset({0, 1}))
        assert kind_of_machine(own) != one


def test_without_a_place_there_is_no_cache(tmp_path: Path):
    file = tmp_path / "file"
    file.write_bytes(b"")
    found = {"TIMETRIAL_COMPILED": str(file / "below")}
    use_compiled_files(found)
    assert "JAX_COMPILATION_CACHE_DIR" not in found


def test_the_entries_used_longest_ago_are_removed_first(tmp_path: Path):
    for number in range(4):
        path = tmp_path / "machine" / f"entry{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 + number, 1000))
    prune(tmp_path, most_bytes=250)
    assert sorted(path.name for path in tmp_path.rglob("entry*")) == ["entry2", "entry3"]
    prune(tmp_path / "missing", most_bytes=0)


def test_the_doctor_names_the_directory_and_its_size(cache: Path):
    compile_ahead(constant(9.0), SHAPE, {})
    assert compiled_text(str(cache)).startswith(f"{cache}, 1 programs, ")
    assert compiled_text(None) == "not kept: every process compiles its programs"


def test_an_entry_that_does_not_fit_on_the_disk_leaves_nothing_behind(cache: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))  # Python ignores SIGXFSZ
    try:
        found = compile_ahead(constant(10.0), SHAPE, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found.source is Source.COMPILED
    assert not list(cache.glob("*-cache"))
    sources = [compile_ahead(constant(10.0), SHAPE, {}).source for _ in range(2)]
    assert sources == [Source.COMPILED, Source.CACHE]
