"""Celo and Celo-Adam against trajectories of the reference implementation.

The files hold the published weights and are not part of this repository: ``TIMETRIAL_GOLDEN`` names
a directory with ``celo*.npz``. Without it, ``tests/unit/test_celo_transform.py`` compares with an
independent implementation. Errors are relative to the movement of a tensor over the run.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from timetrial.optimizers.celo import celo, celo_adam
from timetrial.optimizers.weights import trees

DIRECTORY = os.environ.get("TIMETRIAL_GOLDEN")
RULES = {"celo": celo, "celo_adam": celo_adam}
CASES = ("celo_mix_n12", "celo_stress_n5000", "celo_adam_mix_n12", "celo_adam_stress_n5000")


def meta_params(kind: str) -> dict[str, Any]:
    """The weights of a rule, from its file that holds them."""
    data = np.load(pathlib.Path(DIRECTORY or "") / f"{kind}_mix_n12.npz")
    flat = {}
    for key in data.files:
        if key.startswith("theta/"):
            path = key.removeprefix("theta/").replace("rnn/linear", "rnn|linear").split("/")
            flat[tuple(part.replace("|", "/") for part in path)] = data[key]
    return trees.nest(flat)


@pytest.mark.skipif(not DIRECTORY, reason="expected TIMETRIAL_GOLDEN=DIR with the files")
@pytest.mark.parametrize("case", CASES)
def test_trajectories(case: str) -> None:
    data = dict(np.load(pathlib.Path(DIRECTORY or "") / f"{case}.npz"))
    meta = json.loads(data["meta_json"].tobytes())
    names = meta["names"]
    tx = RULES[meta["kind"]](meta["num_steps"], meta_params=meta_params(meta["kind"]))
    params = {n: jnp.asarray(data[f"params0/{n}"]) for n in names}
    with jax.default_matmul_precision("highest"):
        state, update = tx.init(params), jax.jit(tx.update)
        for t in range(meta["T"]):
            grads = {n: data[f"grads/{n}"][t] for n in names}
            updates, state = update(grads, state, params, value=data["loss"][t])
            params = optax.apply_updates(params, updates)
            for n in names:
                run = data[f"params/{n}"]
                moved = np.abs(run - data[f"params0/{n}"]).max()
                ulp = np.spacing(np.abs(run[t]))
                worst = np.maximum(np.abs(np.asarray(params[n]) - run[t]) - 2 * ulp, 0).max()
                assert worst <= 2e-5 * moved, (n, t, worst / moved)
    np.testing.assert_allclose(
        state.scheduler.hidden[0], data["final_lstm_hidden"][0], rtol=1e-3, atol=1e-5
    )
