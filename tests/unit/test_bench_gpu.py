"""``python -m benchmarks.gpu``: the parts, their processes, and what is read from programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.profiler import ProfileData

from benchmarks.gpu import batches, cases, child, hardware, kernels, parts, run, table
from benchmarks.gpu.__main__ import main

ROOT = Path(__file__).parents[2]

MODULE = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%fused_computation (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %sine = f32[8]{0} sine(f32[8]{0} %p)
}

%body (b: (s32[], f32[8])) -> (s32[], f32[8]) {
  %b = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element((s32[], f32[8]{0}) %b), index=1
  %fusion.2 = f32[8]{0} fusion(f32[8]{0} %x), kind=kLoop, calls=%fused_computation
  ROOT %t = (s32[], f32[8]{0}) tuple(%i, %fusion.2)
}

%condition (c: (s32[], f32[8])) -> pred[] {
  %c = (s32[], f32[8]{0}) parameter(0)
  ROOT %lt = pred[] compare(s32[] %i, s32[] %n), direction=LT
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %fusion.1 = f32[8]{0} fusion(f32[8]{0} %x), kind=kLoop, calls=%fused_computation
  %conv = (f32[8]{0}, u8[0]{0}) custom-call(f32[8]{0} %fusion.1), custom_call_target="__cudnn"
  %loop = (s32[], /*index=1*/f32[8]{0}) while(%t), condition=%condition, body=%body
  ROOT %out = f32[8]{0} get-tuple-element((s32[], f32[8]{0}) %loop), index=1
}
"""

PROFILE = """
planes {
  name: "/device:GPU:0"
  event_metadata { key: 1 value { id: 1 name: "gemm" } }
  event_metadata { key: 2 value { id: 2 name: "loop_fusion" } }
  event_metadata { key: 3 value { id: 3 name: "MemcpyD2D" } }
  lines { name: "Stream #7(Compute)"
    events { metadata_id: 1 offset_ps: 0 duration_ps: 3000000000 }
    events { metadata_id: 2 offset_ps: 4000000000 duration_ps: 1000000000 }
    events { metadata_id: 1 offset_ps: 6000000000 duration_ps: 3000000000 } }
  lines { name: "Stream #8(MemcpyD2D)"
    events { metadata_id: 3 offset_ps: 1000000000 duration_ps: 2500000000 } }
  lines { name: "XLA Modules"
    events { metadata_id: 2 offset_ps: 0 duration_ps: 9000000000 } }
}
planes { name: "/host:CPU" lines { name: "Stream" } }
"""


def test_launched_instructions_are_counted_through_loops_but_not_inside_fusions():
    assert kernels.launches(MODULE) == {"fusion": 2, "custom-call": 1, "compare": 1}
    with pytest.raises(ValueError, match="ENTRY"):
        kernels.launches("HloModule nothing")


def test_launches_of_a_real_program():
    def two_products(x: jax.Array) -> jax.Array:
        return jnp.sin(x @ x) @ x

    found = kernels.launches(jax.jit(two_products).lower(jnp.ones((64, 64))).compile().as_text())
    assert sum(found.values()) >= 2
    assert not set(found) & (kernels.FREE | kernels.CONTROL)


def test_a_profile_gives_kernels_copies_and_busy_time_per_update():
    found = kernels.summary(ProfileData.from_text_proto(PROFILE), updates=2)
    assert found is not None
    assert (found["kernels"], found["copies"]) == (1.5, 0.5)
    assert found["busy_ms"] == pytest.approx((3.5 + 1 + 3) / 2)
    assert found["top"][0] == {"name": "gemm", "number": 1.0, "ms": pytest.approx(3.0)}
    assert kernels.summary(ProfileData.from_text_proto('planes { name: "/host:CPU" }'), 1) is None


@pytest.mark.parametrize("name", cases.CASES)
def test_synthetic_batches_have_the_shapes_of_the_workload_and_the_same_bits(name: str):
    case = cases.CASES[name]
    workload = case.workload("tf32", reduced=True)
    first, second = case.synthetic(workload), case.synthetic(workload)
    assert all(np.array_equal(first[key], second[key]) for key in first)
    with pytest.raises(ValueError, match="synthetic batch"):
        batches.check({**first, "y": first["y"][:-1]}, workload.batch_spec())


def test_packs_are_valid_graphs():
    case = cases.CASES["ogbg"]
    workload = case.workload("tf32", reduced=True)
    batch = {key: values[0] for key, values in case.synthetic(workload).items()}
    assert batch["n_node"].sum() == len(batch["nodes"])
    assert batch["n_edge"].sum() == len(batch["senders"])
    graph_of_node = np.repeat(np.arange(len(batch["n_node"])), batch["n_node"])
    graph_of_edge = np.repeat(np.arange(len(batch["n_edge"])), batch["n_edge"])
    for end in ("senders", "receivers"):
        assert np.array_equal(graph_of_node[batch[end]], graph_of_edge)
    assert batch["weight"][:-1].any(axis=1).all()
    assert not batch["weight"][-1].any()


