"""Celo2 against trajectories of the reference implementation.

The files were computed with the numerics of celo2_optax.py (amoudgl/celo, MIT), in float32 on a
CPU, with random weights and given gradients. ``forced`` errors are of updates at the file's own
parameters, relative to the largest update of the tensor; ``free`` errors are of a run that follows
its own parameters, relative to the displacement of the tensor.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from timetrial.optimizers.celo2 import scale_by_celo2, tensor_averages
from timetrial.optimizers.celo2.network import SHAPES
from timetrial.optimizers.weights.files import load_celo2

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "celo2"
FILES = sorted(FIXTURES.glob("celo2_*.npz"))
QUICK = ("celo2_harness", "celo2_mix_base")
FORCED, FREE = 1e-5, 1e-5
FORCED_ORTHOGONAL, FREE_ORTHOGONAL = 2e-4, 3e-2
# Compiling takes most of the time; the numbers do not need the expensive passes.
OPTIONS = {"xla_llvm_disable_expensive_passes": True, "xla_backend_optimization_level": 0}
# A zero matrix whose only input is the parameters themselves feeds its own rounding back.
cases = pytest.mark.parametrize(
    "file",
    [pytest.param(f, id=f.stem, marks=[] if f.stem in QUICK else pytest.mark.slow) for f in FILES],
)


def theta_from_seed(seed: int) -> dict[str, Any]:
    """The weights of the files: normal numbers by name in string order, scaled by layer."""
    rng = np.random.RandomState(seed)
    scale = {"w0": 0.35, "w1": 0.5, "w2": 0.5}
    arrays = {
        name: (scale.get(name[:2], 0.3) * rng.standard_normal(SHAPES[name])).astype(np.float32)
        for name in sorted(SHAPES)
    }
    return {"ff_mod_stack": {"~": arrays}}


class Case:
    """One golden file."""

    def __init__(self, file: pathlib.Path) -> None:
        self.data = dict(np.load(file))
        self.meta = json.loads(self.data["meta_json"].tobytes())
        self.names = self.meta["names"]
        self.theta = theta_from_seed(self.meta["theta_seed"])

    def tree(self, kind: str, t: int) -> dict[str, Any]:
        return {n: jnp.asarray(self.data[f"{kind}/{n}"][t]) for n in self.names}

    def before(self, t: int) -> dict[str, Any]:
        """The file's parameters before step t."""
        if t > 0:
            return self.tree("params", t - 1)
        return {n: jnp.asarray(self.data[f"params0/{n}"]) for n in self.names}

    def transformation(self) -> optax.GradientTransformation:
        """The rule of the file, with the schedule and the decay that it was made with."""
        lr, decay = self.meta["lr"], self.meta["weight_decay"]
        scale = scale_by_celo2(self.theta, orthogonalize=self.meta["orthogonalize"])
        if self.meta["kind"] == "scale":
            return scale

        def rates(count: Any, factor: float = 1.0) -> Any:
            return factor * lr * jnp.minimum((count + 1) / 4, 1.0)

        chain = optax.chain(
            scale, optax.add_decayed_weights(decay), optax.scale_by_learning_rate(rates)
        )
        if self.meta["kind"] == "base_chain":
            return chain
        factor = self.meta["mult_1d"]
        adam = optax.adamw(lambda t: rates(t, factor), 0.9, 0.95, weight_decay=decay)
        labels = {
            n: "adam" if len(s) < 2 or "embed" in n else "celo2"
            for n, s in self.meta["shapes"].items()
        }
        return optax.multi_transform({"celo2": chain, "adam": adam}, labels)

    def apply(self, params: Any, updates: Any) -> Any:
        if self.meta["kind"] != "scale":
            return optax.apply_updates(params, updates)
        lr, decay = self.meta["lr"], self.meta["weight_decay"]
        return jax.tree.map(lambda p, u: p - lr * (u + decay * p), params, updates)


def test_all_files_are_here():
    assert len(FILES) == 7


@cases
def test_the_weights_are_those_of_the_file(file):
    case = Case(file)
    for name, array in case.theta["ff_mod_stack"]["~"].items():
        np.testing.assert_array_equal(array, case.data[f"theta/{name}"])


def test_the_container_holds_the_weights_of_its_seed():
    found = load_celo2(FIXTURES / "container_seed21.theta_state").meta_params
    expected = theta_from_seed(21)
    for name in SHAPES:
        one, two = (x["ff_mod_stack"]["~"][name] for x in (found, expected))
        np.testing.assert_array_equal(one, two)


@cases
def test_every_update_and_a_run_of_its_own(file):
    case = Case(file)
    tx = case.transformation()
    orthogonal = case.meta["orthogonalize"]
    forced, free = (FORCED_ORTHOGONAL, FREE_ORTHOGONAL) if orthogonal else (FORCED, FREE)
    update = jax.jit(tx.update, compiler_options=OPTIONS)
    params = case.before(0)
    state, own = tx.init(params), tx.init(params)
    for t in range(case.meta["T"]):
        grads = case.tree("grads", t)
        updates, state = update(grads, state, case.before(t))
        changes, own = update(grads, own, params)
        params = case.apply(params, changes)
        for n in case.names:
            stored = case.data[f"updates/{n}"][t]
            np.testing.assert_allclose(
                updates[n], stored, rtol=0, atol=forced * max(np.abs(stored).max(), 1e-12)
            )
            stored = case.data[f"params/{n}"]
            moved = np.abs(stored - case.data[f"params0/{n}"]).max()
            rounding = 4 * np.spacing(np.abs(stored[t]).max())
            np.testing.assert_allclose(
                params[n], stored[t], rtol=0, atol=free * moved + rounding, err_msg=f"{n}, {t}"
            )
    if case.meta["kind"] == "scale":
        compare_averages(case, state, params)


def compare_averages(case: Case, state: Any, params: Any) -> None:
    averages = tensor_averages(state, params)
    names = {
        "momentum": "m", "second": "rms", "row": "v_row", "column": "v_col", "diagonal": "v_diag"
    }  # fmt: skip
    for n in case.names:
        assert set(averages[n]) == {
            ours for ours, theirs in names.items() if f"final_{theirs}/{n}" in case.data
        }
        for ours, found in averages[n].items():
            stored = case.data[f"final_{names[ours]}/{n}"]
            found = found[..., None] if ours == "second" else found
            np.testing.assert_allclose(
                found, stored, rtol=1e-5, atol=1e-6 * np.abs(stored).max(), err_msg=f"{n} {ours}"
            )
