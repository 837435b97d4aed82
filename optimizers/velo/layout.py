"""Names, order and shapes of VeLO's meta-parameters, for any hidden size H and bank size K.

Pure: names and shapes; no I/O, no arithmetic of the optimizer.

Boundary: VeLO's part of ``optimizers.weights``, under the names that VeLO's modules use.

The network is that of Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up",
2022 (https://arxiv.org/abs/2211.09760); the names are those of the checkpoint released with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timetrial.optimizers.weights import layouts
from timetrial.optimizers.weights.layouts import FEATURE_WIDTHS, MLP_OUTPUTS, MLP_WIDTH
from timetrial.optimizers.weights.trees import Path, WeightsError, nest, one_line, show, some

__all__ = [
    "FEATURE_WIDTHS",
    "MLP_OUTPUTS",
    "MLP_WIDTH",
    "PATHS",
    "TENSOR_FEATURES",
    "Path",
    "WeightsError",
    "flatten",
    "nest",
    "one_line",
    "shapes",
    "show",
    "sizes",
    "some",
]

TENSOR_FEATURES = layouts.VELO_FEATURES
"""Inputs of the per-tensor network."""

PATHS: tuple[Path, ...] = layouts.VELO.paths
"""Paths of all tensors, in container order."""


def shapes(hidden_size: int, bank_size: int) -> dict[Path, tuple[int, ...]]:
    """Shape of every tensor, in the order of the released container.

    Args:
        hidden_size: H, width of the per-tensor LSTM, >= 1 (512 in the released weights).
        bank_size: K, number of per-parameter networks in the bank, >= 1 (256 released).

    Returns:
        33 shapes by path; together 8 H^2 + 100 H + H K + 160 K + 1 numbers (2,320,385 for the
        released sizes).
    """
    return layouts.velo_shapes(hidden_size, bank_size)


def flatten(tree: Mapping[str, Any]) -> dict[Path, Any]:
    """Leaves of a nested mapping by path, in container order.

    Raises:
        WeightsError: a name is missing or unexpected, or a map is in the place of a tensor, or
            the reverse.
    """
    return layouts.VELO.flatten(tree)


def sizes(found: Mapping[Path, tuple[int, ...]]) -> tuple[int, int]:
    """Hidden size H and bank size K that all the shapes agree on.

    Args:
        found: shape of every tensor in ``PATHS``.

    Raises:
        WeightsError: the shapes fit no (H, K); names the first tensor that does not fit.
    """
    layouts.VELO.check(found)
    return layouts.velo_sizes(found)