def test_clicks_are_within_the_vocabulary_of_their_column():
    spec = cases.CASES["criteo1tb"].workload("tf32", reduced=True).batch_spec()
    ids = batches.clicks(spec, np.random.default_rng(0))["ids"]
    assert (ids >= 0).all()
    assert (ids < np.array(batches.VOCABULARIES)).all()
    assert ids[:, 0].max() > 2**20 > np.median(ids[:, 0])


def test_full_sizes_are_those_of_the_paper():
    sizes = {}
    for name, case in cases.CASES.items():
        workload = case.workload("bf16", reduced=False)
        params, _ = jax.eval_shape(workload.init, jax.random.key(0))
        sizes[name] = (
            sum(x.size for x in jax.tree.leaves(params)),
            workload.settings.batch_size,  # type: ignore[attr-defined]
        )
    assert sizes == {
        "imagenet_resnet": (25_557_032, 1024),
        "fastmri": (7_756_097, 32),
        "ogbg": (3_554_176, 512),
        "criteo1tb": (539_267_457, 262_144),
    }


def test_peaks():
    assert hardware.peak_tflops("NVIDIA H100 80GB HBM3", "tf32") == 494.7
    assert hardware.peak_tflops("NVIDIA A100-SXM4-80GB", "float32") == 19.5
    assert hardware.peak_tflops("cpu", "bf16") is None
    for peak in hardware.PEAKS.values():
        assert peak.float32 < peak.tf32 < peak.bf16 == pytest.approx(2 * peak.tf32, rel=0.01)


def test_the_plan_has_the_paper_s_comparison_first_and_everything_once():
    planned = parts.plan(dry=False)
    first = [tuple(part.arguments.values())[:3] for part in planned[:8]]
    assert {(name, optimizer) for name, optimizer, _ in first} == {
        (name, optimizer) for name in cases.CASES for optimizer in cases.OPTIMIZER_NAMES
    }
    assert {precision for *_, precision in first} == {"tf32"}
    assert {part.group for part in planned} == set(parts.GROUPS)
    labels = [part.label for part in planned]
    assert len(labels) == len(set(labels))
    assert all(part.arguments["updates"] >= 30 for part in planned if part.kind == "measure")
    assert set(parts.WORKLOADS) == set(cases.CASES)
    assert {part.kind for part in [parts.device(), *planned]} == set(child.KINDS)


def test_a_choice_of_the_plan():
    chosen = parts.plan(dry=True, groups=["tf32", "data"], only=["ogbg", "criteo1tb"])
    assert [part.label for part in chosen] == [
        *("tf32 ogbg adam tf32", "tf32 ogbg velo tf32", "tf32 criteo1tb adam tf32"),
        *("tf32 criteo1tb velo tf32", "data criteo1tb"),
    ]


def _outcomes(planned: list[parts.Part], folder: Path, seconds: float) -> list[run.Outcome]:
    found: list[run.Outcome] = []
    until = time.monotonic() + seconds
    run.run(planned, folder, dry=True, until=until, done=found.append)
    return found


def test_a_failing_part_ends_itself_only_and_what_does_not_fit_is_skipped(tmp_path: Path):
    wrong = parts.Part("tf32", "measure", {"name": "no such workload"}, 60)
    slow = parts.Part("data", "device", {}, 0.01)
    failed, late = _outcomes([wrong, slow], tmp_path, 120)
    assert (failed.status, late.status) == (run.FAILED, run.FAILED)
    assert "TypeError" in failed.reason
    assert "longer than" in late.reason
    cut = run.Child(parts.device(), tmp_path, 2, dry=True).finish(0.01)
    assert (cut.status, cut.result) == (run.UNFINISHED, None)
    (skipped,) = _outcomes([parts.device()], tmp_path, 1)
    assert (skipped.status, skipped.result) == (run.SKIPPED, None)


