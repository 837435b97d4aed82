"""What docs/determinism.md promises about repeats: the mini workloads in processes of their own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [
    pytest.mark.slow,  # compiles the four mini workloads in three processes
    pytest.mark.skipif(
        not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
        reason="needs two cores, and a system that assigns them",
    ),
]

TESTS = Path(__file__).parents[1]
WORKLOADS = ("fashion_mnist_resnet", "icbm_unet", "assays_gnn", "flights_dlrm")
UPDATES = 20
UPDATE, EVALUATION = 2e-6, 2.5e-4
"""Relative bounds of losses and gradient norms, and of metrics: ten times what was measured."""


@functools.cache
def trained(cores: int, process: int) -> Mapping[str, Any]:
    """Every recorded number of a training on the first cores, in a process of its own."""
    chosen = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))
    environment = {
        # a compiled program depends on the cores of the process that compiled it
        **{k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"},
        "PYTHONPATH": f"{TESTS.parent}:{TESTS}",
        "JAX_PLATFORMS": "cpu",
    }
    code = f"import os; os.sched_setaffinity(0, {{{chosen}}}); import runpy, sys; "
    code += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    program = str(TESTS / "repeated.py")
    done = subprocess.run(
        [sys.executable, "-c", code, program, str(UPDATES), *WORKLOADS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["cores"] == cores, process
    found: Mapping[str, Any] = told["found"]
    return found


def numbers(found: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Losses, gradient norms and evaluated metrics, by name."""
    updates = np.array(found["updates"])
    yield "loss", updates[:, 0]
    yield "gradient norm", updates[:, 1]
    for name, value in found["evaluation"].items():
        yield name, np.array([value])


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_same_cores_give_the_same_bits_in_another_process(name: str):
    first, second = trained(2, 0)[name], trained(2, 1)[name]
    assert len(first["updates"]) == UPDATES
    assert first == second  # JSON keeps every bit of a float; the state is compared by its digest


@pytest.mark.parametrize("name", WORKLOADS)
def test_another_number_of_cores_gives_the_same_numbers_to_float_error(name: str):
    one, two = dict(numbers(trained(1, 0)[name])), dict(numbers(trained(2, 0)[name]))
    assert one.keys() == two.keys()
    for what, value in one.items():
        bound = UPDATE if what in ("loss", "gradient norm") else EVALUATION
        np.testing.assert_allclose(two[what], value, rtol=bound, err_msg=what)
