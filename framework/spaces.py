"""Search spaces for tuning, beside the optimizers they belong to, as plain data.

Boundary: data and its own consistency; what a key means to a run, ``bench.tune`` decides.

A key names a setting of the optimizer. ``one_minus_b1`` is ``1 - b1``: what decays towards 1 is
searched on the scale on which it acts. ``workload.dropout_rate`` is a setting of the workload; such
keys are searched only where they are asked for, since they change what is trained, and only on
workloads that have them. A single choice is a setting that the space fixes.

Spaces of NAdamW, AdamW (``adam`` with weight decay), heavy ball and Nesterov momentum are those of
AlgoPerf's baselines: Dahl et al., "Benchmarking Neural Network Training Algorithms", 2023,
https://arxiv.org/abs/2306.07179, and the ``tuning_search_space.json`` beside them in
https://github.com/mlcommons/algorithmic-efficiency. The others are our own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Range:
    """Real numbers between two bounds.

    Attributes:
        low, high: the bounds, low < high.
        scale: ``log`` (uniform in the logarithm) or ``linear``.
    """

    low: float
    high: float
    scale: str = "log"

    def __post_init__(self) -> None:
        if self.scale not in ("log", "linear"):
            raise ValueError(f"scale: expected log or linear, got {self.scale!r}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"expected finite bounds with low < high, got low={self.low}, high={self.high}"
            )
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"expected low > 0 on a log scale, got low={self.low}")

    def at(self, share: float) -> float:
        """The value at a share of the way, in [0, 1], from ``low`` to ``high``."""
        if self.scale == "linear":
            value = self.low + share * (self.high - self.low)
        else:
            value = self.low * math.exp(share * math.log(self.high / self.low))
        return min(max(value, self.low), self.high)  # rounding must not leave the range


@dataclasses.dataclass(frozen=True)
class OneOf:
    """A few values, all equally likely.

    Attributes:
        choices: different ones, at least one.
    """

    choices: tuple[float | int | str | bool, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("expected at least one choice, got none")
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"expected different choices, got {list(self.choices)}")

    def at(self, share: float) -> float | int | str | bool:
        """The value at a share of the way, in [0, 1], from the first choice to the last."""
        return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]


Space = Mapping[str, Range | OneOf]

_REGULARISATION: Space = {
    "workload.label_smoothing": OneOf((0.1, 0.2)),
    "workload.dropout_rate": OneOf((0.0, 0.1)),
}

_NADAMW: Space = {
    "learning_rate": Range(1e-4, 1e-2),
    "one_minus_b1": Range(0.004, 0.1),
    "b2": OneOf((0.999,)),
    "warmup_fraction": OneOf((0.05,)),
    "weight_decay": Range(0.005, 1.0),
    **_REGULARISATION,
}

_ADAMW: Space = {**_NADAMW, "one_minus_b1": Range(0.02, 0.5)}

_MOMENTUM: Space = {
    "learning_rate": Range(0.02, 5.0),
    "one_minus_momentum": Range(0.005, 0.3),
    "schedule": OneOf(("linear",)),
    "warmup_fraction": OneOf((0.05,)),
    "weight_decay": Range(1e-7, 5e-5),
    "decay_fraction": OneOf((0.9,)),
    "end_factor": OneOf((1e-3, 1e-2)),
    **_REGULARISATION,
}

# NAdam has no weight decay in the paper's races: its learning rate has the room instead.
_NADAM: Space = {
    "learning_rate": Range(1e-4, 1e-1),
    "one_minus_b1": Range(0.004, 0.5),
    "one_minus_b2": Range(1e-4, 1e-1),
}

# The steps that VeLO is told of, as a factor of those that the budget allows, and weight decay.
# Rezk et al., "Is Scaling Learned Optimizers Worth It?", 2023, https://arxiv.org/abs/2310.18191,
# asks whether VeLO needs tuning and varies the former from 0.75 to 1.25. The lower end of weight
# decay is as good as none.
_VELO: Space = {"prompt": Range(0.25, 2.0), "weight_decay": Range(1e-7, 1e-2)}

SPACES: dict[str, Space] = {
    "adam": _ADAMW,
    "nadam": _NADAM,
    "nadamw": _NADAMW,
    "heavy_ball": _MOMENTUM,
    "nesterov": _MOMENTUM,
    "velo": _VELO,
    "velo_short": _VELO,
    "velo_feed": {"weight_decay": _VELO["weight_decay"]},
}
"""Search space of every registered optimizer."""
