"""The loss and the gradient of an untrained model on one training batch, beside what is expected.

Boundary: takes any workload; the expected ranges are those of AlgoPerf's public baseline runs.

No other check covers the whole path from raw files to the model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Final

import jax
import optax

from timetrial.framework.workload import Workload
from timetrial.workloads.data.checks import Finding

Range = tuple[float, float]

CHECK: Final = "untrained"
"""Name of the check."""


@dataclasses.dataclass(frozen=True)
class Expected:
    """Ranges of an untrained model.

    Attributes:
        loss: mean training loss of the first batch.
        norm: norm of its gradient.
    """

    loss: Range
    norm: Range


EXPECTED: Final[Mapping[str, Expected]] = {
    "criteo1tb": Expected(loss=(0.1, 2.1), norm=(1.5, 26)),
    "fastmri": Expected(loss=(0.5, 1.4), norm=(2.5, 10)),
    "imagenet_resnet": Expected(loss=(6.88, 6.97), norm=(0.33, 1.3)),
    "ogbg": Expected(loss=(0.63, 0.87), norm=(0.9, 5.3)),
}
"""Ranges around the means at step 0 of 120 public baseline runs of AlgoPerf (MLCommons,
"Algorithmic Efficiency", 2023, https://github.com/mlcommons/algorithmic-efficiency): loss 0.824,
0.938, 6.925, 0.743; norm 6.5, 5.16, 0.665, 2.62 (1.89 with dropout 0.1). Losses have four standard
deviations over seeds to each side, or the extremes seen and some more (criteo1tb draws its last
bias, so its loss varies). Norms have a factor of 2, or 4 for criteo1tb."""


def untrained(workload: Workload, seed: int = 0) -> tuple[float, float]:
    """Loss and norm of its gradient, of a freshly initialised model on the first training batch.

    Args:
        workload: the workload.
        seed: seed of the model and of the batch.
    """
    key = jax.random.key(seed)
    params, model_state = jax.jit(workload.init)(key)
    batch = workload.train_batch(seed, 0)
    value_and_grad = jax.jit(jax.value_and_grad(workload.loss, has_aux=True))
    (loss, _), gradient = value_and_grad(params, model_state, batch, key)
    return float(loss), float(optax.tree.norm(gradient))


def judged(name: str, loss: float, norm: float) -> Finding:
    """Compares loss and norm with what is expected of a workload."""
    expected = EXPECTED.get(name)
    text = f"loss {loss:.4g}, gradient norm {norm:.4g}"
    if expected is None:
        known = math.isfinite(loss) and math.isfinite(norm)
        return Finding(CHECK, known, f"{text}; nothing known to compare with")
    low, high = expected.loss
    least, most = expected.norm
    passed = low <= loss <= high and least <= norm <= most
    wanted = f"expected loss {low:g} to {high:g}, norm {least:g} to {most:g}"
    return Finding(CHECK, passed, f"{text}; {wanted}")