def test_the_next_process_gets_ready_while_one_measures(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    found: list[run.Outcome] = []
    until = time.monotonic() + 120
    run.run([parts.device()] * 2, tmp_path, dry=False, until=until, done=found.append)
    assert [one.status for one in found] == [run.OK, run.OK]
    assert [one.result["platform"] for one in found if one.result] == ["cpu", "cpu"]


def test_a_command_that_is_ended_keeps_its_results(tmp_path: Path):
    results = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry", "--json", str(results)]
    process = subprocess.Popen([*command, "--parts", "repeats"], cwd=ROOT)
    while not (results.exists() and json.loads(results.read_text())["parts"]):
        assert process.poll() is None
        time.sleep(0.1)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    (kept,) = json.loads(results.read_text())["parts"]
    assert (kept["label"], kept["status"]) == ("device", run.OK)


def test_without_a_gpu_the_command_says_what_to_do(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert main(["--json", str(tmp_path / "results.json")]) == 2
    assert "expected a GPU, got cpu; try: make gpu-dry" in capsys.readouterr().err


GEMM = {"name": "gemm", "number": 4.0, "ms": 2.0}


def _record(status: str = run.OK, **more: object) -> dict[str, object]:
    found = {
        "batch": 512,
        "step_ms": 10.0,
        "spread_ms": [9.0, 11.0],
        "tflops_per_second": 50.0,
        "examples_per_second": 51_200.0,
        "share_of_peak": 0.1,
        "memory": {"plan": 3 * 10**9},
        "peak_bytes": 4 * 10**9,
        "profile": {"kernels": 321.0, "busy_ms": 8.0, "top": [GEMM]},
        "launches": {"fusion": 300},
        "compile_seconds": 12.3,
        "digest": "a",
        **more,
    }
    (part, *_) = parts.plan(dry=False, groups=["tf32"], only=["ogbg"])
    return run.Outcome(part, status, 20.0, "" if status == run.OK else "why", found).record()


def test_the_table_shows_measurements_ratios_and_failures():
    adam, velo = _record(), _record(step_ms=12.5, profile=None)
    velo["part"]["arguments"]["optimizer"] = "velo"  # type: ignore[index]
    skipped = _record(run.SKIPPED)
    skipped["result"] = None
    text = table.markdown(
        {
            "date": "2026-01-01",
            "dry": False,
            "seconds": 9.0,
            "budget_seconds": 540.0,
            "device": {"kind": "NVIDIA H200"},
            "parts": [adam, velo, skipped],
        }
    )
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    (shown,) = (row for row in rows if row[1:4] == ["ogbg", "velo", "tf32"])
    assert shown[12:17] == ["~300", "-", "12.3", "1.25", "1.01"]
    (shown,) = (row for row in rows if row[1:4] == ["ogbg", "adam", "tf32"])
    assert shown[9:14] == ["10.0%", "3.00", "4.00", "321", "80%"]
    assert ["ogbg", "adam", "`gemm`", "4", "2.00", "25%"] in [row[1:-1] for row in rows]
    assert "skipped; why" in text


BLOCKER = """
from importlib.machinery import PathFinder

BLOCKED = set("{blocked}".split())
find = PathFinder.find_spec


def find_others(cls, name, path=None, target=None):
    return None if name in BLOCKED else find(name, path, target)


PathFinder.find_spec = classmethod(find_others)
"""

LACKING = (
    *("mlflow", "omegaconf", "pandas", "optuna", "tensorflow_datasets", "tensorflow", "grain"),
    *("array_record", "cv2", "simplejpeg", "isal", "h5py", "sqlalchemy", "pyarrow", "hypothesis"),
    *("xdist", "matplotlib", "jinja2", "safetensors", "timetrial.framework.yaml_files"),
)
"""Packages that a GPU machine may lack. Flax itself needs PyYAML, so the project's only module that
imports it is blocked instead."""


@pytest.fixture
def lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Processes started here lack these packages."""
    folder = tmp_path / "blocked"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKER.format(blocked=" ".join(LACKING)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT), str(ROOT / "tests")]))
    return tmp_path


def _output(*command: str, cwd: Path) -> str:
    made = subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=600
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout


def _dry(folder: Path, *options: str) -> list[dict[str, Any]]:
    results = folder / "results.json"
    command = ("-m", "benchmarks.gpu", "--dry", "--json", str(results), *options)
    assert "Every part ended well." in _output(*command, cwd=folder)
    found: list[dict[str, Any]] = json.loads(results.read_text())["parts"]
    return found


def test_it_runs_without_the_packages_that_a_gpu_machine_may_lack(lacking: Path):
    code = "import importlib.util as u; print(*map(u.find_spec, ['grain', 'mlflow']))"
    assert _output("-c", code, cwd=lacking).split() == ["None", "None"]
    device, data = _dry(lacking, "--only", "criteo1tb", "--parts", "data")
    assert device["result"]["platform"] == "cpu"
    assert data["result"]["pipeline"] == "plain threads"
    assert data["result"]["updates"] == parts.DRY_UPDATES


def test_the_tests_for_a_gpu_can_be_loaded_without_these_packages(
    lacking: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    options = ("-o", "addopts=", "-o", "filterwarnings=", "-p", "no:cacheprovider")
    listed = _output("-m", "pytest", *options, "--collect-only", "-q", "tests/gpu", cwd=ROOT)
    assert listed.count("::") == 4 * 2 + 4 + 3


@pytest.mark.slow
def test_all_parts_run_without_these_packages(lacking: Path):
    found = {part["label"]: part["result"] for part in _dry(lacking, "--only", "criteo1tb")}
    assert found["tests"]["passed"] == 6
    again = found["again criteo1tb adam tf32"]
    assert found["tf32 criteo1tb adam tf32"]["digest"] == again["digest"]
