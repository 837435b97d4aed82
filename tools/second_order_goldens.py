"""Golden numbers of SOAP and Distributed Shampoo from the code of others, for tests/fixtures.

    git clone https://github.com/haydn-jones/SOAP_JAX
    git clone https://github.com/mlcommons/algorithmic-efficiency
    pip install chex jaxtyping flax
    python -O tools/second_order_goldens.py SOAP_JAX/src/soap_jax/soap.py \
        algorithmic-efficiency/algorithms/archived_paper_baselines/shampoo/jax/distributed_shampoo.py

``-O``: an assertion in that version of Shampoo compares a number with a tuple and always fails.
Boundary: runs both files as they are and writes one .npz; imports nothing of Timetrial.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np

OUT: Final = Path(__file__).parents[1] / "tests" / "fixtures" / "second_order" / "updates.npz"
STEPS: Final = 12
SHAPES: Final = {"matrix": (6, 4), "kernel": (3, 3, 2, 4), "tall": (40, 3), "scalar": ()}
SOAP_SHAPES: Final = {**SHAPES, "matrix": (5, 5)}
"""Every preconditioner has full rank from the first gradient on. Otherwise the basis of its null
space, and with it the second update, is a matter of the machine's LAPACK."""
VECTORS: Final = {"vector": (7,), "one": (1, 1), "large": (20, 10)}

STALE: Final = "state.exp_avg_sq,\n                state.Q,\n            ),\n        )\n"
"""Where soap_jax returns the second moment before the update."""

SHAMPOO: Final = {
    "blocks": {"block_size": 8, "merge_small_dims_block_size": 12, "weight_decay": 0.1},
    "merged": {"block_size": 128, "merge_small_dims_block_size": 4096},
    "submitted": {"skip_preconditioning_dim_size_gt": 0, "weight_decay": 0.1},
}


def gradients(step: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Gradients of an update, from 0; step 1000 are the parameters."""
    random = np.random.default_rng(step)
    return {
        name: random.normal(size=shape).astype(np.float32)
        * (np.arange(1, shape[-1] + 1, dtype=np.float32) if shape else 1)
        for name, shape in shapes.items()
    }


def loaded(path: str, source: str) -> Any:
    """A module from its source text."""
    module = types.ModuleType(Path(path).stem)
    sys.modules[module.__name__] = module
    exec(compile(source, path, "exec"), module.__dict__)
    return module


def updates(tx: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The updates of all steps by name of the tensor, of shape ``(STEPS, ...)``."""
    params = gradients(1000, shapes)
    state, update = tx.init(params), jax.jit(tx.update)
    found = []
    for step in range(STEPS):
        made, state = update(gradients(step, shapes), state, params)
        found.append(made)
    return {name: np.stack([np.asarray(u[name], np.float32) for u in found]) for name in shapes}


def main() -> None:
    """Writes ``OUT``."""
    soap_file, shampoo_file = sys.argv[1:]
    source = Path(soap_file).read_text(encoding="utf-8")
    if source.count(STALE) != 1:
        raise SystemExit(f"{soap_file}: expected the text {STALE!r} once")
    as_is = loaded(soap_file, source)
    kept = loaded(soap_file, source.replace(STALE, STALE.replace("state.exp", "exp", 1)))
    found: dict[str, np.ndarray] = {}
    for name, module, frequency in (("as_is", as_is, 1), ("kept", kept, 3), ("stale", as_is, 3)):
        tx = module.scale_by_soap(precondition_frequency=frequency, max_precond_dim=20)
        made = updates(tx, SOAP_SHAPES)
        found |= {f"soap_{name}/{key}": value for key, value in made.items()}
    jax.config.update("jax_enable_x64", True)  # inverse roots in float64
    shampoo = loaded(shampoo_file, Path(shampoo_file).read_text(encoding="utf-8"))
    for name, settings in SHAMPOO.items():
        common = {"skip_preconditioning_dim_size_gt": 4096, "matrix_epsilon": 1e-3, "beta2": 0.99}
        common |= {"start_preconditioning_step": 5, "preconditioning_compute_steps": 3}
        tx = shampoo.distributed_shampoo(1.0, **{**common, **settings}, eigh=False)
        made = updates(tx, SHAPES | VECTORS)
        found |= {f"shampoo_{name}/{key}": value for key, value in made.items()}
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(OUT, **found)


if __name__ == "__main__":
    main()
